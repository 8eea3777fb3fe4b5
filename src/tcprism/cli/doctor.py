"""`tcprism doctor`: what this machine can show, by which hook, and why not by a better one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from typing import Any

import click

from tcprism import __version__, features
from tcprism.cli import doctor_privileges, doctor_tls
from tcprism.errors import Error, UsageError
from tcprism.events.escape import escape_text
from tcprism.features import machine
from tcprism.probes import Probe
from tcprism.sources.plan import PROBES
from tcprism.sources.tracing import survey

EPILOG = """\b
Examples:
  sudo tcprism doctor          a report to read, or to attach to a bug report
  sudo tcprism doctor --json   the same for programs; exit status 0 only if every kind works
  sudo tcprism doctor --tls    which processes do TLS, and whether their library can be read"""


@click.command(epilog=EPILOG)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option(
    "--tls",
    metavar="[PID]",
    is_flag=False,
    flag_value="all",
    help="Report which processes do TLS (or whether this one does), by which library, and whether "
    "tcprism knows its functions.",
)
def command(as_json: bool, tls: str | None) -> None:
    """Report what this machine can show, by which hook, and why not by a better one."""
    if tls is None:
        report = examine()
        lines = _lines(report)
    else:
        report = doctor_tls.examine(None if tls == "all" else _pid(tls))
        lines = doctor_tls.lines(report)
    print(json.dumps(report, indent=2) if as_json else "\n".join(lines))
    sys.exit(0 if report["works"] else 1)


def _pid(text: str) -> int:
    if text.isascii() and text.isdecimal() and len(text) < 10:
        return int(text)
    raise UsageError(f"--tls takes a pid, not {escape_text(text)}")


def examine() -> dict[str, Any]:
    """Return the findings: the machine's facts, and per kind the hook in use."""
    kinds = {kind: found for probe in PROBES for kind, found in _examine_probe(probe).items()}
    return {
        "tcprism": __version__,
        "machine": machine.facts(),
        "privileges": doctor_privileges.examine(),
        "kinds": kinds,
        "works": all(found["hook"] for found in kinds.values()),
    }


def _examine_probe(probe: Probe) -> dict[str, dict[str, Any]]:
    try:
        machine.require()
        choice = survey(probe)
        found = {
            "hook": choice.hook and choice.hook.mechanism,
            "name": choice.hook and choice.hook.name,
            "cannot_tell": list(choice.hook.cannot_tell) if choice.hook else [],
            "refused": [_refusal(refusal) for refusal in choice.refusals],
            "error": None,
        }
    except Error as error:
        found = {"hook": None, "name": None, "cannot_tell": [], "refused": [], "error": str(error)}
    return dict.fromkeys(probe.kinds, found)


def _refusal(refusal: features.Refusal) -> dict[str, str]:
    return {
        "hook": refusal.hook.mechanism,
        "name": refusal.hook.name,
        "reason": refusal.reason,
        "since": refusal.hook.since,
    }


def _lines(report: dict[str, Any]) -> Iterator[str]:
    facts = report["machine"]
    yield f"tcprism       {report['tcprism']}"
    yield f"kernel        {facts['kernel']} ({facts['architecture']})"
    yield f"BTF           {'yes' if facts['btf'] else 'no (CONFIG_DEBUG_INFO_BTF=y is needed)'}"
    yield f"lockdown      {facts['lockdown']}"
    yield from doctor_privileges.lines(report["privileges"])
    yield f"libbpf        {_libbpf_line(facts['libbpf'])}"
    if not facts["initial_pid_namespace"]:
        yield "pids          a pid namespace: --pid takes its pids, events have the host's"
    for hooks in _distinct(report["kinds"].values()):
        yield ""
        kinds = [kind for kind, found in report["kinds"].items() if found == hooks]
        yield from _kind_lines(", ".join(kinds), hooks)
    yield ""
    yield "every kind works" if report["works"] else "not every kind works: see above"


def _distinct(findings: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the findings without repetitions: the kinds of a family share theirs."""
    distinct: list[dict[str, Any]] = []
    for found in findings:
        if found not in distinct:
            distinct.append(found)
    return distinct


def _libbpf_line(found: dict[str, str | None]) -> str:
    return found["error"] or f"{found['version']} ({found['path']})"


def _kind_lines(kind: str, found: dict[str, Any]) -> Iterator[str]:
    if found["error"]:
        yield f"{kind:<12}  does not work: {found['error']}"
        return
    yield f"{kind:<12}  {found['hook']}: {found['name']}"
    for refusal in found["refused"]:
        hook = f"not {refusal['hook']} (kernels from {refusal['since']})"
        yield f"{'':<12}    {hook}: {refusal['reason']}"
    for limit in found["cannot_tell"]:
        yield f"{'':<12}    cannot tell: {limit}"
