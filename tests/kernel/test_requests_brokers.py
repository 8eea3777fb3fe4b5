"""Requests of real brokers of MQTT and NATS, as exact as their logs."""

import re
import shutil
import socket
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from tests.support.conversation import receive
from tests.support.netns import Netns
from tests.support.server import serving
from tests.support.tracer import tracing

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
