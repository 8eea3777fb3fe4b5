"""Secrets of every kind that is known are overwritten, wherever a message ends amid one."""

from __future__ import annotations

import base64

import pytest

from tcprism.events import Batch
from tcprism.stages.redact import Redact

from .records import messages

# Made up: the part that nobody may see, and what stands around it. No real one has such bytes, so
# that nobody who looks for leaked secrets finds these.
FILLING = "ZZfake0ZZfake1ZZfake2ZZfake3ZZfake4ZZfake5ZZfake6ZZfake7ZZfake8"


def _fake(size: int, upper: bool = False) -> str:
    text = FILLING[:size]
    return text.upper() if upper else text


PLANTED = {
    "aws id": ("key id AKIA", _fake(16, upper=True), " x"),
    "aws secret": ("aws_secret_access_key=", _fake(40), "\n"),
    "aws session": ("GET / HTTP/1.1\r\nX-Amz-Security-Token: ", _fake(60), "\r\n\r\n"),
    "aws address": ("GET /o?X-Amz-Signature=", _fake(60), "&x=1 HTTP/1.1"),
    "google key": ("GET /maps?k=AIza", _fake(35), " HTTP/1.1"),
    "google token": ('{"t": "ya29.', _fake(40), '"}'),
    "google header": ("X-Goog-Api-Key: ", "none-of-yours", "\r\n"),
    "github": ("clone with ghp_", _fake(36), " now"),
    "github fine": ("github_pat_", _fake(50), "\n"),
    "gitlab": ("PRIVATE-TOKEN: ", "glpat-" + _fake(20), "\r\n"),
    "slack": ("text xoxb-", "1234-" + _fake(24), " text"),
    "slack hook": ("POST https://hooks.slack.com/services/", "T0/B0/" + _fake(24), " HTTP/1.1"),
    "stripe": ("charge sk_live_", _fake(24), ";"),
    "jwt": ("t eyJ", _fake(20) + "." + _fake(30) + "." + _fake(43), " t"),
    "vault": ("X-Vault-Token: hvs.", _fake(24), "\r\n"),
    "private key": (
        "-----BEGIN RSA PRIVATE KEY-----",
        "\n" + base64.b64encode(bytes(range(90))).decode() + "\n",
        "-----END RSA PRIVATE KEY-----\n",
    ),
    "bearer": ("GET / HTTP/1.1\r\nAuthorization: ", "Bearer " + _fake(30), "\r\nHost: a\r\n"),
    "address": ("GET https://me:", _fake(12), "@host/ HTTP/1.1"),
    "database": ("postgresql://app:", _fake(12), "@db:5432/shop"),
    "form": ("user=me&password=", _fake(9), "&x=1"),
    "json": ('{"user": "me", "accessToken": "', _fake(20), '", "x": 1}'),
    "json number": ('{"cvv": ', "123", ', "x": 1}'),
    "sql": ("ALTER ROLE me PASSWORD '", _fake(9), "' LOGIN"),
    "sql update": ("UPDATE users SET password = '", _fake(9), "' WHERE id = 7"),
    "mysql": ("CREATE USER me IDENTIFIED WITH mysql_native_password BY '", _fake(9), "';"),
    "yaml": ("db:\n  password: ", _fake(9), "\n  host: a\n"),
    "redis": ("*2\r\n$4\r\nAUTH\r\n$7\r\n", "hunter2", "\r\n*1\r\n"),
    "redis hello": ("\r\n$1\r\n3\r\n$4\r\nAUTH\r\n$2\r\nme\r\n$7\r\n", "hunter2", "\r\n"),
    "redis acl": ("*4\r\n$3\r\nACL\r\n$7\r\nSETUSER\r\n$2\r\nme\r\n$8\r\n>", "hunter2", "\r\n"),
    "mail": ("PASS ", "hunter2", "\r\n"),
    "card": ("card=", "4111 1111 1111 1111", ";"),
}  # fmt: skip


def _shown(*payloads: bytes) -> bytes:
    stage = Redact()
    made = [messages({"payload": each, "bytes": len(each)}, payload_class=512) for each in payloads]
    return b"".join(part.payloads()[0] for one in made for part in stage(Batch([one])).parts)


@pytest.mark.parametrize("kind", PLANTED)
def test_nothing_of_it_is_left(kind: str) -> None:
    before, secret, after = (text.encode() for text in PLANTED[kind])
    shown = _shown(before + secret + after)
    assert len(shown) == len(before + secret + after)
    assert shown.endswith(after)
    inside = shown[len(before) : -len(after)]
    assert set(inside) == {ord("*")}, shown


@pytest.mark.parametrize("kind", PLANTED)
def test_nothing_of_it_is_left_wherever_a_message_ends(kind: str) -> None:
    before, secret, after = (text.encode() for text in PLANTED[kind])
    whole = before + secret + after
    for cut in range(1, len(whole)):
        shown = _shown(whole[:cut], whole[cut:])
        inside = shown[len(before) : -len(after)]
        left = sum(byte not in b"* \r\n" for byte in inside)
        most = 6 if kind == "card" else 0  # whose issuer's digits are no secret
        assert left <= most, (cut, shown)


def test_postgresqls_password_message() -> None:
    message = b"p" + (4 + 8).to_bytes(4, "big") + b"hunter2\0"
    assert _shown(message) == message[:5] + b"*" * 8


@pytest.mark.parametrize(
    "text",
    [
        "GET /tokens?page=2 HTTP/1.1\r\nHost: api.example.org:8080\r\nSec-WebSocket-Key: a\r\n\r\n",
        "see http://localhost:8080/path and sk-8 or SK12, task-list-of-many-things-to-do-today",
        '{"tokens": 12, "passengers": ["a"], "key": "value", "signal": "x"}',
        "SELECT password FROM users WHERE id = 7",
        'HTTP/1.1 200 OK\r\nETag: "4111"\r\nContent-Length: 12\r\n\r\n',
        "*3\r\n$3\r\nSET\r\n$5\r\nkey:1\r\n$3\r\nabc\r\n",
    ],
)
def test_all_else_stays(text: str) -> None:
    assert _shown(text.encode()) == text.encode()
