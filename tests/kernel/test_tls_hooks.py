"""Plaintext of TLS with the uprobes that this kernel has: perf or uprobe_multi."""

from pathlib import Path

from tests.support.netns import Netns
from tests.support.tls_seen import check_records, payloads, see


def test_what_a_program_wrote_and_read(netns: Netns, tmp_path: Path) -> None:
    """One way is enough here: the others are the same everywhere, and each takes seconds."""
    (seen,) = see(netns, tmp_path, ("forked",)).values()
    assert payloads(seen.events) == seen.told
    check_records(seen)
