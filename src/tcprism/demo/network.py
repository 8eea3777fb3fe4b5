"""The demo's network: a loopback device with an ordinary MTU that loses packets.

Runs inside the demo's own network namespace, where nobody else has a queue or a rule.
"""

import subprocess
import sys

from tcprism.errors import MachineError
from tcprism.helpers import find_helper

MTU = 1500
_MILLION = 1_000_000

# On arrival: a packet that is refused on its way out is noticed by the sender's own TCP.
_RULES = """
table inet tcprism_demo {{
    chain arriving {{
        type filter hook prerouting priority raw
        numgen random mod {million} <= {last} drop
    }}
}}
"""


def bring_up() -> None:
    """Bring lo up with packets as on an Ethernet, each on its own, so that single ones get lost."""
    set_lo = ("ip", "link", "set", "dev", "lo")
    if complaint := _complaint(*set_lo, "up", "mtu", str(MTU)):
        sys.exit(complaint)
    _complaint(*set_lo, "gso_max_segs", "1")


def lose(percent: float) -> str:
    """Lose packets, by netem or else by nftables; return a sentence that says how, or why not."""
    if percent == 0:
        return "lo loses no packets"
    netem = _complaint("tc", "qdisc", "add", "dev", "lo", "root", "netem", "loss", f"{percent}%")
    if not netem:
        return f"lo loses {percent:g} % of its packets (netem)"
    lost = max(1, round(percent * _MILLION / 100))
    rules = _RULES.format(million=_MILLION, last=lost - 1)
    nftables = _complaint("nft", "-f", "-", given=rules)
    if not nftables:
        return f"lo loses {percent:g} % of its packets (nftables; netem: {netem})"
    return f"lo loses no packets (netem: {netem}; nftables: {nftables})"


def _complaint(helper: str, *arguments: str, given: str = "") -> str:
    """Run a helper; return the first line of what it complains about, nothing if it succeeds."""
    try:
        command = (find_helper(helper), *arguments)
    except MachineError as error:
        return str(error)
    result = subprocess.run(command, input=given, capture_output=True, text=True)
    if result.returncode == 0:
        return ""
    complaint = result.stderr.splitlines() or [f"exit status {result.returncode}"]
    return complaint[0].rstrip(".")
