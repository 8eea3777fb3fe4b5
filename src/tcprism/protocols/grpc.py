"""gRPC: calls over HTTP/2, told by the type of their content; the trailers say how they ended."""

from __future__ import annotations

STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
    "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED",
    "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
_TYPE = b"application/grpc"


def is_grpc(content_type: bytes | None) -> bool:
    """Whether a body of this type holds gRPC's messages; gRPC-Web's are framed otherwise."""
    if content_type is None or not content_type.startswith(_TYPE):
        return False
    return content_type[len(_TYPE) :][:1] in (b"", b"+", b";")


def status_name(status: bytes) -> str:
    """Return the name of a status, or its number if it has none."""
    if status.isdigit() and len(status) < 3 and int(status) < len(STATUSES):
        return STATUSES[int(status)]
    return status[:20].decode("ascii", "backslashreplace")
