"""Requests of real servers of Redis, Memcached and DNS, as exact as what the servers count."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from statistics import median

import pytest

from tests.support.conversation import receive
from tests.support.netns import Netns
from tests.support.server import serving
from tests.support.tracer import tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

ADDRESS = "127.0.0.1"
MIXED = """\
SET text hello
LPUSH text 1
NOSUCH x
MULTI
INCR counter
EXEC
GET nothing
"""
CLOSE_NS = 50_000  # how near the median is to what the server measured
SPIN = "local s = 0 for i = 1, 2e7 do s = s + i end return s"


def commands_counted(statistics: str) -> tuple[Counter[str], Counter[str]]:
    """Return how often Redis was asked for which command, and how often that failed."""
    asked, failed = Counter[str](), Counter[str]()
    for name, numbers in re.findall(r"cmdstat_(\S+?):(\S+)", statistics):
        method = name.upper().replace("|", " ")
        count = {key: float(value) for key, value in re.findall(r"(\w+)=([\d.]+)", numbers)}
        asked[method] += int(count["calls"] + count["rejected_calls"])
        failed[method] += int(count["failed_calls"] + count["rejected_calls"])
    return asked, +failed


def test_redis(netns: Netns, tmp_path: Path) -> None:
    server = ("redis-server", "--bind", ADDRESS, "--save", "", "--dir", str(tmp_path))
    with serving(netns, tmp_path / "log", *server):
        with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
            load = ("-n", "3000", "-P", "16", "-c", "10", "-q", "-t", "set,incr,mset,lrange_100")
            netns.run("redis-benchmark", *load)
            netns.run("redis-benchmark", "-n", "300", "-c", "3", "-q", "-t", "get,hset")
            netns.run("redis-cli", "EVAL", SPIN, "0")
            subprocess.run(
                netns.command("redis-cli"), input=MIXED, text=True, capture_output=True, check=True
            )
        asked, failed = commands_counted(netns.run("redis-cli", "INFO", "commandstats"))
        slow = netns.run("redis-cli", "SLOWLOG", "GET", "1").splitlines()
    asked["NOSUCH"] = failed["NOSUCH"] = 1  # is no command that Redis could count
    events = tracer.events
    assert Counter(event["method"] for event in events) == asked
    assert Counter(event["method"] for event in events if event["failed"]) == failed
    # Those of the pipelines that a benchmark leaves behind when it has enough are not answered.
    unanswered = {event["request_state"] for event in events if event["response_bytes"] is None}
    assert unanswered <= {"pending", "gap"}
    (spin,) = (event for event in events if event["method"] == "EVAL")
    assert 0 <= spin["server_ns"] - int(slow[2]) * 1000 < 50_000_000


def say(*words: str) -> bytes:
    """Return a command of Redis."""
    told = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{told}".encode()


def test_times_are_those_of_the_slow_log_of_redis(netns: Netns, tmp_path: Path) -> None:
    """It has what a command took in microseconds, without reading it and writing the response."""
    server = (
        "redis-server", "--bind", ADDRESS, "--save", "", "--dir", str(tmp_path),
        "--slowlog-log-slower-than", "0", "--slowlog-max-len", "1000",
    )  # fmt: skip
    with serving(netns, tmp_path / "log", *server), netns.socket() as client:
        with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
            client.connect((ADDRESS, 6379))
            for number in range(100):
                client.sendall(say("SET", "a", "x" * number))
                receive(client, len(b"+OK\r\n"))
                spin = f"for i = 1, {number * 1000} do end return 1"
                client.sendall(say("EVAL", spin, "0"))
                receive(client, len(b":1\r\n"))
        slow = json.loads(netns.run("redis-cli", "--json", "SLOWLOG", "GET", "-1"))
    logged = [(entry[3][0], entry[2]) for entry in reversed(slow)]
    logged = [one for one in logged if one[0] != "HELLO"]  # of redis-cli, later
    events = sorted(tracer.events, key=lambda event: event["start_ts_ns"])
    assert [event["method"] for event in events] == [name for name, _ in logged]
    assert len(events) == 200
    assert {(event["view"], event["server_source"]) for event in events} == {("both", "server")}
    off = [
        abs(event["server_ns"] - took_us * 1000)
        for event, (_, took_us) in zip(events, logged, strict=True)
    ]
    assert median(off) < CLOSE_NS


def test_memcached(netns: Netns, tmp_path: Path) -> None:
    server = ("memcached", "-u", "nobody", "-l", ADDRESS, "-U", "0")
    with serving(netns, tmp_path / "log", *server), netns.socket() as client:
        with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
            client.connect((ADDRESS, 11211))
            for number in range(50):
                size = number * 300  # of the longer ones not all is captured
                client.sendall(b"set k%d 0 0 %d\r\n%s\r\n" % (number, size, b"v" * size))
                receive(client, len(b"STORED\r\n"))
            client.sendall(b"".join(b"get k%d\r\n" % number for number in range(10, 60)))
            answers = (b"VALUE k%d 0 %d\r\n" % (n, n * 300) for n in range(10, 50))
            receive(client, sum(map(len, answers)) + sum(range(10, 50)) * 300 + 40 * 2 + 50 * 5)
            client.sendall(b"set q 0 0 1 noreply\r\nx\r\ndelete q\r\nincr k1 1\r\n")
            receive(client, len(b"DELETED\r\n"))
            client.recv(1000)
        client.sendall(b"stats\r\n")
        counted = dict(re.findall(r"STAT (\w+) (\S+)", client.recv(100_000).decode()))
    events = tracer.events
    methods = Counter(event["method"] for event in events)
    assert methods["set"] == int(counted["cmd_set"]) == 51
    assert methods["get"] == int(counted["cmd_get"]) == 50
    assert methods["delete"] == int(counted["delete_hits"]) == 1
    sets = [event for event in events if event["method"] == "set"]
    assert Counter(event["request_state"] for event in sets) == {"complete": 50, "no response": 1}
    assert [event["status"] for event in events if event["failed"]] == ["CLIENT_ERROR"]


SAY_IN_BINARY = """
import bmemcached
client = bmemcached.Client(("%s:11211",))
for number in range(50):
    assert client.set(f"k{number}", "v" * number * 300, compress_level=0)
found = client.get_multi([f"k{number}" for number in (*range(10), *range(50, 90))])
assert len(found) == 10
client.set_multi({f"quiet{number}": "x" for number in range(20)})
assert client.delete("k1") and not client.add("k2", "there already")
"""


def test_memcached_in_binary(netns: Netns, tmp_path: Path) -> None:
    pytest.importorskip("bmemcached", reason="needs python-binary-memcached")
    server = ("memcached", "-u", "nobody", "-l", ADDRESS, "-U", "0")
    with serving(netns, tmp_path / "log", *server), netns.socket() as client:
        with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
            netns.run(sys.executable, "-c", SAY_IN_BINARY % ADDRESS)
        client.connect((ADDRESS, 11211))
        client.sendall(b"stats\r\n")
        counted = dict(re.findall(r"STAT (\w+) (\S+)", client.recv(100_000).decode()))
    events = tracer.events
    assert {event["protocol"] for event in events} == {"memcached"}
    methods = Counter(event["method"].removesuffix("q") for event in events)
    assert methods["set"] + methods["add"] == int(counted["cmd_set"]) == 71
    got = [event for event in events if event["method"] in ("getk", "getkq")]
    assert len(got) == int(counted["cmd_get"]) == 50
    hits = [event for event in got if event["status"] == "SUCCESS"]
    assert len(hits) == int(counted["get_hits"]) == 10
    assert methods["delete"] == int(counted["delete_hits"]) == 1
    assert [event["status"] for event in events if event["method"] == "add"] == ["KEY_EEXISTS"]
    loud = [event for event in events if not event["method"].endswith("q")]
    assert {event["request_state"] for event in loud} == {"complete"}
    assert not any(event["failed"] for event in events)


def test_dns(netns: Netns, tmp_path: Path) -> None:
    if not shutil.which("dig"):
        pytest.skip("needs dig")
    names = [f"host{number}.shop.test" for number in range(20)] + ["nothing.example"]
    queries = tmp_path / "queries"
    queries.write_text("".join(f"{name} {kind}\n" for name in names for kind in ("A", "AAAA")))
    server: tuple[str, ...]
    server = ("dnsmasq", "-k", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root")
    server += ("--log-queries", "--log-facility=-", "--pid-file", f"--listen-address={ADDRESS}")
    server += ("--address=/shop.test/10.0.0.1", "--local=/shop.test/example/")
    with (
        serving(netns, tmp_path / "log", *server),
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
    ):
        netns.run("dig", f"@{ADDRESS}", "+tcp", "+keepopen", "+tries=1", "-f", str(queries))
        netns.run("dig", f"@{ADDRESS}", "+tcp", "+tries=1", "elsewhere.org", "MX")
    logged = re.findall(r"query\[(\w+)\] (\S+) from", (tmp_path / "log").read_text())
    assert len(logged) == 2 * len(names) + 1
    events = tracer.events
    assert Counter((event["method"], event["resource"]) for event in events) == Counter(logged)
    assert {event["request_state"] for event in events} == {"complete"}
    statuses = Counter(event["status"] for event in events)
    assert statuses == {"NOERROR": 40, "NXDOMAIN": 2, "REFUSED": 1}
