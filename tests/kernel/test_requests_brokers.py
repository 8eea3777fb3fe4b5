"""Requests of real brokers: as many as MQTT's and NATS' logs have and RabbitMQ counts.

Kafka's is the mock broker of its client library, which logs what it sends and receives.
"""

import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.conversation import receive
from tests.support.netns import Netns
from tests.support.server import serving
from tests.support.tracer import Event, tracing

pytestmark = pytest.mark.native  # the stage is the same everywhere, and so are the events' tests

MESSAGES = "".join(f"{number:0{1 + number * 50}}\n" for number in range(100))  # up to 5 kB


def publish(netns: Netns, version: str, *options: str, stdin: str = "") -> None:
    """Publish each line as a message; not all are captured to their end."""
    command = ("mosquitto_pub", "-V", version, "-h", "127.0.0.1", "-u", "ann", *options)
    subprocess.run(netns.command(*command), input=stdin, text=True, capture_output=True)


def test_mosquitto(netns: Netns, tmp_path: Path) -> None:
    log, settings, users = tmp_path / "log", tmp_path / "settings", tmp_path / "users"
    if not shutil.which("mosquitto_passwd"):
        pytest.skip("needs mosquitto and mosquitto-clients")
    netns.run("mosquitto_passwd", "-c", "-b", str(users), "ann", "letmein")
    settings.write_text(
        f"user root\nlistener 1883 127.0.0.1\npassword_file {users}\nlog_type all\n"
        "log_dest stderr\nmax_queued_messages 0\n"
    )
    with (
        serving(netns, log, "mosquitto", "-c", str(settings)),
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
    ):
        for version in ("mqttv311", "mqttv5"):
            for quality in "012":
                options = ("-P", "letmein", "-q", quality, "-t", f"plant/{quality}", "-l")
                publish(netns, version, *options, stdin=MESSAGES)
            publish(netns, version, "-P", "wrong", "-t", "plant/0", "-m", "x")
    said, events = log.read_text(), tracer.events
    published = Counter(re.findall(r"Received PUBLISH from .*?, q(\d), .*?'(.*?)'", said))
    assert published == {(quality, f"plant/{quality}"): 200 for quality in "012"}
    seen = [event for event in events if event["method"] == "PUBLISH"]
    assert Counter(event["resource"] for event in seen) == {
        topic: count for (_, topic), count in published.items()
    }
    answered = [event for event in seen if event["request_state"] == "complete"]
    acknowledged = len(re.findall("Sending (?:PUBACK|PUBCOMP)", said))
    assert len(answered) == acknowledged == 400
    states = {event["request_state"] for event in seen if event["resource"] == "plant/0"}
    assert states == {"no response"}
    refused = [event["status"] for event in events if event["failed"]]
    assert refused == ["5", "0x87"]
    assert len(re.findall(r"Sending CONNACK to 127.0.0.1 \(0, (?:5|135)\)", said)) == 2


def greet(client: socket.socket, subject: bytes) -> None:
    """Connect to NATS and subscribe to a subject."""
    client.connect(("127.0.0.1", 4222))
    while not client.recv(65_536).endswith(b"\r\n"):
        pass
    options = b'{"verbose":false,"headers":true,"no_responders":true}'
    client.sendall(b"CONNECT " + options + b"\r\nSUB " + subject + b" 1\r\nPING\r\n")
    receive(client, len(b"PONG\r\n"))


def ask(number: int, client: socket.socket, service: socket.socket) -> None:
    """Ask a service by way of NATS; it replies with as much."""
    reply, payload = b"_INBOX.a.%d" % number, bytes(number * 60) + b"\r\n"
    size = b" %d\r\n" % (number * 60)
    client.sendall(b"PUB price " + reply + size + payload)
    receive(service, len(b"MSG price 1 " + reply + size + payload))
    service.sendall(b"PUB " + reply + size + payload)
    receive(client, len(b"MSG " + reply + b" 1" + size + payload))


def test_nats(netns: Netns, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with (
        serving(netns, log, "nats-server", "-V", "-a", "127.0.0.1", "-p", "4222"),
        tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer,
        netns.socket() as client,
        netns.socket() as service,
    ):
        greet(service, b"price")
        greet(client, b"_INBOX.a.*")
        for number in range(100):
            ask(number, client, service)
        client.sendall(b"PUB nobody _INBOX.a.x 2\r\nhi\r\n")
        assert b" 503\r\n" in client.recv(1000)
    said, events = log.read_text(), tracer.events
    published, delivered = said.count("<<- [PUB "), said.count("->> [MSG ")
    methods = Counter(event["method"] for event in events)
    assert methods["PUB"] == published == 201
    assert methods["MSG"] == delivered - 100 == 100  # the others are responses
    asked = [event for event in events if event["resource"] == "price" and event["method"] == "PUB"]
    assert Counter(event["request_state"] for event in asked) == {"complete": 100}
    assert [(one["resource"], one["status"]) for one in events if one["failed"]] == [
        ("nobody", "503")
    ]
    assert methods["PING"] == methods["CONNECT"] == methods["SUB"] == 2


@contextmanager
def rabbitmq(netns: Netns, folder: Path) -> Iterator[tuple[str, ...]]:
    """Run RabbitMQ; yield what to put before a command that asks it something."""
    programs = "/usr/lib/rabbitmq/bin"
    if not shutil.which("rabbitmqctl", path=programs):
        pytest.skip("needs the package rabbitmq-server")
    surroundings = (
        "env", f"PATH={programs}:/usr/sbin:/usr/bin:/sbin:/bin", f"HOME={folder}",
        f"RABBITMQ_MNESIA_BASE={folder}/mnesia", f"RABBITMQ_LOG_BASE={folder}/log",
        f"RABBITMQ_PID_FILE={folder}/pid", f"RABBITMQ_CONFIG_FILE={folder}/none",
        f"RABBITMQ_ENABLED_PLUGINS_FILE={folder}/none", "RABBITMQ_LOGS=-",
        "RABBITMQ_NODENAME=broker@localhost", "RABBITMQ_NODE_IP_ADDRESS=127.0.0.1",
    )  # fmt: skip
    # In a namespace of processes that ends with the first of them: Erlang starts others.
    alone = ("setpriv", "--pdeathsig", "KILL", "unshare", "--pid", "--fork", "--kill-child")
    command, ready = (*alone, *surroundings, "rabbitmq-server"), "Server startup complete"
    with serving(netns, folder / "said", *command, ready=ready, end=signal.SIGKILL):
        yield surroundings


TO_RABBITMQ = """
import pika
connection = pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1"))
plain, sure = connection.channel(), connection.channel()
plain.queue_declare("orders")
for number in range(100):
    plain.basic_publish("", "orders", b"x" * number * 200)
sure.confirm_delivery()
for number in range(50):
    sure.basic_publish("", "orders", b"y" * number)
try:
    sure.basic_publish("", "nowhere", b"z", mandatory=True)
except pika.exceptions.UnroutableError:
    pass
for _ in range(60):
    plain.basic_get("orders", auto_ack=True)
for method, _, _ in plain.consume("orders"):
    plain.basic_ack(method.delivery_tag)
    if method.delivery_tag == 90 + 60:
        break
plain.cancel()
assert plain.basic_get("orders") == (None, None, None)
try:
    plain.queue_declare("missing", passive=True)
except pika.exceptions.ChannelClosedByBroker:
    pass
connection.close()
"""


def test_rabbitmq(netns: Netns, tmp_path: Path) -> None:
    pytest.importorskip("pika", reason="needs pika")
    with rabbitmq(netns, tmp_path) as surroundings:
        with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
            netns.run(sys.executable, "-c", TO_RABBITMQ)
        asked = (*surroundings, "rabbitmqctl", "eval", "rabbit_global_counters:overview().")
        said = netns.run(*asked)
    counted = Counter[str]()
    for name, count in re.findall(r"messages_(\w+)_total => (\d+)", said):
        counted[name] += int(count)
    events = tracer.events
    assert {event["protocol"] for event in events} == {"amqp"}
    methods = Counter(event["method"] for event in events)
    assert methods["basic.publish"] == counted["received"] == 151
    published = [event for event in events if event["method"] == "basic.publish"]
    states = Counter(event["request_state"] for event in published)
    assert states == {"complete": counted["confirmed"], "no response": 100}
    got = Counter(event["status"] for event in events if event["method"] == "basic.get")
    assert got["get-empty"] == counted["get_empty"] == 1
    assert methods["basic.deliver"] == counted["acknowledged"] == 90
    assert got.total() - 1 + 90 == counted["delivered"] == 150
    failed = [(event["method"], event["status"]) for event in events if event["failed"]]
    assert sorted(failed) == [("basic.return", "312"), ("queue.declare", "404")]
    assert methods["basic.return"] == counted["unroutable_returned"] == 1


TO_KAFKA = """
from confluent_kafka import Consumer, Producer
told, log = [], {"debug": "protocol", "log_level": 7}
producer = Producer({"test.mock.num.brokers": 1, "linger.ms": 0, "batch.num.messages": 1, **log})
for number in range(100):
    producer.produce("orders", b"x" * number * 100, on_delivery=lambda *each: told.append(each))
producer.flush()
assert len(told) == 100 and not any(error for error, _ in told)
(broker,) = producer.list_topics().brokers.values()
consumer = Consumer({"bootstrap.servers": f"{broker.host}:{broker.port}", "group.id": "shop",
                     "auto.offset.reset": "earliest", **log})
consumer.subscribe(["orders"])
for _ in range(100):
    message = consumer.poll(60)
    assert message is not None and not message.error()
consumer.close()
"""


def test_kafka(netns: Netns, tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka", reason="needs confluent-kafka")
    with tracing(tmp_path / "out", "--netns", netns.path, view="requests") as tracer:
        client = subprocess.run(
            netns.command(sys.executable, "-c", TO_KAFKA), capture_output=True, text=True
        )
        assert client.returncode == 0, client.stderr
    events = tracer.events
    assert {event["protocol"] for event in events} == {"kafka"}
    sent = Counter(re.findall(r"Sent ([A-Za-z]+)Request ", client.stderr))
    received = Counter(re.findall(r"Received ([A-Za-z]+)Response ", client.stderr))

    def called(asked: Iterable[Event]) -> Counter[str]:
        """Return how many there are of each, by the names that the client's library has."""
        return Counter(event["method"].replace("ApiVersions", "ApiVersion") for event in asked)

    assert called(events) == sent
    assert sent["Produce"] == 100
    answered = [event for event in events if event["request_state"] == "complete"]
    assert called(answered) == received
    about = {event["resource"] for event in events if event["method"] in ("Produce", "Fetch")}
    assert about == {"orders"}
