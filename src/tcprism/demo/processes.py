"""The demo's network and processes, which traffic.py starts inside a new network namespace.

Prints a sentence about the network, waits for a byte on standard input, then talks. When standard
input ends every process ends, and the namespace, which has no name, goes with the last of them:
nothing is left even where the tracer was killed.
"""

import os
import sys
import threading

from tcprism.demo import conversation, network


def main() -> None:
    """Set up, wait for the start, talk until standard input ends."""
    network.bring_up()
    print(network.lose(float(sys.argv[1])), flush=True)
    if not os.read(0, 1):
        return
    listeners = conversation.listen()
    for talk in (conversation.read_pages, conversation.upload_files):
        if not os.fork():
            end_with_standard_input()
            talk()
            return
    end_with_standard_input()
    conversation.serve(listeners)


def end_with_standard_input() -> None:
    """Let this process end when the tracer does, whatever it is busy with."""
    threading.Thread(target=_await_end, daemon=True).start()


def _await_end() -> None:
    os.read(0, 1)
    os._exit(0)
