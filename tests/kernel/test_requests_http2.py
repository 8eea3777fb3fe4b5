"""Requests of HTTP/2, many at once on a connection: as many as nginx has logged.

And gRPC's calls, as many as its own library has served, with the status that it gave them.
"""

import shutil
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.netns import Netns
from tests.support.nginx import nginx
from tests.support.server import serving
from tests.support.tracer import tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

ADDRESS = "http://127.0.0.1:8080"


@pytest.mark.parametrize("view", ["both", "client"])
def test_as_many_requests_as_nginx_has_logged(netns: Netns, tmp_path: Path, view: str) -> None:
    if not shutil.which("h2load"):
        pytest.skip("needs the package nghttp2-client")
    chosen = ("--netns", netns.path, *(("--comm", "h2load") if view == "client" else ()))
    with nginx(netns, tmp_path, "http2") as log:
        # The responses that nginx writes at once are longer than what is captured by default.
        arguments = (*chosen, "--payload", "16384")
        with tracing(tmp_path / "out", *arguments, view="requests") as tracer:
            paths = (f"{ADDRESS}/hello", f"{ADDRESS}/broken", f"{ADDRESS}/none?token=secret")
            netns.run("h2load", "-n", "3000", "-c", "2", "-m", "32", *paths)
    logged = Counter(line.split('"')[2].split()[0] for line in log.read_text().splitlines())
    assert logged == {"200": 1000, "503": 1000, "404": 1000}
    events = tracer.events
    assert Counter((event["protocol"], event["resource"], event["status"]) for event in events) == {
        ("http2", "/hello", "200"): 1000,
        ("http2", "/broken", "503"): 1000,
        ("http2", "/none?", "404"): 1000,
    }
    assert {(event["request_state"], event["view"]) for event in events} == {("complete", view)}
    assert sum(event["failed"] for event in events) == 1000


GRPC_SERVER = """
import os, sys
from concurrent import futures
import grpc
def told(method, code):
    os.write(1, f"{method} {code.name}\\n".encode())  # a line at once: threads write here
def get(request, context):
    if request == b"missing":
        told("Get", grpc.StatusCode.NOT_FOUND)
        context.abort(grpc.StatusCode.NOT_FOUND, "no such cart")
    told("Get", grpc.StatusCode.OK)
    return request * 100
def watch(request, context):
    for number in range(20):
        yield bytes(number * 100)
    told("Watch", grpc.StatusCode.OK)
def add(requests, context):
    told("Add", grpc.StatusCode.OK)
    return b"%d" % len(list(requests))
def talk(requests, context):
    yield from requests
    told("Talk", grpc.StatusCode.OK)
handlers = {
    "Get": grpc.unary_unary_rpc_method_handler(get),
    "Watch": grpc.unary_stream_rpc_method_handler(watch),
    "Add": grpc.stream_unary_rpc_method_handler(add),
    "Talk": grpc.stream_stream_rpc_method_handler(talk),
}
server = grpc.server(futures.ThreadPoolExecutor(4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("shop.Cart", handlers),))
server.add_insecure_port("127.0.0.1:" + sys.argv[1])
server.start()
server.wait_for_termination()
"""
GRPC_CLIENT = """
from concurrent import futures
import grpc, ssl, sys
trusted = [grpc.ssl_channel_credentials(open(each, "rb").read()) for each in sys.argv[1:]]
channel = (grpc.secure_channel if trusted else grpc.insecure_channel)("127.0.0.1:8080", *trusted)
with channel, futures.ThreadPoolExecutor(8) as pool:
    get = channel.unary_unary("/shop.Cart/Get")
    watch = channel.unary_stream("/shop.Cart/Watch")
    add = channel.stream_unary("/shop.Cart/Add")
    talk = channel.stream_stream("/shop.Cart/Talk")
    def refused(call, request):
        try:
            call(request)
        except grpc.RpcError as error:
            return error.code().name
    assert len(list(pool.map(get, [b"cart %d" % number for number in range(200)]))) == 200
    assert {refused(get, b"missing") for _ in range(20)} == {"NOT_FOUND"}
    assert all(len(list(watch(b""))) == 20 for _ in range(10))
    assert all(add(iter([b"x" * 500] * 30)) == b"30" for _ in range(10))
    assert all(len(list(talk(iter([b"y" * 500] * 30)))) == 30 for _ in range(10))
    unknown = channel.unary_unary("/shop.Cart/Unknown")
    assert [refused(unknown, b"") for _ in range(5)] == ["UNIMPLEMENTED"] * 5
"""


def served_by_grpc(log: Path) -> Counter[tuple[str, ...]]:
    """Return how many calls the server has served, by method and status."""
    served = Counter(tuple(line.split()) for line in log.read_text().splitlines())
    served["Unknown", "UNIMPLEMENTED"] = 5  # by the library itself
    assert (served["Get", "OK"], served["Get", "NOT_FOUND"]) == (200, 20)
    return served


def test_as_many_calls_as_grpc_has_served(netns: Netns, tmp_path: Path) -> None:
    pytest.importorskip("grpc", reason="needs grpcio")
    log = tmp_path / "log"
    with (
        serving(netns, log, sys.executable, "-c", GRPC_SERVER, "8080"),
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
    ):
        netns.run(sys.executable, "-c", GRPC_CLIENT)
    served = served_by_grpc(log)
    events = tracer.events
    assert {event["protocol"] for event in events} == {"grpc"}
    assert {event["request_state"] for event in events} == {"complete"}
    seen = Counter((event["method"], event["status"]) for event in events)
    assert seen == served
    assert {event["resource"] for event in events} == {f"/shop.Cart/{name}" for name, _ in served}
    assert sum(event["failed"] for event in events) == 25
