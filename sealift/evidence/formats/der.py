"""A reader and a writer of the part of DER that AMD's certificates and CRLs use (ITU-T X.690).

Every VCEK and VLEK has serial number 0. RFC 5280 forbids this, and general libraries refuse it or will refuse it.
This reader also keeps the received bytes, over which signatures are checked.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache

from sealift.errors import UnusableInput

BOOLEAN = 0x01
INTEGER = 0x02
BIT_STRING = 0x03
OCTET_STRING = 0x04
NULL = 0x05
OBJECT_ID = 0x06
ENUMERATED = 0x0A
UTF8_STRING = 0x0C
PRINTABLE_STRING = 0x13
IA5_STRING = 0x16
UTC_TIME = 0x17
GENERALIZED_TIME = 0x18
SEQUENCE = 0x30
SET = 0x31

# AMD's certificates have 6 names and up to 15 extensions, so no list but a CRL's is longer.
ELEMENTS = 32
# Bytes: twice the size of AMD's largest RSA modulus. Python does not print numbers of some thousands of digits.
_INTEGER_LIMIT = 1024
_REMEDY = "Fetch the certificate again; it may be cut or of another kind"
_UTC = re.compile(r"[0-9]{12}Z")
_GENERALIZED = re.compile(r"[0-9]{14}Z")


def explicit(number: int) -> int:
    """The tag of a constructed, context-specific element."""
    return 0xA0 | number


@dataclass(frozen=True, slots=True)
class Element:
    """One element: its tag, and where in the source its head, body and end are."""

    source: bytes = field(repr=False)
    tag: int
    start: int
    body: int
    end: int

    @property
    def value(self) -> bytes:
        """The body."""
        return self.source[self.body : self.end]

    @property
    def encoded(self) -> bytes:
        """Head and body, as received."""
        return self.source[self.start : self.end]

    def expect(self, tag: int, what: str) -> Element:
        """Itself, if it has this tag."""
        if self.tag != tag:
            raise broken(what)
        return self

    def children(self, what: str, at_most: int = ELEMENTS) -> list[Element]:
        """The elements inside. More than `at_most` are refused: to read them all would cost whoever asked for it."""
        found: list[Element] = []
        at = self.body
        while at < self.end:
            if len(found) == at_most:
                raise UnusableInput(f"{what} has a list of more than {at_most} elements", remedy=_REMEDY)
            element = read(self.source, at, self.end, what)
            found.append(element)
            at = element.end
        return found

    def sequence(self, what: str, at_least: int = 0, at_most: int = ELEMENTS) -> list[Element]:
        """The elements inside a SEQUENCE, which has at least `at_least` of them and at most `at_most`."""
        found = self.expect(SEQUENCE, what).children(what, at_most)
        if len(found) < at_least:
            raise broken(what)
        return found

    def only_child(self, what: str) -> Element:
        """The one element inside."""
        found = self.children(what)
        if len(found) != 1:
            raise broken(what)
        return found[0]


def broken(what: str) -> UnusableInput:
    """The error for malformed bytes."""
    return UnusableInput(f"{what} is not well-formed DER", remedy=_REMEDY)


def read(source: bytes, at: int, limit: int, what: str) -> Element:
    """The element at an offset. Lengths must be definite and minimal, tags single bytes."""
    if limit - at < 2 or source[at] & 0x1F == 0x1F:
        raise broken(what)
    length = source[at + 1]
    body = at + 2
    if length & 0x80:
        count = length & 0x7F
        if not 1 <= count <= 4 or limit - body < count:
            raise broken(what)
        length = int.from_bytes(source[body : body + count], "big")
        if length < 0x80 or length >> 8 * (count - 1) == 0:
            raise broken(what)
        body += count
    if length > limit - body:
        raise broken(what)
    return Element(source, source[at], at, body, body + length)


def read_whole(data: bytes, what: str) -> Element:
    """The element that fills all bytes."""
    element = read(data, 0, len(data), what)
    if element.end != len(data):
        raise broken(what)
    return element


def integer(element: Element, what: str) -> int:
    """The value of an INTEGER or ENUMERATED."""
    size = element.end - element.body
    if element.tag not in {INTEGER, ENUMERATED} or not 0 < size <= _INTEGER_LIMIT:
        raise broken(what)
    return int.from_bytes(element.value, "big", signed=True)


def object_id(element: Element, what: str) -> str:
    """The dotted text of an OBJECT IDENTIFIER."""
    value = element.expect(OBJECT_ID, what).value
    if not value or value[-1] & 0x80 or len(value) > 64:
        raise broken(what)
    return _dotted(value)


@lru_cache(maxsize=256)
def _dotted(value: bytes) -> str:
    arcs: list[int] = []
    number = 0
    for byte in value:
        number = number << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(number)
            number = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(map(str, (first, arcs[0] - 40 * first, *arcs[1:])))


def bits(element: Element, what: str) -> bytes:
    """The bytes of a BIT STRING without unused bits."""
    value = element.expect(BIT_STRING, what).value
    if not value or value[0] != 0:
        raise broken(what)
    return value[1:]


def time(element: Element, what: str) -> datetime:
    """The time of a UTCTime or GeneralizedTime in UTC (RFC 5280, section 4.1.2.5)."""
    text = element.value.decode("ascii", "replace")
    try:
        if element.tag == UTC_TIME and _UTC.fullmatch(text):
            text = ("20" if int(text[:2]) < 50 else "19") + text
        elif element.tag != GENERALIZED_TIME or not _GENERALIZED.fullmatch(text):
            raise broken(what)
        month, day, hour, minute, second = (int(text[at : at + 2]) for at in range(4, 14, 2))
        return datetime(int(text[:4]), month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise broken(what) from error


def write(tag: int, *parts: bytes) -> bytes:
    """An element from the encodings inside it."""
    body = b"".join(parts)
    if len(body) < 0x80:
        return bytes((tag, len(body))) + body
    length = struct.pack(">I", len(body)).lstrip(b"\0")
    return bytes((tag, 0x80 | len(length))) + length + body


def write_integer(value: int, tag: int = INTEGER) -> bytes:
    """A non-negative INTEGER."""
    return write(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def write_object_id(text: str) -> bytes:
    """An OBJECT IDENTIFIER from dotted text."""
    arcs = [int(arc) for arc in text.split(".")]
    body = b""
    for arc in (arcs[0] * 40 + arcs[1], *arcs[2:]):
        groups = [arc & 0x7F]
        rest = arc >> 7
        while rest:
            groups.append(rest & 0x7F | 0x80)
            rest >>= 7
        body += bytes(reversed(groups))
    return write(OBJECT_ID, body)


def write_bits(value: bytes) -> bytes:
    """A BIT STRING of whole bytes."""
    return write(BIT_STRING, b"\0", value)


def write_time(moment: datetime) -> bytes:
    """A GeneralizedTime from 2050 on, a UTCTime before 2050 (RFC 5280)."""
    utc = moment.astimezone(UTC)
    if utc.year < 2050:
        return write(UTC_TIME, utc.strftime("%y%m%d%H%M%SZ").encode())
    return write(GENERALIZED_TIME, utc.strftime("%Y%m%d%H%M%SZ").encode())
