"""`tcprism serve`."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import click
from click.core import ParameterSource

from tcprism import interrupts
from tcprism.cli import options
from tcprism.cli.clickhouse import clickhouse_option, credentials_option
from tcprism.cli.configuration import config_option
from tcprism.cli.fleet_sink import fleet_of, spool_options
from tcprism.cli.memory import bound, max_memory_option, parse_limit
from tcprism.cli.output import encrypting, print_ledger
from tcprism.cli.serving import (
    PROMETHEUS,
    WEB,
    Bounds,
    Own,
    Page,
    Place,
    budget,
    parse_keep,
    parse_overhead,
    parse_prometheus,
)
from tcprism.cli.session import Limits, Stop
from tcprism.cli.tls_options import kinds_with_tls, tls_option
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import parse_tracing, payload_option, serving_options
from tcprism.cli.watchdog import Notify, Watchdog
from tcprism.errors import UsageError
from tcprism.events.requests import NEEDS, PAYLOAD
from tcprism.features import machine
from tcprism.features import memory as own_memory
from tcprism.metrics.aggregate import Metrics
from tcprism.metrics.otlp import Otlp, Url
from tcprism.metrics.owners import Listeners, Owners, Peers, Processes, ephemeral_ports
from tcprism.metrics.prometheus import Endpoint
from tcprism.pipeline import account, run
from tcprism.sinks import Sink
from tcprism.sources.least_privilege import Needs, find_user, give_up
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
  tcprism serve --otlp http://127.0.0.1:4318       also pushed to a collector of OpenTelemetry
  tcprism serve --clickhouse https://clickhouse.example:8443 --spool /var/lib/tcprism-spool
                                                   also into the tables of a fleet
  tcprism serve --record /var/lib/tcprism --keep 2G
                                                   also a recording of the latest 2 GB
  tcprism serve --web --requests                   also the page: prints its address
  tcprism serve --config /etc/tcprism.toml         options from a file

It runs until SIGTERM, SIGHUP or Ctrl-C. docs/serve.md describes the configuration, docs/metrics.md
the metrics. Without --requests no message is looked at: only losses, connections and, every ten
seconds, what the kernel counts of each connection. Once its hooks are on, it gives up its
privileges."""


_BELONGS_TO = {
    "keep": "record",
    "encrypt_to": "record",
    "web_memory": "web",
    "spool_size": "clickhouse",
}


@click.command(epilog=EPILOG)
@options.filter_options
@options.kinds_option(",".join(KINDS))
@config_option
@click.option(
    "--prometheus",
    default=PROMETHEUS,
    show_default=True,
    metavar="ADDRESS:PORT",
    help="Where Prometheus finds the metrics; off: nowhere.",
)
@click.option("--otlp", metavar="URL", help="Also push the metrics to a collector, by OTLP.")
@clickhouse_option("Also insert what is traced into a fleet's tables: http://HOST:8123/DATABASE.")
@credentials_option
@spool_options
@click.option("--record", metavar="DIR", help="Also record what is traced below this folder.")
@click.option(
    "--keep",
    default="2G",
    show_default=True,
    metavar="BYTES",
    help="Size of all recordings there; the oldest are deleted.",
)
@options.encrypt_option
@click.option(
    "--requests/--no-requests",
    default=False,
    show_default=True,
    help="Also measure requests, which takes their messages with payload.",
)
@click.option(
    "--web",
    is_flag=False,
    flag_value=WEB,
    metavar="[ADDRESS:PORT]",
    help=f"Also show what is traced in a browser; by default at {WEB}.",
)
@click.option(
    "--web-memory",
    default="256M",
    show_default=True,
    metavar="SIZE",
    help="Memory for what the page shows; the oldest is forgotten.",
)
@tls_option
@payload_option(PAYLOAD)
@click.option(
    "--max-overhead",
    default="2%",
    show_default=True,
    metavar="PERCENT",
    help="Of all CPUs: what tcprism may cost before it records less.",
)
@max_memory_option
@click.option(
    "--user",
    metavar="NAME",
    help="Whom to go on as; by default who called sudo, else nobody, or with --record root without"
    " its privileges.",
)
@serving_options
def command(**given: Any) -> None:
    """Run always: metrics for Prometheus and OTLP, a bounded recording, ClickHouse."""
    source = click.get_current_context().get_parameter_source
    for option, needed in _BELONGS_TO.items():
        if source(option) is not ParameterSource.DEFAULT and not given[needed]:
            raise UsageError(f"--{option.replace('_', '-')} does nothing without --{needed}")
    requests = given.pop("requests")
    peers = Peers(given.pop("config"))
    address = parse_prometheus(given.pop("prometheus"))
    url = None if (otlp := given.pop("otlp")) is None else Url(otlp)
    record, keep = given.pop("record"), parse_keep(given.pop("keep"))
    web, memory = given.pop("web"), options.parse_memory(given.pop("web_memory"), "--web-memory")
    if not (address or url or record or web or given["clickhouse"]):
        raise UsageError("nothing would come of it: give --prometheus ADDRESS:PORT or --record DIR")
    own_memory.one_allocator()
    bounds = Bounds(parse_overhead(given.pop("max_overhead")), parse_limit(given.pop("max_memory")))
    make = encrypting(given.pop("encrypt_to"))
    user = find_user(given.pop("user"), bool(record or given["spool"]))
    fleet = fleet_of(given, user)
    place = None if record is None else Place(record, keep, options.filter_texts(dict(given)), user)
    request = _request(given, requests, record is not None, bool(web or fleet))
    processes = Processes(machine.proc_is_of_host())
    metrics = Metrics(Owners(peers, processes, Listeners(ephemeral_ports())))
    watchdog = Watchdog()
    endpoint = Endpoint(address, metrics.families, watchdog.well) if address else None
    page = Page(web, memory) if web else None
    needs = Needs(
        user,
        [*((place.path,) if place else ()), *(fleet.writable if fleet else ())],
        [*((url.port,) if url else ()), *((fleet.port,) if fleet else ())],
        fleet.readable if fleet else (),
    )
    sinks: list[Sink] = [metrics, watchdog, Notify(watchdog.well)]
    if place:
        sinks.append(place.sink(make))
    if fleet:
        sinks.append(fleet.sink)
    if url:
        sinks.append(Otlp(url, metrics.families))
    if page:
        sinks.append(page)
    stages = _stages(requests)
    _serve(request, given, stages, metrics, watchdog, sinks, endpoint, page, needs, bounds)
    sys.exit(0)


def _request(given: dict[str, Any], requests: bool, recorded: bool, shown: bool) -> Request:
    kinds = {*options.parse_kinds(given.pop("kinds")), *(NEEDS if requests else ())}
    traced = kinds_with_tls(given, options.parse_kinds(",".join(kinds)))
    payload = options.parse_payload(given.pop("payload"))
    parsed = parse_tracing(given)
    if not recorded and not shown:  # no byte leaves this process
        parsed["redact"] = None
    skip_bodies = requests and not recorded
    chosen = options.to_filter(given)
    return Request(kinds=traced, filter=chosen, payload=payload, skip_bodies=skip_bodies, **parsed)


def _stages(requests: bool) -> tuple[Stage, ...]:
    if not requests:
        return ()
    from tcprism.protocols.known import protocols
    from tcprism.stages.requests import Requests

    return (Requests(protocols()),)


def _serve(
    request: Request,
    given: dict[str, Any],
    stages: tuple[Stage, ...],
    metrics: Metrics,
    watchdog: Watchdog,
    sinks: list[Sink],
    endpoint: Endpoint | None,
    page: Page | None,
    needs: Needs,
    bounds: Bounds,
) -> None:
    with ExitStack() as stack:
        tracing = stack.enter_context(Tracing(request))
        tracing.measure_run_time()
        snapshots = stack.enter_context(Snapshots(request.filter, every=SNAPSHOT_EVERY))
        source = Together(tracing, snapshots)
        metrics.watch(lambda: snapshots.latest)
        keeps = budget(bounds.overhead, tracing, stages)
        memory = bound(bounds.memory, tracing, sinks[::-1], stages)
        watchdog.watch(memory.well)
        stages = (keeps, memory, *stages)
        sinks = [*sinks, Own(metrics, tracing.run_time, keeps, memory.limit)]
        announce(tracing, given)
        tracing.settle()
        with interrupts.alone():
            lines = give_up(needs, lambda: (source.ledger(), snapshots.take()))
        stop = stack.enter_context(Stop(Limits(), None, None))
        if endpoint:
            endpoint.start()
            stack.callback(endpoint.close)
            lines.append(f"metrics at {endpoint.url}/metrics")
        if page:
            page.measures(tracing.run_time)
            stack.enter_context(page)
        if not given["quiet"]:
            print(*lines, "serving until SIGTERM or Ctrl-C", sep="\n", file=sys.stderr, flush=True)
        try:
            run(source, stages, sinks, stop)
        finally:
            print_ledger(account(source, stages, sinks), given)
