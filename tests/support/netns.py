"""Network namespaces for tests: made, joined, entered, counted in, and removed again."""

import ctypes
import fcntl
import itertools
import os
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

CLONE_NEWNET = 0x40000000
SIOCETHTOOL = 0x8946
ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO = 0x1F, 0x24, 0x2C
PATIENCE = 300.0  # seconds: databases start slowly where CPUs are slow
LATE = 15  # seconds; with over 17, a socket without a process takes longer to be in TIME-WAIT
NETWORKS = ("10.77.0.0/24", "fd77::/64 metric 256")  # as the kernel makes their routes
FIN_WAIT2, TIME_WAIT, CLOSE, LISTEN = "05", "06", "07", "0A"

_libc = ctypes.CDLL(None, use_errno=True)
_numbers = itertools.count(1)


def run(*command: str, stdin: str | None = None) -> str:
    """Run a command that must succeed and return what it prints."""
    result = subprocess.run(command, input=stdin, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()}")
    return result.stdout


def _setns(descriptor: int) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


@dataclass(frozen=True)
class Netns:
    """A network namespace of our own; its name is also how `ip` knows it."""

    name: str

    @property
    def path(self) -> str:
        """The file that stands for the namespace."""
        return f"/run/netns/{self.name}"

    @property
    def inode(self) -> int:
        """The number that events carry."""
        return os.stat(self.path).st_ino

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Have this thread in the namespace; sockets made here stay here."""
        with open("/proc/thread-self/ns/net") as home, open(self.path) as here:
            _setns(here.fileno())
            try:
                yield
            finally:
                _setns(home.fileno())

    def enter(self) -> None:
        """Have this thread in the namespace from now on."""
        with open(self.path) as here:
            _setns(here.fileno())

    def command(self, *command: str) -> list[str]:
        """Return the command line that runs a command in the namespace."""
        return ["nsenter", f"--net={self.path}", *command]

    def run(self, *command: str) -> str:
        """Run a command in the namespace; it must succeed."""
        return run(*self.command(*command))

    def ip(self, *commands: str) -> None:
        """Have one `ip` do all of these in the namespace: processes are slow where CPUs are."""
        run("ip", "-n", self.name, "-batch", "-", stdin="\n".join(commands))

    def socket(self, family: int = socket.AF_INET) -> socket.socket:
        """Return a TCP socket of the namespace."""
        with self.entered():
            made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(60)
        return made

    def proc(self, name: str) -> str:
        """Return what /proc/net has for the namespace."""
        with self.entered():
            return Path("/proc/thread-self/net", name).read_text()

    def configure(self, name: str, value: str) -> None:
        """Write a setting of /proc/sys."""
        with self.entered():
            Path("/proc/sys", name).write_text(value)

    def extended_counters(self) -> dict[str, int]:
        """Return the TcpExt counters of /proc/net/netstat."""
        names, values = (
            line.split()[1:]
            for line in self.proc("netstat").splitlines()
            if line.startswith("TcpExt:")
        )
        return dict(zip(names, map(int, values), strict=True))

    def tcp_counters(self) -> dict[str, int]:
        """Return the Tcp counters of /proc/net/snmp, IPv4 and IPv6 together."""
        names, values = (
            line.split()[1:] for line in self.proc("snmp").splitlines() if line.startswith("Tcp:")
        )
        return dict(zip(names, map(int, values), strict=True))

    def await_closed(self) -> None:
        """Wait until no connection of the namespace will send anything more."""
        self._await(lambda states: not states - {TIME_WAIT, CLOSE, LISTEN})

    def await_state(self, state: str) -> None:
        """Wait until a connection of the namespace is in a state."""
        self._await(lambda states: state in states)

    def _await(self, condition: Callable[[set[str]], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(states := self._states()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"connections in {self.name} stay in states {states}")
            time.sleep(0.002)  # the CPU is for those who are waited for

    def _states(self) -> set[str]:
        lines = (self.proc("tcp") + self.proc("tcp6")).splitlines()
        return {line.split()[3] for line in lines if ":" in line.split()[0]}

    def drop_every(self, nth: int, *ports: int) -> None:
        """Drop one in `nth` of the packets with more than 200 bytes that arrive at each port."""
        rules = (
            f"add rule inet loss input tcp dport {port} meta length > 200 "
            f"numgen inc mod {nth} == {nth - 1} drop"
            for port in ports
        )
        self.run(
            "nft",
            "add table inet loss; "
            "add chain inet loss input { type filter hook prerouting priority 0; }; "
            + "; ".join(rules),
        )

    def named_counter(self, name: str) -> int:
        """Return how many packets a named counter of nftables has seen."""
        text = self.run("nft", "list", "counter", "inet", "loss", name)
        return int(text.split("packets ")[1].split()[0])

    def drop_nothing(self) -> None:
        """End what drop_every() began."""
        self.run("nft", "delete table inet loss")

    def offload_off(self, device: str) -> None:
        """Have the device given single segments, so that a capture shows what goes on the wire."""
        self.offload(device, {ETHTOOL_STSO: False, ETHTOOL_SGSO: False})

    def offload(self, device: str, wanted: dict[int, bool]) -> None:
        """Switch offloads of a device, by their commands of SIOCETHTOOL, as ethtool does."""
        with self.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            for option, on in wanted.items():
                value = ctypes.create_string_buffer(struct.pack("II", option, on))
                request = struct.pack("16sP", device.encode(), ctypes.addressof(value)).ljust(40)
                fcntl.ioctl(control, SIOCETHTOOL, request)


@contextmanager
def namespace() -> Iterator[Netns]:
    """Make a namespace with lo up; remove it in the end."""
    made = Netns(f"tcprism-test-{os.getpid()}-{next(_numbers)}")
    run("ip", "netns", "add", made.name)
    try:
        made.ip("link set lo up")
        yield made
    finally:
        run("ip", "netns", "delete", made.name)


@dataclass
class Pair:
    """Two namespaces joined by a veth pair: the client has .1, the server .2."""

    client: Netns
    server: Netns
    server_addresses: ClassVar = {4: "10.77.0.2", 6: "fd77::2"}

    def connection(
        self, family: int, port: int, receive_buffer: int = 0
    ) -> tuple[socket.socket, socket.socket]:
        """Return the client's and the server's end of a new connection to a port.

        With `receive_buffer`, the server's is so small (bytes).
        """
        kind = socket.AF_INET if family == 4 else socket.AF_INET6
        client = self.client.socket(kind)
        with self.server.socket(kind) as listener:
            listener.bind((self.server_addresses[family], port))
            listener.listen()
            if receive_buffer:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, receive_buffer)
            client.connect((self.server_addresses[family], port))
            server, _ = listener.accept()
        server.settimeout(60)
        return client, server

    def send_again_late(self, *ends: Netns) -> None:
        """Have either end, or one, wait LATE before it sends again: a slow machine loses nothing.

        A tail loss probe would not wait, so there is none.
        """
        for end in ends or (self.client, self.server):
            end.configure("net/ipv4/tcp_early_retrans", "0")
            end.ip(*(f"route change {each} dev veth0 rto_min {LATE}s" for each in NETWORKS))

    def await_closed(self) -> None:
        """Wait until nothing more will be sent in either namespace."""
        self.client.await_closed()
        self.server.await_closed()


def addresses(number: int) -> list[str]:
    """Return what gives a host its addresses and brings its device up."""
    given = (f"10.77.0.{number}/24", f"fd77::{number}/64 nodad")
    return [*(f"address add {each} dev veth0" for each in given), "link set veth0 up"]


@contextmanager
def joined() -> Iterator[Pair]:
    """Make two namespaces with a veth pair between them."""
    with namespace() as client, namespace() as server:
        client.ip(f"link add veth0 type veth peer name veth0 netns {server.name}")
        for number, end in enumerate((client, server), 1):
            end.offload_off("veth0")
            end.ip(*addresses(number))
        yield Pair(client, server)
