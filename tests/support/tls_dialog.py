"""openssl's client and server, which say to each other what a test tells them."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from .netns import PATIENCE, Netns

PORT = 4433


class Party:
    """One of the two programs."""

    def __init__(self, netns: Netns, *command: str) -> None:
        self.process = subprocess.Popen(
            netns.command("openssl", *command),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def type(self, text: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()

    def await_text(self, text: str) -> None:
        """Read on until the program has printed a text."""
        assert self.process.stdout
        found = b""
        while text.encode() not in found:
            ready, _, _ = select.select([self.process.stdout], [], [], PATIENCE)
            more = os.read(self.process.stdout.fileno(), 4096) if ready else b""
            assert more, f"it has not said {text}, but {found!r}"
            found += more

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@dataclass
class Dialog:
    """What client and server have said, each a line at a time."""

    client: Party
    server: Party
    said: dict[str, list[str]] = field(default_factory=lambda: {"client": [], "server": []})

    def exchange(self) -> None:
        """Have the client say a line and the server answer."""
        number = len(self.said["client"])
        for who, whom, text in (
            (self.client, self.server, f"ask {number}"),
            (self.server, self.client, f"give {number}"),
        ):
            who.type(text)
            whom.await_text(text)
            self.said["client" if who is self.client else "server"].append(f"{text}\n")


@contextmanager
def dialog(
    netns: Netns, files: tuple[str, str], server: Sequence[str] = (), client: Sequence[str] = ()
) -> Iterator[Dialog]:
    """Have a session of the two, with options of each."""
    given = ("-cert", files[0], "-key", files[1])
    at = f"127.0.0.1:{PORT}"
    answering = Party(netns, "s_server", "-accept", at, *given, *server)
    try:
        answering.await_text("ACCEPT")
        asking = Party(netns, "s_client", "-connect", at, *client)
        try:
            yield Dialog(asking, answering)
        finally:
            asking.end()
        answering.await_text("ERROR")  # no more data: its last write has returned before
    finally:
        answering.end()
