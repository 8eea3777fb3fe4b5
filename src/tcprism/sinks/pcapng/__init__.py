"""pcapng: packets for Wireshark, tshark and tcpdump, with the process that each belongs to."""

from tcprism.sinks.pcapng.sink import Pcapng

__all__ = ["Pcapng"]
