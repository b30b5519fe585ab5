"""Text encodings (PEM, hexadecimal, base64) removed, and DER elements in a row split."""

from __future__ import annotations

import base64
import binascii
import re

from sealift.errors import UnusableInput
from sealift.evidence.formats import der
from sealift.evidence.formats.x509_certificate import SIZE_LIMIT as X509_LIMIT

TEXT_LIMIT = 256 * 1024
"""Bytes of a file in any format but firmware, as text: each has less than a quarter of this in binary form."""
PEM_BLOCKS_LIMIT = 8
CHAIN_LIMIT = 4 * X509_LIMIT

_PEM = re.compile(rb"-----BEGIN ([A-Z0-9 ]{1,40})-----\s([A-Za-z0-9+/=\s]*)-----END \1-----")
_HEX = re.compile(rb"(?:0x)?[0-9a-fA-F\s]+\Z")
_BASE64 = re.compile(rb"[A-Za-z0-9+/\s]+={0,2}\s*\Z")


def unarmour(data: bytes) -> list[bytes]:
    """The raw contents of PEM blocks, hexadecimal or base64 text; else the bytes themselves."""
    if len(data) <= TEXT_LIMIT:
        if b"-----BEGIN " in data:
            return _read_pem(data)
        if data.strip() and _HEX.match(data.strip()):
            digits = b"".join(data.strip().removeprefix(b"0x").split())
            if len(digits) % 2 == 0:
                return [binascii.unhexlify(digits)]
        if data.strip() and _BASE64.match(data):
            try:
                return [base64.b64decode(b"".join(data.split()), validate=True)]
            except binascii.Error:
                return [data]
    return [data]


def _read_pem(data: bytes) -> list[bytes]:
    blocks = []
    for match in _PEM.finditer(data):
        try:
            blocks.append(base64.b64decode(b"".join(match[2].split()), validate=True))
        except binascii.Error as error:
            raise UnusableInput("a PEM block is not base64", remedy="Fetch the file again") from error
    if not blocks or len(blocks) != data.count(b"-----BEGIN ") or len(blocks) > PEM_BLOCKS_LIMIT:
        raise UnusableInput("the PEM text is cut, or has more than 8 blocks", remedy="Fetch the file again")
    return blocks


def split_der(block: bytes) -> list[bytes]:
    """The DER elements of a file, at most 8, also if it has PEM inside. UnusableInput for anything else."""
    if b"-----BEGIN " in block[:64]:
        return _read_pem(block)
    if len(block) > CHAIN_LIMIT:
        raise UnusableInput("this is larger than a certificate chain", remedy="AMD's have about 5 KiB")
    pieces: list[bytes] = []
    at = 0
    while at < len(block) and len(pieces) < PEM_BLOCKS_LIMIT:
        element = der.read(block, at, len(block), "the certificate")
        pieces.append(element.encoded)
        at = element.end
    if at != len(block) or not pieces:
        raise UnusableInput(
            "this is neither a certificate nor a chain of them", remedy="Give it as PEM or DER"
        )
    return pieces
