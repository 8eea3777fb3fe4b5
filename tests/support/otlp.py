"""A collector of OpenTelemetry's, as far as it takes metrics over HTTP."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


class Collector:
    """Keeps what was pushed, decoded with OpenTelemetry's own definition of the protocol.

    While `refusal` is set, it keeps nothing and answers with that status.
    """

    def __init__(self, message: Any) -> None:
        self._message = message
        self.pushed: list[Any] = []
        self.refusal = 0
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                taken = self.path == "/v1/metrics" and not collector.refusal
                if taken:
                    collector.pushed.append(message.FromString(body))
                self.send_response(200 if taken else collector.refusal or 404)
                self.send_header("Content-Type", "application/x-protobuf")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"

    @property
    def metrics(self) -> dict[str, Any]:
        """The metrics of the latest push, by name."""
        (resource,) = self.pushed[-1].resource_metrics
        (scope,) = resource.scope_metrics
        return {metric.name: metric for metric in scope.metrics}

    @property
    def resource(self) -> dict[str, Any]:
        """What the latest push says of its origin."""
        return attributes(self.pushed[-1].resource_metrics[0].resource)


def attributes(point: Any) -> dict[str, Any]:
    """Return the attributes of a point, with the types that they have on the wire."""
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in point.attributes
    }


@contextmanager
def collecting() -> Iterator[Collector]:
    """Take pushes while the body runs."""
    service = "opentelemetry.proto.collector.metrics.v1.metrics_service_pb2"
    made = Collector(pytest.importorskip(service).ExportMetricsServiceRequest)
    thread = threading.Thread(target=made.http.serve_forever, daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.http.shutdown()
        thread.join()
        made.http.server_close()
