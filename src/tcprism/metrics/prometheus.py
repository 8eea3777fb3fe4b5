"""Metrics over HTTP for Prometheus: its text format, and OpenMetrics for who asks for that."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

from tcprism.errors import MachineError
from tcprism.events.optional import need
from tcprism.metrics.instruments import Instrument, label
from tcprism.metrics.series import Row

Families = Callable[[], Iterable[tuple[Instrument, Sequence[Row]]]]

_AT_ONCE = 8  # connections
_PATIENCE = 10.0  # seconds for a client to ask and to read


class Collector:
    """What prometheus-client collects: all series as they stand. Raises ExtraMissing."""

    def __init__(self, families: Families) -> None:
        self._families = families
        self._core = need("prometheus_client.core", "serve")
        self._exemplar = need("prometheus_client.samples", "serve").Exemplar

    def collect(self) -> Iterator[Any]:
        """Yield a family of prometheus-client for each instrument that has values."""
        make = {
            "counter": self._core.CounterMetricFamily,
            "gauge": self._core.GaugeMetricFamily,
            "histogram": self._core.HistogramMetricFamily,
        }
        for instrument, rows in self._families():
            labels = list(map(label, instrument.attributes))
            family = make[instrument.kind](instrument.base, instrument.doc, labels=labels)
            for row in rows:
                if instrument.kind == "histogram":
                    family.add_metric(row.key, list(self._buckets(instrument, row)), row.value)
                else:
                    family.add_metric(row.key, row.value)
            if rows:
                yield family

    def _buckets(self, instrument: Instrument, row: Row) -> Iterator[tuple[Any, ...]]:
        bounds = [*map(str, instrument.buckets), "+Inf"]
        sums = itertools.accumulate(row.buckets)
        for bound, count, seen in zip(bounds, sums, row.exemplars, strict=True):
            labels = {"socket": str(seen.socket)} if seen else {}
            yield bound, count, self._exemplar(labels, seen.value, seen.at) if seen else None


class _Handler(BaseHTTPRequestHandler):
    """Answers GET /metrics and /healthz."""

    server: Endpoint
    timeout = _PATIENCE
    protocol_version = "HTTP/1.0"
    server_version = "tcprism"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        if path == "/metrics":
            encode, kind = self.server.encoder(self.headers.get("Accept", ""))
            self._answer(200, kind, encode(self.server.collector))
        elif path == "/healthz":
            well = self.server.healthy()
            said = b"ok\n" if well else b"not well: docs/serve.md says what is watched\n"
            self._answer(200 if well else 503, "text/plain; charset=utf-8", said)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"there are /metrics and /healthz\n")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing: others choose what they ask for."""


class Endpoint(ThreadingMixIn, TCPServer):
    """Listens from when it is made, answers from `start` to `close`.

    `healthy` tells whether the run goes on. Raises ExtraMissing, and MachineError when it cannot
    listen there.
    """

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(
        self, address: tuple[str, int], families: Families, healthy: Callable[[], bool]
    ) -> None:
        exposition = need("prometheus_client.exposition", "serve")
        self.collector = Collector(families)
        self.encoder = exposition.choose_encoder
        self.healthy = healthy
        self._free = threading.BoundedSemaphore(_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            super().__init__(address, _Handler)
        except OSError as error:
            host = f"[{address[0]}]" if ":" in address[0] else address[0]
            raise MachineError(
                f"--prometheus: cannot listen at {host}:{address[1]} ({error.strerror}):"
                " choose another address or port"
            ) from error

    @property
    def url(self) -> str:
        """Where it listens."""
        host, port = str(self.server_address[0]), int(self.server_address[1])
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def start(self) -> None:
        """Answer from now on, in threads."""
        threading.Thread(target=self.serve_forever, daemon=True, name="prometheus").start()

    def close(self) -> None:
        """Answer no more. Only after `start`."""
        self.shutdown()
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there are not too many already."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer one request."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, *_: Any) -> None:
        """Let a client be that went away."""
        return
