"""`tcprism doctor --tls`: which processes do TLS, and whether tcprism knows their library."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tcprism import __version__
from tcprism.errors import UnknownTarget
from tcprism.events.escape import escape
from tcprism.probes.tls import PROBE
from tcprism.tls.flavors import TITLES
from tcprism.tls.libraries import Library, find
from tcprism.tls.mappings import running
from tcprism.tls.uncovered import Uncovered

_NAMED = 5  # of the processes that could not be examined
_PROBED = {
    symbol for hook in PROBE.hooks for program in hook.programs for symbol in program.symbols
}


def examine(pid: int | None) -> dict[str, Any]:
    """Return the findings about one process, or about all. Raises UnknownTarget.

    `processes` has those that do TLS, `unreadable` the pids of those of which we cannot tell.
    `works` says that all of them are covered.
    """
    found = find(running() if pid is None else [pid])
    uncovered = Uncovered()
    processes, unreadable = [], []
    for each in running() if pid is None else [pid]:
        libraries = found.users.get(each, [])
        try:
            reasons = uncovered.of(each, {library.name for library in libraries})
            name = _name(each)
        except PermissionError:
            unreadable.append(each)
            continue
        except OSError as error:
            if pid is None:
                continue
            raise UnknownTarget(f"there is no process {pid}") from error
        known, unknown = _split(libraries)
        if known or unknown or reasons:
            processes.append(_process(each, name, known, unknown | reasons))
    return {
        "tcprism": __version__,
        "processes": processes,
        "unreadable": unreadable,
        "works": not unreadable and not any(process["not_covered"] for process in processes),
    }


def _name(pid: int) -> str:
    with open(f"/proc/{pid}/comm", "rb") as file:
        return escape(file.read().removesuffix(b"\n"))


def _split(libraries: list[Library]) -> tuple[list[Library], dict[str, str]]:
    """Return the libraries that have functions to probe, and the flavors of other files."""
    known = [library for library in libraries if library.among(_PROBED)]
    files = {library.name for library in known}
    unknown = {each.name: TITLES[each.flavor] for each in libraries if each.name not in files}
    return known, unknown


def _process(
    pid: int, name: str, libraries: list[Library], reasons: dict[str, str]
) -> dict[str, Any]:
    return {
        "pid": pid,
        "name": name,
        "libraries": [
            {
                "path": library.name,
                "flavor": library.flavor,
                "version": library.version,
                "how": library.how,
                "functions": sorted(library.among(_PROBED)),
            }
            for library in libraries
        ],
        "not_covered": [{"path": path, "reason": why} for path, why in reasons.items()],
    }


def lines(report: dict[str, Any]) -> Iterator[str]:
    """Write the findings as text."""
    for process in report["processes"]:
        yield f"{process['name']}, pid {process['pid']}"
        for library in process["libraries"]:
            about = f"{library['version'] or 'version unknown'}, {library['how']}"
            yield f"    {library['path']}: {about}, {len(library['functions'])} functions"
        for file in process["not_covered"]:
            yield f"    {file['path']}: not covered: {file['reason']}"
    if pids := report["unreadable"]:
        named = ", ".join(map(str, pids[:_NAMED])) + (", ..." if len(pids) > _NAMED else "")
        yield f"{len(pids)} of the processes could not be examined: pid {named}"
    if not report["processes"]:
        yield "no library for TLS found"
