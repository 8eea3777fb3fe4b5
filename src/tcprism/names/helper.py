"""A child that looks up containers for a process that has given up its privileges.

A question is the id of a container, 64 digits; the answer is a JSON array of what is told of it
(Told), or null. The child can do nothing else, and ends with whoever asks.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Collection, Iterable
from contextlib import suppress
from pathlib import Path

from tcprism.kernel import confinement
from tcprism.names import bundles
from tcprism.names.look_up import LookUp
from tcprism.names.workloads import Told

_ID = re.compile(rb"[0-9a-f]{64}")
_LONGEST = 1 << 12  # bytes of an answer
_READY, _NOTHING = b"+", b"null"
_SHARED = Path("/run")  # where others have files, too
_ENDED = "names of new containers are no longer looked up: the process that did has ended"


class Helper:
    """Looks up containers, in a child that keeps the user and may read what that needs.

    To be made before privileges are given up, without threads. Raises OSError.
    """

    def __init__(self, look_up: LookUp) -> None:
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._child = os.fork()
        if not self._child:
            with suppress(BaseException):
                _confine(theirs)
                theirs.send(_READY)
                _answer(theirs, look_up)
            os._exit(0)
        theirs.close()
        self._there = True
        if self._ours.recv(1) != _READY:
            self._say_ended()

    def __call__(self, wanted: Collection[str]) -> dict[str, Told]:
        """Return what is told of containers by their ids; nothing once the child has ended."""
        try:
            found = {each: self._ask(each) for each in wanted if self._there}
        except OSError:
            self._say_ended()
            return {}
        return {each: told for each, told in found.items() if told}

    def _say_ended(self) -> None:
        if self._there:
            self._there = False
            print(_ENDED, file=sys.stderr, flush=True)

    def _ask(self, container_id: str) -> Told | None:
        self._ours.send(container_id.encode())
        answer = self._ours.recv(_LONGEST)
        if not answer:
            raise BrokenPipeError
        return _checked(answer)

    def close(self) -> None:
        """End the child."""
        self._there = False
        with suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)
        with suppress(ChildProcessError):  # SIGCHLD is ignored
            os.waitpid(self._child, 0)


def _checked(answer: bytes) -> Told | None:
    """Return what an answer tells: the child reads what others wrote, and is not believed."""
    try:
        told = Told(*json.loads(answer))
    except (ValueError, TypeError, RecursionError):
        return None
    proper = all(part is None or (isinstance(part, str) and part.isprintable()) for part in told)
    return told if proper else None


def _confine(asker: socket.socket) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    for descriptor in {*map(int, os.listdir("/proc/self/fd"))} - {asker.fileno()}:
        with suppress(OSError):
            os.close(descriptor)
    import tcprism.names.container_engine  # noqa: F401  (while all that it needs may be read)

    # Root needs none, as what is read is root's own; a service's user needs this one.
    reads = (confinement.CAP_DAC_READ_SEARCH,)
    confinement.drop_capabilities(None, reads if os.geteuid() and confinement.has(*reads) else ())
    confinement.restrict_files(map(str, (*_folders(), *confinement.own_places())), (), ())
    confinement.refuse_system_calls((socket.AF_UNIX,))


def _folders() -> Iterable[Path]:
    """Yield where bundles are or, if there is none yet, the nearest folder that is there."""
    for place in bundles.PLACES:
        for folder in (place.folder, *place.folder.parents):
            if folder == _SHARED:
                break
            if os.path.isdir(folder):  # unlike Path.is_dir(), of what may not be read, too
                yield folder
                break


def _answer(asker: socket.socket, look_up: LookUp) -> None:
    while question := asker.recv(65):
        asker.send(_told(question, look_up))


def _told(question: bytes, look_up: LookUp) -> bytes:
    if not _ID.fullmatch(question):
        return _NOTHING
    container_id = question.decode()
    answer = json.dumps(look_up([container_id]).get(container_id)).encode()
    return answer if len(answer) <= _LONGEST else _NOTHING
