"""What a guest and its kernel hand to each other, certificate tables, and the binding of report data."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import pytest

from sealift.errors import UnusableInput
from sealift.evidence.formats import certificate_table as table
from sealift.evidence.formats.guest_messages import (
    KeySelection,
    ReportRequest,
    TsmEntry,
    pack_call,
    pack_response,
    parse_request,
    parse_response,
)
from sealift.evidence.formats.report_data import Binding, padded

if TYPE_CHECKING:
    from evidence_lab import SnpLab

BINDING = Binding(b"o" * 32, b"g" * 32, b"ssh-ed25519 AAAA", b"wireguard")


def test_a_request_has_the_kernels_layout() -> None:
    request = ReportRequest(bytes(range(64)), vmpl=2, key=KeySelection.VCEK)
    packed = request.pack()
    assert len(packed) == 96
    assert packed[:64] == bytes(range(64))
    assert packed[64:72] == b"\2\0\0\0\1\0\0\0"
    assert not any(packed[72:])
    assert parse_request(packed) == request
    extended = request.pack_extended(0x1000, 0x4000)
    assert len(extended) == 112
    assert extended[96:108] == b"\0\x10\0\0\0\0\0\0\0\x40\0\0"
    assert len(pack_call(1, 2)) == 32


@pytest.mark.parametrize("offset", [64, 68])
def test_a_request_for_no_vmpl_or_key_is_unusable(offset: int) -> None:
    packed = bytearray(ReportRequest(bytes(64)).pack())
    packed[offset] = 9
    with pytest.raises(UnusableInput):
        parse_request(bytes(packed))


def test_a_response_holds_the_report_at_20h(snp_lab: SnpLab) -> None:
    report = snp_lab.evidence().report
    response = pack_response(report.raw)
    assert len(response) == 4000
    assert response[4:8] == (0x4A0).to_bytes(4, "little")
    assert response[0x20 : 0x20 + 1184] == report.raw
    assert parse_response(response) == report


def test_a_response_with_a_status_or_another_size_is_unusable(snp_lab: SnpLab) -> None:
    with pytest.raises(UnusableInput, match="0x27"):
        parse_response(pack_response(b"", status=0x27))
    response = bytearray(pack_response(snp_lab.evidence().report.raw))
    response[4] ^= 1
    with pytest.raises(UnusableInput):
        parse_response(bytes(response))


def test_a_configfs_entry_gives_report_and_certificates(snp_lab: SnpLab) -> None:
    evidence = snp_lab.evidence()
    packed = table.pack_certificate_table({table.VCEK: evidence.key.der, table.ARK: evidence.chain[1].der})
    entry = TsmEntry(evidence.report.fields.report_data, evidence.report.raw, packed)
    assert entry.report() == evidence.report
    assert entry.certificates() == {
        str(table.VCEK): evidence.key.der,
        str(table.ARK): evidence.chain[1].der,
    }
    assert TsmEntry(bytes(64), evidence.report.raw).certificates() == {}
    with pytest.raises(UnusableInput, match="provider"):
        replace(entry, provider="tdx_guest").report()
    with pytest.raises(UnusableInput, match="inblob"):
        TsmEntry(b"short")


def test_a_certificate_table_has_big_endian_guids_and_whole_pages(snp_lab: SnpLab) -> None:
    entries = {table.VCEK: b"vcek", table.ASK: b"ask", table.ARK: b"ark!"}
    packed = table.pack_certificate_table(entries)
    assert packed.startswith(bytes.fromhex("63da758de6644564adc5f4b93be8accd"))
    assert len(packed) == 4096
    assert table.parse_certificate_table(packed) == entries
    assert table.parse_certificate_table(bytes(4096)) == {}


@pytest.mark.parametrize("damage", ["no end", "outside", "twice", "too large"])
def test_a_damaged_certificate_table_is_unusable(damage: str) -> None:
    packed = bytearray(table.pack_certificate_table({table.VCEK: b"vcek", table.ASK: b"ask"}))
    if damage == "no end":
        packed = packed[:48]
    elif damage == "outside":
        packed[16:20] = b"\xff\xff\xff\xff"
    elif damage == "twice":
        packed[24:40] = packed[:16]
    else:
        packed += bytes(64 * 1024)
    with pytest.raises(UnusableInput):
        table.parse_certificate_table(bytes(packed))


def test_report_data_binds_each_item_and_where_it_ends() -> None:
    bound = BINDING.digest()
    assert len(bound) == 64
    assert BINDING.bound_in(bound)
    others = [
        replace(BINDING, owner_nonce=b"x" * 32),
        replace(BINDING, guest_nonce=b"x" * 32),
        replace(BINDING, owner_nonce=BINDING.guest_nonce, guest_nonce=BINDING.owner_nonce),
        replace(BINDING, ssh_host_key=b"ssh-ed25519 AAAB"),
        replace(BINDING, wireguard_key=b"wireguarD"),
        # The same bytes parted elsewhere.
        replace(BINDING, ssh_host_key=b"ssh-ed25519 AAAAw", wireguard_key=b"ireguard"),
    ]
    digests = [each.digest() for each in (BINDING, *others)]
    assert all(left != right for left, right in combinations(digests, 2))
    assert not any(each.bound_in(bound) for each in others)


@pytest.mark.parametrize("change", [{"owner_nonce": b""}, {"guest_nonce": b"x" * 31}, {"ssh_host_key": b""}])
def test_a_binding_without_all_its_items_is_unusable(change: dict[str, bytes]) -> None:
    with pytest.raises(UnusableInput):
        replace(BINDING, **change).digest()


def test_short_report_data_is_filled_with_zeros_and_long_data_is_unusable() -> None:
    assert padded(b"abc") == b"abc" + bytes(61)
    with pytest.raises(UnusableInput, match="64"):
        padded(bytes(65))
