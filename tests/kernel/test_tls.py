"""Plaintext of TLS: what programs wrote and read, on their sockets, in the records on the wire."""

from collections.abc import Iterator

import pytest

from tests.support import tls_talk
from tests.support.netns import namespace
from tests.support.tls_seen import Seen, check_records, payloads, see

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Seen]]:
    with namespace() as netns:
        yield see(netns, tmp_path_factory.mktemp("programs"), tls_talk.WAYS)


@pytest.mark.parametrize("way", tls_talk.WAYS)
def test_what_a_program_wrote_and_read(programs: dict[str, Seen], way: str) -> None:
    assert payloads(programs[way].events) == programs[way].told


@pytest.mark.parametrize("way", tls_talk.WAYS)
def test_the_records_that_carry_it(programs: dict[str, Seen], way: str) -> None:
    check_records(programs[way])
