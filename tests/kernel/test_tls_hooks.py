"""Plaintext of TLS with the uprobes that this kernel has: perf or uprobe_multi."""

from pathlib import Path

from tests.support.netns import Netns
from tests.support.tls_seen import check_records, payloads, see


def test_what_programs_wrote_and_read(netns: Netns, tmp_path: Path) -> None:
    seen = see(netns, tmp_path, ("two_threads", "in_memory"))
    for one in seen.values():
        assert payloads(one.events) == one.told
    check_records(seen["two_threads"])
