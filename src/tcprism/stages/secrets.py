"""What secrets look like: the names before them, and the beginnings that providers gave them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

TAIL = 48  # bytes: the longest name or beginning of a secret

# Where a secret is, and what comes before it.
Found = tuple[int, int, bytes]


@dataclass(frozen=True, slots=True)
class _Rule:
    """`pattern` is looked for where one of `needles` is; the last group that matches is the secret.

    The needles are lower case if the pattern ignores case. A shorter one than `least` is none,
    unless the message begins or ends with it: then there may be more. It has one of `has`.
    """

    needles: tuple[bytes, ...]
    pattern: re.Pattern[bytes]
    least: int = 0
    has: bytes = b""


_NAMES = (
    rb"(?:(?:access|refresh|id|auth|session|csrf|api|bearer|bot)[_-]?)?token|pass(?:word|wd|phrase)?"
    rb"|pwd|(?:client[_-]?)?secret(?:[_-]?(?:access[_-]?)?key)?|(?:api|private|access|account)[_-]?key"
    rb"|(?:php|j)?session[_-]?id|signature|sig|credentials?|cvv2?|cvc"
)
_NAME_NEEDLES = (
    b"token", b"pass", b"pwd", b"secret", b"key", b"session", b"sig", b"credential", b"cvv", b"cvc",
)  # fmt: skip


def _named(needles: tuple[bytes, ...], pattern: bytes) -> _Rule:
    return _Rule(needles, re.compile(pattern, re.IGNORECASE))


# Names are those of HTTP, forms, addresses, JSON, SQL, YAML, Redis (RESP), mail and FTP.
_NAMED = (
    _named((b"authorization:",), rb"(?:^|[\r\n])(?:proxy-)?authorization:[ \t]*([^\r\n]*)"),
    _named((b"cookie:",), rb"(?:^|[\r\n])(?:set-)?cookie:[ \t]*([^\r\n]*)"),
    _named(
        (b"token:", b"key:", b"secret:", b"signature:"),
        rb"(?:^|[\r\n])[a-z0-9-]{0,40}(?:token|(?:api|subscription)-?key|secret|signature)"
        rb":[ \t]*([^\r\n]*)",
    ),
    _named(_NAME_NEEDLES, rb"(?:\b|_)(?:" + _NAMES + rb")=([^&\s;\"']*)"),
    _named(
        _NAME_NEEDLES,
        rb"(?:\b|_)(?:" + _NAMES + rb")[\"']?\s{0,4}(?:=>?|:)\s{0,4}"
        rb"(?:\"((?:[^\"\\]|\\.)*)|'((?:[^'\\]|\\.)*)|(\d+))",
    ),
    _named(
        _NAME_NEEDLES, rb"(?:^|[\r\n])[ \t]{0,16}(?:" + _NAMES + rb"):[ \t]{1,16}([^\s\"'{\[]+)"
    ),
    _named(
        (b"password", b"identified"),
        rb"\b(?:password|identified\s{1,4}(?:with\s{1,4}\S{1,40}\s{1,4})?by)\s{0,4}\(?\s{0,4}'([^']*)",
    ),
    _named((b"://",), rb"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"']{0,64}:([^\s/@\"']+)(?:@|\Z)"),
    _named(
        (b"auth\r\n",),
        rb"\r\nauth\r\n\$\d{1,9}\r\n([^\r\n]*(?:\r\n\$\d{1,9}\r\n[^\r\n]*)?)",
    ),
    _named(
        (b"requirepass", b"masterauth"),
        rb"\r\n(?:requirepass|masterauth)\r\n\$\d{1,9}\r\n([^\r\n]*)",
    ),
    _named(
        (b"setuser",),
        rb"\r\nsetuser\r\n(?:\$\d{1,9}\r\n[^\r\n>#][^\r\n]{0,128}\r\n){1,8}\$\d{1,9}\r\n[>#]([^\r\n]+)",
    ),
    _named(
        (b"pass ", b"auth "), rb"(?:\A|\r\n)(?:pass|auth(?: plain| login)?)[ ]([^\r\n]*)"
    ),
    # SASL PLAIN, RFC 4616, as AMQP 0-9-1 has it: the name is before
    _named((b"plain\0\0\0",), rb"plain\0\0\0.[^\0]{0,64}\0[^\0]{1,128}\0([^\0-\x1f]*)"),
)  # fmt: skip


def _token(beginning: bytes, of: bytes, least: int, *needles: bytes, has: bytes = b"") -> _Rule:
    pattern = rb"(?<![A-Za-z0-9])(?:" + beginning + rb")(" + of + rb"+)"
    return _Rule(needles or (beginning,), re.compile(pattern), least, has)


# By the beginnings that their providers document. What has no length there has a careful one.
_TOKENS = (
    _token(rb"AKIA|ASIA|ABIA|ACCA", rb"[0-9A-Z]", 16, b"AKIA", b"ASIA", b"ABIA", b"ACCA"),  # AWS
    _token(rb"AIza", rb"[\w-]", 30),  # Google
    _token(rb"ya29\.", rb"[\w-]", 20, b"ya29."),
    _token(rb"GOCSPX-", rb"[\w-]", 20),
    _token(rb"gh[pousr]_", rb"\w", 30, b"ghp_", b"gho_", b"ghu_", b"ghs_", b"ghr_"),  # GitHub
    _token(rb"github_pat_", rb"\w", 30),
    _token(rb"gl(?:pat|dt|rt|ptt)-", rb"[\w-]", 16, b"glpat-", b"gldt-", b"glrt-", b"glptt-"),
    _token(rb"xox[a-z](?:\.xox[a-z])?-|xapp-", rb"[\w.-]", 10, b"xox", b"xapp-"),  # Slack
    _token(rb"hooks\.slack\.com/services/", rb"[\w/]", 20, b"hooks.slack.com"),
    _token(rb"[sr]k_(?:live|test)_", rb"\w", 10, b"k_live_", b"k_test_"),  # Stripe
    _token(rb"whsec_", rb"[\w+/=]", 20),
    _token(rb"eyJ", rb"[\w.=-]", 20, has=b"."),  # JWT, RFC 7519: {" in base64
    _token(rb"sk-", rb"[\w-]", 20),  # OpenAI, Anthropic
    _token(rb"npm_", rb"\w", 30),
    _token(rb"pypi-", rb"[\w-]", 50),
    _token(rb"SG\.", rb"[\w.-]", 40, b"SG."),  # SendGrid
    _token(rb"SK", rb"[0-9a-f]", 32),  # Twilio
    _token(rb"do[op]_v1_", rb"[0-9a-f]", 40, b"dop_v1_", b"doo_v1_"),  # DigitalOcean
    _token(rb"shp(?:at|ca|pa)_", rb"[0-9a-fA-F]", 30, b"shpat_", b"shpca_", b"shppa_"),
    _token(rb"hf_", rb"[A-Za-z]", 30),
    _token(rb"hv[sb]\.", rb"[\w-]", 20, b"hvs.", b"hvb."),  # Vault
    _token(rb"\d{8,10}:AA", rb"[\w-]", 30, b":AA"),  # Telegram
    _token(rb"AGE-SECRET-KEY-1", rb"[0-9A-Z]", 30),
    _Rule(
        (b"PRIVATE KEY",),
        re.compile(rb"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----([^-]+)"),
    ),
)  # fmt: skip

_DIGITS = re.compile(rb"\d(?:[ -]?\d){12}")  # quicker to look for
_CARD = re.compile(rb"(?<![\d.-])\d(?:[ -]?\d){12,18}(?![\d.-])")
_CARD_BEGINS = re.compile(rb"(?<![\d.-])[2-6](?:[ -]?\d){6,14}[ -]?\Z")


def _by_needles(rules: Iterable[_Rule]) -> dict[tuple[bytes, ...], list[_Rule]]:
    found: dict[tuple[bytes, ...], list[_Rule]] = {}
    for rule in rules:
        found.setdefault(rule.needles, []).append(rule)
    return found


_NAMED_BY_NEEDLES, _TOKENS_BY_NEEDLES = _by_needles(_NAMED), _by_needles(_TOKENS)
_PASSWORD_MESSAGE, _PASSWORD_AT = b"p\0\0", 5  # of PostgreSQL: a byte, the length


def secrets(tail: bytes, data: bytes) -> Iterator[Found]:
    """Yield where secrets are in `data`, which follows `tail`, and what comes before each.

    What may be the beginning of one at the end is one.
    """
    text = tail + data
    for rule in (*_there(_NAMED_BY_NEEDLES, text.lower()), *_there(_TOKENS_BY_NEEDLES, text)):
        yield from _matches(rule, text, len(tail))
    yield from _cards(text, len(tail))
    if data.startswith(_PASSWORD_MESSAGE) and len(data) > _PASSWORD_AT:
        yield _PASSWORD_AT, len(data), b""


def _there(rules: dict[tuple[bytes, ...], list[_Rule]], text: bytes) -> list[_Rule]:
    """Return the rules that may match: most texts have none of the needles."""
    found: list[_Rule] = []
    for needles, some in rules.items():
        for needle in needles:
            if needle in text:
                found += some
                break
    return found


def _matches(rule: _Rule, text: bytes, before: int) -> Iterator[Found]:
    for match in rule.pattern.finditer(text):
        begin, end = match.span(match.lastindex or 0)
        at_edge = match.start() < before or end == len(text)
        if at_edge or (end - begin >= rule.least and rule.has in text[begin:end]):
            yield max(begin - before, 0), end - before, text[match.start() : begin]


def _cards(text: bytes, before: int) -> Iterator[Found]:
    for match in _CARD.finditer(text) if _DIGITS.search(text) else ():
        if has_check_digit(match[0]) and match.end() > before:
            yield max(match.start() - before, 0), match.end() - before, b""
    if text[-2:].rstrip(b" -")[-1:].isdigit():
        for match in _CARD_BEGINS.finditer(text, max(0, len(text) - TAIL)):
            yield max(match.start() - before, 0), match.end() - before, b""


def has_check_digit(text: bytes) -> bool:
    """Tell whether digits are a card's number: ISO/IEC 7812-1, annex B."""
    digits = [byte - 48 for byte in reversed(text) if 48 <= byte <= 57]
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[1::2])
    return any(digits) and (sum(digits[::2]) + sum(doubled)) % 10 == 0
