"""A process at one end of a connection, which does what a test tells it."""

from pathlib import Path

from .forked import Script
from .netns import PATIENCE, Pair

# A process that has a connection, an heir from its parent, and does with it what it is told, a
# letter at a time.
PEER = """
import os, socket, sys
role, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
if role in ("connect", "heir"):
    end = socket.create_connection((address, port))
else:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, port))
    listener.listen()
    print("listening", os.getpid(), flush=True)
    if role == "prefork" and (child := os.fork()):
        os.waitpid(child, 0)
        sys.exit()
    end, _ = listener.accept()
if role == "heir":
    print("parent", os.getpid(), flush=True)
    if child := os.fork():
        os.waitpid(child, 0)
        sys.exit()
print("connected", os.getpid(), flush=True)
for command in iter(lambda: sys.stdin.read(1), ""):
    if command == "r":
        end.recv(100)
    if command == "s":
        end.sendall(b"s" * 100)
    if command == "q":
        break
    print("done", flush=True)
"""


class Peer:
    """A process of our own at one end of a connection; `pid` is who has the connection."""

    def __init__(self, pair: Pair, end: str, role: str, address: str, port: int) -> None:
        self.process = Script(getattr(pair, end), PEER, role, address, str(port))
        connects = role in ("connect", "heir")
        self.listener = 0 if connects else self.await_word("listening")
        self.parent = self.await_word("parent") if role == "heir" else 0
        self.pid = self.await_word("connected") if connects else 0
        self.comm = Path(f"/proc/{self.pid}/comm").read_text().strip() if self.pid else ""

    def await_word(self, word: str) -> int:
        """Wait until it says so, and return the number behind the word."""
        line = self.process.stdout.readline().split()
        assert line[:1] == [word]
        return int(line[1]) if len(line) > 1 else 0

    def do(self, command: str) -> None:
        """Have it receive (r) or send (s)."""
        self.process.stdin.write(command)
        self.process.stdin.flush()
        self.await_word("done")

    def quit(self) -> None:
        """Have it end, and its connection with it."""
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0
