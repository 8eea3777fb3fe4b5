"""What the hellos of TLS say (RFC 8446, section 4.1; RFC 5246, section 7.4.1), and its names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tcprism.protocols import NotThisProtocol

TLS_1_3 = 0x0304
VERSIONS = {
    0x0300: "SSLv3",
    0x0301: "TLSv1.0",
    0x0302: "TLSv1.1",
    0x0303: "TLSv1.2",
    TLS_1_3: "TLSv1.3",
}

# Of those that IANA has registered, the ones that are in use.
_CIPHERS = {
    0x002F: "TLS_RSA_WITH_AES_128_CBC_SHA",
    0x0035: "TLS_RSA_WITH_AES_256_CBC_SHA",
    0x003C: "TLS_RSA_WITH_AES_128_CBC_SHA256",
    0x003D: "TLS_RSA_WITH_AES_256_CBC_SHA256",
    0x0033: "TLS_DHE_RSA_WITH_AES_128_CBC_SHA",
    0x0039: "TLS_DHE_RSA_WITH_AES_256_CBC_SHA",
    0x009C: "TLS_RSA_WITH_AES_128_GCM_SHA256",
    0x009D: "TLS_RSA_WITH_AES_256_GCM_SHA384",
    0x009E: "TLS_DHE_RSA_WITH_AES_128_GCM_SHA256",
    0x009F: "TLS_DHE_RSA_WITH_AES_256_GCM_SHA384",
    0x1301: "TLS_AES_128_GCM_SHA256",
    0x1302: "TLS_AES_256_GCM_SHA384",
    0x1303: "TLS_CHACHA20_POLY1305_SHA256",
    0x1304: "TLS_AES_128_CCM_SHA256",
    0xC009: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA",
    0xC00A: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA",
    0xC013: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA",
    0xC014: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA",
    0xC023: "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA256",
    0xC024: "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA384",
    0xC027: "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA256",
    0xC028: "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA384",
    0xC02B: "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    0xC02C: "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    0xC02F: "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    0xC030: "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    0xCCA8: "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCA9: "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    0xCCAA: "TLS_DHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
}

ALERTS = {
    0: "close_notify",
    10: "unexpected_message",
    20: "bad_record_mac",
    21: "decryption_failed",
    22: "record_overflow",
    30: "decompression_failure",
    40: "handshake_failure",
    41: "no_certificate",
    42: "bad_certificate",
    43: "unsupported_certificate",
    44: "certificate_revoked",
    45: "certificate_expired",
    46: "certificate_unknown",
    47: "illegal_parameter",
    48: "unknown_ca",
    49: "access_denied",
    50: "decode_error",
    51: "decrypt_error",
    60: "export_restriction",
    70: "protocol_version",
    71: "insufficient_security",
    80: "internal_error",
    86: "inappropriate_fallback",
    90: "user_canceled",
    100: "no_renegotiation",
    109: "missing_extension",
    110: "unsupported_extension",
    111: "certificate_unobtainable",
    112: "unrecognized_name",
    113: "bad_certificate_status_response",
    114: "bad_certificate_hash_value",
    115: "unknown_psk_identity",
    116: "certificate_required",
    120: "no_application_protocol",
}

_SERVER_NAME, _ALPN, _PRE_SHARED_KEY, _EARLY_DATA, _VERSIONS = 0, 16, 41, 42, 43
_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_NAMES_MAX = 60  # characters of all names of protocols together
_LONGEST_NAME = 200


@dataclass(slots=True)
class ClientHello:
    """What a client asks for."""

    name: str
    protocols: str  # of ALPN
    early_data: bool


@dataclass(slots=True)
class ServerHello:
    """What a server has chosen."""

    version: int
    cipher: str
    protocol: str  # of ALPN; TLS 1.3 encrypts it
    resumed: bool  # in TLS 1.3; before, the messages that follow tell
    retry: bool  # it asks for another hello


def client_hello(body: bytes) -> ClientHello:
    """Read the body of a ClientHello, of which the end may be wanting."""
    place = 35 + _at(body, 34)  # version, random and session id
    place += 2 + _number(body, place)  # ciphers
    place += 1 + _at(body, place)  # compression
    hello = ClientHello("", "", False)
    for kind, value in _extensions(body, place):
        if kind == _SERVER_NAME and value[2:3] == b"\0":
            name = value[5 : 5 + _number(value, 3)]
            hello.name = name[:_LONGEST_NAME].decode("ascii", "backslashreplace")
        elif kind == _ALPN:
            hello.protocols = _protocols(value)
        elif kind == _EARLY_DATA:
            hello.early_data = True
    return hello


def server_hello(body: bytes) -> ServerHello:
    """Read the body of a ServerHello."""
    place = 35 + _at(body, 34)
    code = _number(body, place)
    cipher = _CIPHERS.get(code, f"0x{code:04X}")
    hello = ServerHello(_number(body, 0), cipher, "", False, body[2:34] == _RETRY)
    for kind, value in _extensions(body, place + 3):
        if kind == _VERSIONS:
            hello.version = _number(value, 0)
        elif kind == _ALPN:
            hello.protocol = _protocols(value)
        elif kind == _PRE_SHARED_KEY:
            hello.resumed = True
    if hello.version not in VERSIONS:
        raise NotThisProtocol
    return hello


def _extensions(body: bytes, place: int) -> Iterator[tuple[int, bytes]]:
    place += 2
    while place + 4 <= len(body):
        end = place + 4 + _number(body, place + 2)
        yield _number(body, place), body[place + 4 : end]
        place = end


def _protocols(value: bytes) -> str:
    names, place = [], 2
    while place < len(value):
        end = place + 1 + value[place]
        names.append(value[place + 1 : end].decode("ascii", "backslashreplace"))
        place = end
    return " ".join(names)[:_NAMES_MAX]


def _at(data: bytes, place: int) -> int:
    if place >= len(data):
        raise NotThisProtocol
    return data[place]


def _number(data: bytes, place: int) -> int:
    if place + 2 > len(data):
        raise NotThisProtocol
    return data[place] << 8 | data[place + 1]
