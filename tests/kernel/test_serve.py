"""`tcprism serve` against ab's, curl's, nginx' and the kernel's own counts."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import time
import urllib.error
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

import tcprism
from tests.support.conversation import connected, ping_pong, send_over_loss
from tests.support.netns import Netns, namespace
from tests.support.nginx import nginx
from tests.support.otlp import attributes, collecting
from tests.support.prometheus import Prometheus, scraping
from tests.support.serving import Server, await_equal, samples, serving
from tests.support.tls import certificate
from tests.support.tracer import PATIENCE, parse_ledger

pytestmark = pytest.mark.native

REQUESTS = 2_000
SHARE = Path(__file__).resolve().parents[2] / "share"
RULES, DASHBOARD = SHARE / "prometheus/tcprism.rules.yml", SHARE / "grafana/tcprism.json"
NGINX = {"process_executable_name": "nginx"}
CLIENT = {"process_executable_name": "ab"}


@dataclass
class Run:
    """A server under load, and what others count of it."""

    server: Server
    netns: Netns
    before: dict[str, int]
    counted: int  # by ab
    statuses: list[str]  # by nginx


def _load(netns: Netns, path: str, count: int) -> int:
    """Request a path; return how many requests ab completed."""
    url = f"http://127.0.0.1:8080/{path}"
    said = netns.run("ab", "-k", "-q", "-n", str(count), "-c", "10", url)
    found = re.search(r"Complete requests:\s+(\d+)", said)
    assert found
    return int(found[1])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    if not shutil.which("ab"):
        pytest.skip("needs the package apache2-utils")
    folder = tmp_path_factory.mktemp("serve")
    peers = folder / "serve.toml"
    peers.write_text('requests = true\n[peers]\nhere = ["127.0.0.0/8"]\n')
    with (
        namespace() as netns,
        nginx(netns, folder) as log,
        serving("--config", str(peers), "--netns", netns.path) as server,
    ):
        before = netns.tcp_counters()
        counted = _traffic(netns)
        statuses = [line.rpartition('"')[2].split()[0] for line in log.read_text().splitlines()]
        yield Run(server, netns, before, counted, statuses)


def _traffic(netns: Netns) -> int:
    """Ask nginx, be refused, and send over loss; return how many requests that were."""
    counted = _load(netns, "hello", REQUESTS) + _load(netns, "broken", 100)
    with pytest.raises(ConnectionRefusedError), closing(netns.socket()) as refused:
        refused.connect(("127.0.0.1", 9))
    netns.drop_every(20, 9000)
    send_over_loss(netns, 9000)
    netns.drop_nothing()
    netns.await_closed()
    return counted


def test_requests_are_as_many_as_ab_and_nginx_count(run: Run) -> None:
    for side, who in (("client", CLIENT), ("server", NGINX)):
        name = f"http_{side}_request_duration_seconds_count"
        port = {**who, "server_port": "8080", "tcprism_peer": "here"}
        run.server.await_sum(run.counted, name, **port)
        failed = run.server.sum(name, **port, http_response_status_code="503", error_type="503")
        assert failed == run.statuses.count("503") == 100
    assert len(run.statuses) == run.counted


def test_the_parts_of_requests_add_up_to_their_time(run: Run) -> None:
    whole = run.server.sum("http_client_request_duration_seconds_sum", **CLIENT)
    parts = run.server.sum("tcprism_request_time_seconds_total", **CLIENT)
    assert parts == pytest.approx(whole, rel=1e-6)
    assert whole > 0


def test_connections_are_those_of_the_kernel(run: Run) -> None:
    now = run.netns.tcp_counters()
    opened, accepted, failed = (
        now[name] - run.before[name] for name in ("ActiveOpens", "PassiveOpens", "AttemptFails")
    )
    assert failed == 1
    name, role = "system_network_tcp_connection_successes_total", "network_tcp_handshake_role"
    run.server.await_sum(opened - failed, name, **{role: "client"})
    run.server.await_sum(accepted, name, **{role: "server"})
    refused = {"error_type": "refused", role: "client"}
    run.server.await_sum(1, "system_network_tcp_connection_failures_total", **refused)
    run.server.await_sum(opened - failed, "system_network_tcp_handshake_duration_seconds_count")
    run.server.await_sum(
        opened - failed + accepted, "system_network_tcp_connection_duration_seconds_count"
    )


def test_retransmissions_are_those_of_the_kernel(run: Run) -> None:
    again = run.netns.tcp_counters()["RetransSegs"] - run.before["RetransSegs"]
    assert again > 0
    lost = {"server_port": "9000"}
    run.server.await_sum(again, "system_network_tcp_retransmits_total", **lost)


def test_bytes_are_those_that_were_sent(run: Run) -> None:
    flow = {"server_port": "9000", "network_io_direction": "transmit"}
    run.server.await_sum(200_000, "tcprism_io_bytes_total", **flow)


def test_no_series_has_a_clients_port(run: Run) -> None:
    ports = {has.get("server_port", "") for _, has, _ in samples(run.server.get())}
    assert ports <= {"", "8080", "9000", "9"}


def test_promtool_finds_nothing_wrong(run: Run) -> None:
    if not shutil.which("promtool"):
        pytest.skip("needs the package prometheus")
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=run.server.get(), capture_output=True, text=True
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_openmetrics_has_exemplars_with_the_cookie_of_a_connection(run: Run) -> None:
    text = run.server.get(accept="application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    found = re.findall(r'http_client_\w+_bucket\{.*\} \S+ # \{socket="([1-9]\d*)"\} \S+ \S+', text)
    assert found


def test_the_ledger_and_its_own_cost_are_metrics(run: Run) -> None:
    def sends(outcome: str) -> float:
        kind, name = "tcprism_event_kind", "tcprism_event_outcome"
        return run.server.sum("tcprism_events_total", **{kind: "send", name: outcome})

    await_equal(lambda: sends("submitted") - sends("received"), 0)
    assert sends("submitted") > run.counted
    assert run.server.sum("tcprism_events_lost_total") == 0
    assert run.server.sum("tcprism_cpu_time_seconds_total") > 0
    assert run.server.sum("tcprism_memory_usage_bytes") > 1 << 20


def test_how_long_its_hooks_run_is_a_metric(netns: Netns) -> None:
    """The kernel measures 20 ms of each second, so something must happen all the time."""
    with serving("--netns", netns.path) as server, connected(netns) as (client, end):
        until = time.monotonic() + PATIENCE
        while not server.sum("tcprism_bpf_run_time_seconds_total"):
            assert time.monotonic() < until
            ping_pong(client, end)
        assert server.stop() == 0


def test_health(run: Run) -> None:
    assert run.server.get("/healthz") == "ok\n"
    with pytest.raises(urllib.error.HTTPError, match="404"):
        run.server.get("/")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_it_ends_with_the_ledger(number: signal.Signals) -> None:
    with serving() as server:
        assert server.stop(number) == 0
        assert parse_ledger(server.said)["close"]


def test_a_port_that_is_taken_is_an_error_of_one_sentence(tmp_path: Path) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(AssertionError) as failure:
            Server("--prometheus", address)
    said = f"tcprism: --prometheus: cannot listen at {address} (Address already in use):"
    assert str(failure.value) == f"{said} choose another address or port"


def test_it_records_in_a_bounded_place_without_secrets(netns: Netns, tmp_path: Path) -> None:
    place = tmp_path / "recordings"
    options = ("--requests", "--record", str(place), "--keep", "64M", "--netns", netns.path)
    with nginx(netns, tmp_path), serving(*options) as server:
        secret = "Authorization: Bearer planted-secret"
        netns.run("curl", "-s", "-H", secret, "http://127.0.0.1:8080/hello?shown")
        server.await_sum(1, "http_client_request_duration_seconds_count")
        assert server.stop() == 0
    (folder,) = place.iterdir()
    (file,) = folder.iterdir()
    for path, mode in ((place, 0o700), (folder, 0o700), (file, 0o600)):
        assert path.stat().st_mode & 0o777 == mode
    recording = tcprism.open(folder)
    payloads = b"".join(event.payload or b"" for event in recording if event.kind == "send")
    assert b"hello?shown" in payloads
    assert b"Authorization" in payloads
    assert b"planted-secret" not in payloads
    assert recording.ledger
    assert recording.ledger.lost == 0


def test_a_folder_of_others_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "open"
    place.mkdir(mode=0o755)
    with pytest.raises(AssertionError, match="must be a folder that root owns and nobody else"):
        Server("--record", str(place))


def test_a_collector_gets_what_happened(netns: Netns, tmp_path: Path) -> None:
    with (
        collecting() as collector,
        nginx(netns, tmp_path),
        serving("--otlp", collector.url, "--requests", "--netns", netns.path) as server,
    ):
        for path in ("hello", "hello", "broken"):
            netns.run("curl", "-s", f"http://127.0.0.1:8080/{path}")
        server.await_sum(3, "http_server_request_duration_seconds_count")
        server.await_sum(3, "system_network_tcp_connection_duration_seconds_count", **NGINX)
        assert server.stop() == 0
    assert collector.resource["service.name"] == "tcprism"
    requests = collector.metrics["http.server.request.duration"]
    assert requests.unit == "s"
    assert requests.histogram.aggregation_temporality == 2  # cumulative
    # https://opentelemetry.io/docs/specs/semconv/http/http-metrics/ has both as numbers.
    counts = {
        (told["server.port"], told["http.response.status_code"], told.get("error.type")): (
            point.count, sum(point.bucket_counts)
        )
        for point in requests.histogram.data_points
        for told in [attributes(point)]
    }  # fmt: skip
    assert counts == {(8080, 200, None): (2, 2), (8080, 503, "503"): (1, 1)}
    opened = collector.metrics["system.network.tcp.connection.successes"].sum
    assert opened.is_monotonic
    assert {
        attributes(point)["network.tcp.handshake.role"]: point.as_double
        for point in opened.data_points
    } == {"client": 3, "server": 3}


def test_a_collector_that_is_not_there_stops_nothing(netns: Netns) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
    with serving("--otlp", url, "--netns", netns.path) as server:
        assert server.get("/healthz") == "ok\n"
        assert server.stop() == 0
        said = f"{url}/v1/metrics takes no metrics: they will come when it does"
        assert said in server.said


def test_a_real_prometheus_scrapes_what_ab_counts(run: Run, tmp_path: Path) -> None:
    with scraping(tmp_path, run.server.url.removeprefix("http://"), RULES) as prometheus:
        name = 'http_client_request_duration_seconds_count{process_executable_name="ab"}'
        await_equal(lambda: prometheus.value(f"sum({name})"), run.counted)
        again = "system_network_tcp_retransmits_total"
        kernel = run.netns.tcp_counters()["RetransSegs"] - run.before["RetransSegs"]
        assert prometheus.value(f'sum({again}{{server_port="9000"}})') == kernel
        assert prometheus.value("up") == 1
        (target,) = prometheus.ask("targets")["activeTargets"]
        assert target["lastError"] == ""
        exemplars = prometheus.ask(
            "query_exemplars",
            query="http_client_request_duration_seconds_bucket",
            start=0,
            end=2**32,
        )
        assert all(each["labels"]["socket"] for one in exemplars for each in one["exemplars"])
        assert exemplars
        await_equal(lambda: _healthy_rules(prometheus), 10)


def test_every_panel_of_the_dashboard_has_data(run: Run, tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    empty = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", ())
    }
    assert len(empty) > 10
    _traffic(run.netns)  # series of what was long ago have ended
    asked = (b"*2\r\n$3\r\nGET\r\n$1\r\na\r\n", b"$1\r\nb\r\n")  # Redis, as its bytes tell
    with (
        connected(run.netns) as (client, server),  # open at a snapshot
        scraping(tmp_path, run.server.url.removeprefix("http://"), RULES) as prometheus,
    ):
        for said, end, other in zip(asked, (client, server), (server, client), strict=True):
            end.sendall(said)
            other.recv(len(said), socket.MSG_WAITALL)
        deadline = time.monotonic() + 60
        while empty and time.monotonic() < deadline:
            for title, query in list(empty.items()):
                query = re.sub(r'"\$\w+"', '".*"', query.replace("$__rate_interval", "30s"))
                data = prometheus.ask("query", query=query)
                if data and data["result"]:
                    del empty[title]
    assert empty == {}


def _healthy_rules(prometheus: Prometheus) -> int:
    groups = prometheus.ask("rules")["groups"]
    return sum(rule["health"] == "ok" for group in groups for rule in group["rules"])


def test_systemd_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        with serving() as server:
            assert systemd.recv(100) == b"READY=1"
            assert systemd.recv(100) == b"WATCHDOG=1"
            assert server.stop() == 0
            while (said := systemd.recv(100)) == b"WATCHDOG=1":
                pass
            assert said == b"STOPPING=1"


def test_requests_inside_tls_are_read_without_privileges(netns: Netns, tmp_path: Path) -> None:
    files = certificate(tmp_path)
    options = ("--requests", "--tls", "--netns", netns.path)
    with nginx(netns, tmp_path, tls=files) as log, serving(*options) as server:
        for _ in range(3):  # processes that start after the hooks are on
            netns.run("curl", "-sk", "https://127.0.0.1:8080/hello")
        for side, who in (("client", "curl"), ("server", "nginx")):
            name = f"http_{side}_request_duration_seconds_count"
            server.await_sum(3, name, process_executable_name=who, http_response_status_code="200")
        assert server.stop() == 0
        assert len(log.read_text().splitlines()) == 3
