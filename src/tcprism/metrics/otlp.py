"""Metrics pushed by OTLP over HTTP, as a collector of OpenTelemetry takes them."""

from __future__ import annotations

import logging
import platform
import re
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from tcprism.errors import UsageError
from tcprism.events import Batch
from tcprism.events.escape import escape_text
from tcprism.events.facts import Facts
from tcprism.events.ledger import Account
from tcprism.events.optional import need
from tcprism.metrics.instruments import INTEGERS, Instrument
from tcprism.metrics.series import Exemplar, Row
from tcprism.sinks import Sink
from tcprism.version import __version__

Families = Callable[[], Iterable[tuple[Instrument, Sequence[Row]]]]

EVERY = 15.0  # seconds
_PATH = "/v1/metrics"  # OTLP/HTTP's default
_PORTS = {"http": 80, "https": 443}
_PATIENCE = 5  # seconds for a push with its repetitions


class Url:
    """Where to push to; `port` is what must be connected to, `shown` has no secrets.

    Raises UsageError.
    """

    def __init__(self, text: str) -> None:
        try:
            parts = urlsplit(text)
            self.port = parts.port or _PORTS[parts.scheme]
        except (ValueError, KeyError):
            parts = urlsplit("")
        if not parts.hostname:
            raise UsageError(
                f"--otlp: {text!r} is not an address; write for example --otlp"
                " http://127.0.0.1:4318"
            )
        if "@" in parts.netloc:  # a name alone may be a token
            raise UsageError(
                "--otlp: others see what a command line has: put credentials into the environment,"
                " as OTEL_EXPORTER_OTLP_HEADERS"
            )
        self.text = text if parts.path.strip("/") else text.rstrip("/") + _PATH
        self.shown = escape_text(self.text.partition("?")[0].partition("#")[0])


class _Refusal(logging.Handler):
    """Keeps the status with which a collector refuses: the exporter has it in its log alone."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.shown = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Take a message of the exporter's."""
        status = re.search(r"\bcode: (\d{3})\b", record.getMessage())
        self.shown = f" (HTTP status {status[1]})" if status else ""


class Otlp(Sink):
    """Pushes all series every quarter of a minute and at the end, from a thread of its own.

    They are totals since the start, so a push that fails loses nothing. Raises ExtraMissing.
    """

    def __init__(self, url: Url, families: Families) -> None:
        exporter = need("opentelemetry.exporter.otlp.proto.http.metric_exporter", "serve")
        self._sdk = need("opentelemetry.sdk.metrics.export", "serve")
        self._exemplar = need("opentelemetry.sdk.metrics", "serve").Exemplar
        self._scope = need("opentelemetry.sdk.util.instrumentation", "serve").InstrumentationScope
        self._resource = need("opentelemetry.sdk.resources", "serve").Resource
        self._refusal = _Refusal()
        log = logging.getLogger("opentelemetry")
        log.handlers, log.propagate = [self._refusal], False  # we say it, once
        self._exporter = exporter.OTLPMetricExporter(endpoint=url.text, timeout=_PATIENCE)
        self._url = url.shown
        self._families = families
        self._over = threading.Event()
        self._failed = 0
        self._reached = True
        self._thread = threading.Thread(target=self._work, daemon=True, name="otlp")

    def open(self, facts: Facts) -> None:
        """Begin to push."""
        self._thread.start()

    def write(self, batch: Batch) -> None:
        """Nothing: what it has been added to is pushed."""

    def dropped(self) -> Account:
        """Return how many pushes failed."""
        return Account(counts={"otlp_pushes_failed": self._failed})

    def close(self) -> None:
        """Push once more."""
        self._over.set()
        self._thread.join(2 * _PATIENCE)

    def _work(self) -> None:
        over = False
        while not over:
            over = self._over.wait(EVERY)
            self._push()

    def _push(self) -> None:
        self._refusal.shown = ""
        try:
            reached = self._exporter.export(self._data()).name == "SUCCESS"
        except Exception:  # whatever its libraries raise for a server's answer
            reached = False
        self._failed += not reached
        if reached != self._reached:
            why = self._refusal.shown
            said = "metrics again" if reached else f"no metrics{why}: they will come when it does"
            print(f"{self._url} takes {said}", file=sys.stderr, flush=True)
        self._reached = reached

    def _data(self) -> Any:
        sdk = self._sdk
        now = time.time_ns()
        metrics = [
            sdk.Metric(
                name=each.name,
                description=each.doc,
                unit=each.unit,
                data=self._points(each, rows, now),
            )
            for each, rows in self._families()
            if rows
        ]
        about = {
            "service.name": "tcprism",
            "service.version": __version__,
            "host.name": platform.node(),
        }
        scope = self._scope("tcprism", __version__)
        return sdk.MetricsData(
            [
                sdk.ResourceMetrics(
                    resource=self._resource(about),
                    scope_metrics=[sdk.ScopeMetrics(scope, metrics, "")],
                    schema_url="",
                )
            ]
        )

    def _points(self, instrument: Instrument, rows: Sequence[Row], now: int) -> Any:
        sdk = self._sdk
        total = sdk.AggregationTemporality.CUMULATIVE
        if instrument.kind == "histogram":
            return sdk.Histogram([self._histogram(instrument, row, now) for row in rows], total)
        points = [
            sdk.NumberDataPoint(
                attributes=attributes(instrument, row),
                start_time_unix_nano=int(row.begun * 1e9),
                time_unix_nano=now,
                value=row.value,
            )
            for row in rows
        ]
        if instrument.kind == "gauge":
            return sdk.Gauge(points)
        return sdk.Sum(points, total, is_monotonic=True)

    def _histogram(self, instrument: Instrument, row: Row, now: int) -> Any:
        return self._sdk.HistogramDataPoint(
            attributes=attributes(instrument, row),
            start_time_unix_nano=int(row.begun * 1e9),
            time_unix_nano=now,
            count=sum(row.buckets),
            sum=row.value,
            bucket_counts=row.buckets,
            explicit_bounds=instrument.buckets,
            min=None,
            max=None,
            exemplars=list(self._exemplars(row.exemplars)),
        )

    def _exemplars(self, seen: Iterable[Exemplar | None]) -> Iterator[Any]:
        for each in filter(None, seen):
            yield self._exemplar(
                {"socket": each.socket}, each.value, int(each.at * 1e9), span_id=None, trace_id=None
            )


def attributes(instrument: Instrument, row: Row) -> dict[str, str | int]:
    """Return the attributes of a series that are known."""
    named = zip(instrument.attributes, row.key, strict=True)
    return {
        name: int(value) if name in INTEGERS and value.isdecimal() else value
        for name, value in named
        if value
    }
