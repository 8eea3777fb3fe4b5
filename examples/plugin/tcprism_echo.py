"""A protocol of one's own: `ECHO text` and a line that repeats it, or `ERROR why`."""

import re

from tcprism.protocols import REQUEST, Exchange, Match, NotThisProtocol, Parser, Protocol

REQUEST_LINE = re.compile(rb"ECHO ([ -~]*)\r\n")
RESPONSE_LINE = re.compile(rb"(SAID|ERROR) [ -~]*\r\n")
LINE_MAX = 1024


class Echo(Parser):
    """Reads lines; responses come in the order of requests."""

    def parse(self, side: int, data: bytes, at: int) -> int:
        """Take all whole lines; return the place of the first byte that is still wanted."""
        line = REQUEST_LINE if side == REQUEST else RESPONSE_LINE
        place = 0
        while found := line.match(data, place):
            if side == REQUEST:
                resource = found[1].decode() if self.show_values else "?"
                begin, end = at + place, at + found.end()
                self.waiting.append(Exchange("echo", "ECHO", resource, begin, end))
            elif self.waiting:
                exchange = self.waiting.popleft()
                exchange.response_begin, exchange.response_end = at + place, at + found.end()
                exchange.status = found[1].decode()
                exchange.failed = exchange.status == "ERROR"
                self.done.append(exchange)
            place = found.end()
        if b"\n" in data[place:] or len(data) - place > LINE_MAX:
            raise NotThisProtocol
        return place

    def find(self, side: int, data: bytes) -> int:
        """After missing bytes, go on at the start of what a process wrote, if it is a line."""
        line = REQUEST_LINE if side == REQUEST else RESPONSE_LINE
        return 0 if line.match(data) else -1


def request(data: bytes) -> Match:
    """Tell whether a client begins with these bytes."""
    if REQUEST_LINE.match(data):
        return Match.YES
    return Match.MORE if b"ECHO ".startswith(data[:5]) and b"\n" not in data else Match.NO


def response(data: bytes) -> Match:
    """Tell whether a server begins with these bytes."""
    if RESPONSE_LINE.match(data):
        return Match.YES
    begun = b"SAID ".startswith(data[:5]) or b"ERROR ".startswith(data[:6])
    return Match.MORE if begun and b"\n" not in data else Match.NO


ECHO = Protocol("echo", Echo, request, response)
