"""Requests of a real broker of MQTT, as exact as its log."""

import re
import shutil
import subprocess
from collections import Counter
from pathlib import Path

import pytest

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
