"""Memory for batches: makes the C library keep what it would return to the kernel."""

KEPT_BYTES = 4 << 20


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for the next batch.

    glibc gives large blocks back to the kernel and gets them again as fresh pages, which costs more
    than all else that is done to read a ring. Freeing one block of this size makes it keep up to
    twice that.
    """
    bytearray(KEPT_BYTES)
