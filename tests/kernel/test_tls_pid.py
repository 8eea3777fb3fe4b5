"""A filter by process spares others the traps, in whose memory no instruction is replaced."""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tcprism.filters import Criteria
from tcprism.sources.request import Request
from tcprism.sources.tracing import Tracing
from tests.support.forked import Script, look_for_tls_in_processes_alone
from tests.support.netns import Netns
from tests.support.tls import certificate
from tests.unit.tls.test_libraries import linked

KINDS = ("send", "recv", "tls_send", "tls_recv")

# Says which line it is told, inside TLS, by a thread that was made for it; the other end is a
# thread of its own. "fork" has a child do so.
TALK = """
import os, socket, ssl, sys, threading
server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl._create_unverified_context()
server.load_cert_chain(*sys.argv[1:])
def say(line):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        def serve():
            with server.wrap_socket(listener.accept()[0], server_side=True) as end:
                end.recv(100)
                end.send(b"!")
        other = threading.Thread(target=serve)
        other.start()
        with client.wrap_socket(socket.create_connection(listener.getsockname())) as end:
            end.send(line.encode())
            end.recv(100)
        other.join()
print("ready", flush=True)
for line in sys.stdin:
    if line == "fork\\n":
        if not os.fork():
            say("child")
            os._exit(0)
        os.wait()
    else:
        speaker = threading.Thread(target=say, args=(line.strip(),))
        speaker.start()
        speaker.join()
    print("done", flush=True)
"""


@contextmanager
def talking(netns: Netns, files: tuple[str, str]) -> Iterator[Script]:
    with closing(Script(netns, TALK, *files)) as process:
        assert process.stdout.readline() == "ready\n"
        yield process


def tell(process: Script, line: str) -> None:
    process.stdin.write(f"{line}\n")
    process.stdin.flush()
    assert process.stdout.readline() == "done\n"


def has_traps(process: Script) -> bool:
    """Tell whether libssl's code in a process is another than in the file."""
    path = Path(linked("libssl"))
    with open(f"/proc/{process.pid}/mem", "rb", buffering=0) as memory:
        for line in Path(f"/proc/{process.pid}/maps").read_text().splitlines():
            extent, access, offset, *_ = line.split()
            if "x" in access and line.endswith(f"/{path.name}"):
                begin, end = (int(each, 16) for each in extent.split("-"))
                memory.seek(begin)
                there = path.read_bytes()[int(offset, 16) :][: end - begin]
                return not memory.read(end - begin).startswith(there)
    raise AssertionError("it has no libssl")


def announced(tracing: Tracing) -> list[str]:
    """Return what is said at the start of whose plaintext is read."""
    assert tracing.libraries
    return tracing.libraries.lines


def test_only_the_chosen_process_has_traps(
    netns: Netns, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look_for_tls_in_processes_alone(monkeypatch.setattr)
    files = certificate(tmp_path)
    with talking(netns, files) as chosen, talking(netns, files) as other:
        assert not has_traps(chosen)
        assert not has_traps(other)
        criteria = Criteria(pids=(chosen.pid,), netns=(netns.inode,))
        with Tracing(Request(KINDS, criteria, payload=64)) as tracing:
            whose, *libraries = announced(tracing)
            maps = Path(f"/proc/{chosen.pid}/maps").read_text()
            assert whose == f"reading the plaintext of TLS of process {chosen.pid}, in:"
            assert linked("libssl").rpartition("/")[2] in "".join(libraries)
            assert all(f"{library.split()[0]}\n" in maps for library in libraries)
            assert has_traps(chosen)
            assert not has_traps(other)
            for process, line in ((other, "unheard"), (chosen, "heard"), (chosen, "fork")):
                tell(process, line)
            tracing.stop()
            said = []
            while len(batch := tracing.drain()):
                said += [(e.pid, e["payload"]) for e in batch if e.kind == "tls_send"]
        assert not has_traps(chosen)
    assert sorted(said) == [(chosen.pid, b"!"), (chosen.pid, b"heard")]


@pytest.mark.native
def test_children_that_are_followed(netns: Netns, tmp_path: Path) -> None:
    with talking(netns, certificate(tmp_path)) as chosen:
        criteria = Criteria(pids=(chosen.pid,), netns=(netns.inode,), follow=True)
        with Tracing(Request(KINDS, criteria, payload=64)) as tracing:
            assert "of TLS that the filters choose, now and of" in announced(tracing)[0]
            tell(chosen, "fork")
            tracing.stop()
            said = []
            while len(batch := tracing.drain()):
                said += [event["payload"] for event in batch if event.kind == "tls_send"]
    assert sorted(said) == [b"!", b"child"]
