"""`tcprism serve`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import click

from tcprism.cli import options
from tcprism.cli.configuration import config_option
from tcprism.cli.output import print_ledger
from tcprism.cli.serving import Own, Pulse
from tcprism.cli.session import Limits, Stop
from tcprism.cli.tls_options import tls_option, with_tls
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import parse_tracing, payload_option, serving_options
from tcprism.errors import UsageError
from tcprism.events.requests import NEEDS, PAYLOAD
from tcprism.features import machine
from tcprism.metrics.aggregate import Metrics
from tcprism.metrics.owners import Listeners, Owners, Peers, Processes, ephemeral_ports
from tcprism.metrics.prometheus import Endpoint
from tcprism.pipeline import account, run
from tcprism.sinks import Sink
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.together import Together
from tcprism.sources.tracing import Tracing
from tcprism.stages import Stage

KINDS = ("retransmit", "undo", "drop", "connect", "accept", "close", "reset")
SNAPSHOT_EVERY = 10.0  # seconds

EPILOG = """\b
Examples:
  tcprism serve                                    metrics at http://127.0.0.1:9878/metrics
  tcprism serve --requests                         also requests: HTTP, databases, ...
  tcprism serve --requests --tls --port 443        also those inside TLS, of one port
  tcprism serve --prometheus 10.0.0.5:9878         at another address
  tcprism serve --config /etc/tcprism.toml         options from a file

It runs until SIGTERM, SIGHUP or Ctrl-C. docs/serve.md describes the configuration, docs/metrics.md
the metrics. Without --requests no message is looked at: only losses, connections and, every ten
seconds, what the kernel counts of each connection."""


@click.command(epilog=EPILOG)
@options.filter_options
@options.kinds_option(",".join(KINDS))
@config_option
@click.option(
    "--prometheus",
    default="127.0.0.1:9878",
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where Prometheus finds the metrics; `off`: nowhere.",
)
@click.option(
    "--requests/--no-requests",
    default=False,
    show_default=True,
    help="Also measure requests, which takes their messages with payload.",
)
@tls_option
@payload_option(PAYLOAD)
@serving_options
def command(**given: Any) -> None:
    """Run always: metrics for Prometheus, at little cost."""
    requests = given.pop("requests")
    peers = Peers(given.pop("config"))
    address = parse_address(given.pop("prometheus"))
    request = _request(given, requests)
    if address is None:
        raise UsageError("nothing would come of it: give --prometheus ADDRESS:PORT")
    processes = Processes(machine.proc_is_of_host())
    metrics = Metrics(Owners(peers, processes, Listeners(ephemeral_ports())))
    _serve(request, given, _stages(requests), metrics, address)
    sys.exit(0)


def _request(given: dict[str, Any], requests: bool) -> Request:
    kinds = {*options.parse_kinds(given.pop("kinds")), *(NEEDS if requests else ())}
    traced = with_tls(given, kinds_in_order(kinds))
    payload = options.parse_payload(given.pop("payload"))
    parsed = parse_tracing(given) | {"redact": None}
    return Request(kinds=traced, filter=options.to_filter(given), payload=payload, **parsed)


def kinds_in_order(kinds: set[str]) -> tuple[str, ...]:
    """Return kinds as --kinds has them."""
    return options.parse_kinds(",".join(kinds))


def _stages(requests: bool) -> tuple[Stage, ...]:
    if not requests:
        return ()
    from tcprism.protocols.known import protocols
    from tcprism.stages.requests import Requests

    return (Requests(protocols()),)


def parse_address(text: str) -> tuple[str, int] | None:
    """Parse "127.0.0.1:9878", "[::1]:9878"; None for "off". Raises UsageError."""
    if text == "off":
        return None
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 <= int(port) < 65536:
        raise UsageError(
            f"--prometheus: {text!r} is not an address and a port;"
            " write for example --prometheus 127.0.0.1:9878"
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _serve(
    request: Request,
    given: dict[str, Any],
    stages: tuple[Stage, ...],
    metrics: Metrics,
    address: tuple[str, int],
) -> None:
    with ExitStack() as stack:
        pulse = Pulse()
        endpoint = Endpoint(address, metrics.families, pulse.beats)
        tracing = stack.enter_context(Tracing(request))
        snapshots = stack.enter_context(Snapshots(request.filter, every=SNAPSHOT_EVERY))
        tracing.measure_run_time()
        source = Together(tracing, snapshots)
        stop = stack.enter_context(Stop(Limits(), None, None))
        sinks: list[Sink] = [metrics, Own(metrics, tracing.run_time), pulse]
        endpoint.start()
        stack.callback(endpoint.close)
        announce(tracing, given)
        _say(f"metrics at http://{_shown(endpoint.server_address)}/metrics", given)
        _say("serving until SIGTERM, SIGHUP or Ctrl-C", given)
        try:
            run(source, stages, sinks, stop)
        finally:
            print_ledger(account(source, stages, sinks), given)


def _shown(address: Any) -> str:
    host, port = address[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _say(text: str, given: dict[str, Any]) -> None:
    if not given["quiet"]:
        print(text, file=sys.stderr, flush=True)
