"""Conversations with servers of names, time and figures."""

from __future__ import annotations

import socket
import struct

from databases import element, integer
from talk import Conversation, Stream

TRIES = 60
"""Datagrams may be lost: a question without an answer is asked again each second."""


def question(number: int, chosen: int, zone: str) -> bytes:
    """A query of DNS (RFC 1035) for the text of one name."""
    labels = [f"n{chosen}", *zone.split(".")]
    name = b"".join(bytes([len(label)]) + label.encode() for label in labels) + b"\0"
    return struct.pack(">6H", number % 65536, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 16, 1)


def unlike(query: bytes, chosen: int, answer: bytes) -> str | None:
    """What is wrong with an answer, or None."""
    text = str(chosen).encode()
    expected = struct.pack(">HB", len(text) + 1, len(text)) + text
    if answer[:2] != query[:2] or answer[3] & 15 or expected not in answer:
        return f"expected {chosen}, got {answer!r}"
    return None


class Names(Conversation):
    """DNS over one TCP connection (RFC 7766): the text of the name nX is X."""

    def __init__(self, address: str, port: int, zone: str, wrap: int) -> None:
        self.stream = Stream(address, port)
        self.zone, self.wrap = zone, wrap

    def turn(self, number: int) -> str | None:
        """Ask for one text."""
        query = question(number, number % self.wrap, self.zone)
        self.stream.send(struct.pack(">H", len(query)) + query)
        (size,) = struct.unpack(">H", self.stream.read(2))
        return unlike(query, number % self.wrap, self.stream.read(size))

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class Datagrams(Conversation):
    """Questions by UDP from one socket. An answer to another question is a fault, unless that one was repeated."""

    def __init__(self, address: str, port: int) -> None:
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.connect((address, port))
        self.socket.settimeout(1)

    def asked(self, question: bytes) -> bytes:
        """The answer."""
        for _ in range(TRIES):
            try:
                self.socket.send(question)
                return self.socket.recv(4096)
            except (TimeoutError, ConnectionRefusedError):
                continue
        raise OSError(f"no answer in {TRIES} s")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


class NamesByDatagrams(Datagrams):
    """DNS by UDP: the text of the name nX is X."""

    def __init__(self, address: str, port: int, zone: str, wrap: int) -> None:
        super().__init__(address, port)
        self.zone, self.wrap = zone, wrap

    def turn(self, number: int) -> str | None:
        """Ask for one text."""
        query = question(number, number % self.wrap, self.zone)
        answer = self.asked(query)
        while answer[:2] != query[:2]:
            answer = self.socket.recv(4096)  # the answer to a question that was repeated
        return unlike(query, number % self.wrap, answer)


class Stun(Datagrams):
    """STUN (RFC 8489): a binding request, whose answer has its transaction id."""

    def turn(self, number: int) -> str | None:
        """Ask for the own address."""
        mark = number.to_bytes(12, "big")
        answer = self.asked(struct.pack(">HHI", 1, 0, 0x2112A442) + mark)
        while answer[8:20] != mark:
            answer = self.socket.recv(4096)
        return None if answer[:2] == b"\1\1" else f"not a success: {answer!r}"


class Time(Datagrams):
    """NTP (RFC 5905): an answer repeats the transmit time of its question."""

    def turn(self, number: int) -> str | None:
        """Ask for the time."""
        mark = struct.pack(">Q", number)
        question = bytes([0x23]) + bytes(39) + mark
        answer = self.asked(question)
        while len(answer) >= 48 and 0 < struct.unpack(">Q", answer[24:32])[0] < number:
            answer = self.socket.recv(4096)  # the answer to a question that was repeated
        return None if answer[24:32] == mark and answer[0] & 7 == 4 else f"expected {number}, got {answer!r}"


class Snmp(Datagrams):
    """SNMPv2c: the uptime, which never goes back, under the request's number."""

    def __init__(self, address: str, port: int, community: str) -> None:
        super().__init__(address, port)
        self.community = community.encode()
        self.uptime = 0

    def turn(self, number: int) -> str | None:
        """Ask for the uptime."""
        name = element(6, bytes([0x2B, 6, 1, 2, 1, 1, 3, 0]))
        variables = element(0x30, element(0x30, name, element(5)))
        pdu = element(0xA0, integer(number), integer(0), integer(0), variables)
        answer = self.asked(element(0x30, integer(1), element(4, self.community), pdu))
        while integer(number) not in answer:
            answer = self.socket.recv(4096)
        at = answer.index(name) + len(name)
        uptime = int.from_bytes(answer[at + 2 : at + 2 + answer[at + 1]], "big")
        if answer[at] != 0x43 or uptime < self.uptime:
            return f"the uptime goes from {self.uptime} to {uptime}"
        self.uptime = uptime
        return None
