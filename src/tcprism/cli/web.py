"""`tcprism web`."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from tcprism import pipeline
from tcprism.cli import options
from tcprism.cli.output import print_ledger
from tcprism.cli.session import Limits, Stop
from tcprism.cli.tls_options import tls_option
from tcprism.cli.trace import announce
from tcprism.cli.trace_options import parse_tracing, payload_option, tracing_options
from tcprism.cli.view import listen_option, parse_listen, say_where
from tcprism.events import Batch
from tcprism.events.kinds import KINDS, NAMED_KINDS, TLS_KINDS
from tcprism.events.part import Rows
from tcprism.events.requests import PAYLOAD
from tcprism.sources.request import Request
from tcprism.sources.snapshots import Snapshots
from tcprism.sources.together import Together
from tcprism.sources.tracing import Tracing
from tcprism.stages.requests import Requests
from tcprism.web.server import Server
from tcprism.web.store import Store
from tcprism.web.views import Views

EPILOG = """\b
Examples:
  tcprism web                            prints an address: open it in a browser
  tcprism web --port 443 --tls           one port, with the plaintext of TLS
  tcprism web --comm nginx --listen 127.0.0.1:8000

Only who has the address with its token can look, and by default only on this machine. It runs until
Ctrl-C. See docs/web.md."""


@click.command(epilog=EPILOG)
@options.filter_options
@listen_option
@tls_option
@payload_option(PAYLOAD)
@options.memory_option
@tracing_options
def command(**given: Any) -> None:
    """Show this machine in a browser, live."""
    address = parse_listen(given.pop("listen"))
    memory = options.parse_memory(given.pop("max_memory"))
    tls = given.pop("tls")
    kinds = tuple(kind for kind in KINDS if kind not in NAMED_KINDS or (tls and kind in TLS_KINDS))
    payload = options.parse_payload(given.pop("payload"))
    parsed = parse_tracing(given)
    request = Request(kinds=kinds, filter=options.to_filter(given), payload=payload, **parsed)
    store = Store(memory)
    _serve(request, given, store, Server(Views(store, socket.gethostname(), live=True), *address))


def _serve(request: Request, given: dict[str, Any], store: Store, server: Server) -> None:
    with ExitStack() as stack:
        tracing = stack.enter_context(Tracing(request))
        tracing.measure_run_time()
        store.run_time = tracing.run_time
        snapshots = stack.enter_context(Snapshots(request.filter))
        source = Together(tracing, snapshots)
        stages = (WithoutPage(server.port), Requests())
        stop = stack.enter_context(Stop(Limits(), None, None))
        server.start()
        stack.callback(server.close)
        announce(tracing, given)
        say_where(server)
        try:
            pipeline.run(source, stages, [store], stop)
        finally:
            print_ledger(pipeline.account(source, stages), given)


class WithoutPage:
    """A stage that leaves out the connections of browsers on this machine to the page itself."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._netns = os.stat("/proc/self/ns/net").st_ino

    def __call__(self, batch: Batch) -> Batch:
        """Return the other events."""
        parts = (part.take(~self._is_of_page(part.rows)) for part in batch.parts)
        return Batch([part for part in parts if len(part)], batch.clock_offset_ns)

    def _is_of_page(self, rows: Rows) -> NDArray[np.bool_]:
        ends = (rows["local_port"] == self._port) | (rows["remote_port"] == self._port)
        found: NDArray[np.bool_] = ends & (rows["netns"] == self._netns)
        return found
