"""The data disk's program believes no header that it would not have written, and takes keys, nothing else."""

import io
from copy import deepcopy

import pytest
from fresh import fresh

from sealift_guest import data_disk

# As cryptsetup 2.7.5 writes it for what the program asks for; salts and digests left out.
HEADER = {
    "keyslots": {
        "0": {
            "type": "luks2",
            "key_size": 16,
            "area": {
                "type": "raw",
                "offset": "32768",
                "size": "65536",
                "encryption": "aes-xts-plain64",
                "key_size": 64,
            },
            "kdf": {"type": "pbkdf2", "hash": "sha256", "iterations": 1000},
        }
    },
    "tokens": {"0": {"type": "sealift-data", "keyslots": []}},
    "segments": {
        "0": {
            "type": "crypt",
            "offset": "1048576",
            "size": "dynamic",
            "iv_tweak": "0",
            "encryption": "aegis128-random",
            "sector_size": 4096,
            "integrity": {"type": "aead", "journal_encryption": "none", "journal_integrity": "none"},
        }
    },
    "config": {"json_size": "12288", "keyslots_size": "1015808"},
}


@pytest.fixture(scope="module")
def program():
    return fresh(data_disk)


def changed(*path, to):
    header = deepcopy(HEADER)
    part = header
    for name in path[:-1]:
        part = part.setdefault(name, {})
    part[path[-1]] = to
    return header


def test_its_own_header_is_accepted(program):
    program.check_header(HEADER)
    assert program.is_marked(HEADER)


@pytest.mark.parametrize(
    "header",
    [
        changed("keyslots", "0", "area", "encryption", to="cipher_null-ecb"),
        changed("keyslots", "0", "area", "key_size", to=16),
        changed("keyslots", "0", "type", to="reencrypt"),
        changed("keyslots", "1", to={"type": "luks2", "area": {"encryption": "cipher_null-ecb"}}),
        changed("segments", "0", "encryption", to="cipher_null-ecb"),
        changed("segments", "0", "type", to="linear"),
        changed("segments", "0", "offset", to="0"),
        changed("segments", "0", "sector_size", to=512),
        changed("segments", "0", "integrity", to={"type": "none"}),
        changed("segments", "0", "flags", to=["backup-final"]),
        changed("segments", "1", to=HEADER["segments"]["0"]),
        changed("segments", to={}),
        changed("config", "requirements", to={"mandatory": ["online-reencrypt"]}),
    ],
)
def test_another_header_is_refused(program, header):
    with pytest.raises(program.Refusal, match="not ours") as refused:
        program.check_header(header)
    assert refused.value.status == 4


def test_a_disk_without_the_mark_was_not_formatted_to_the_end(program):
    assert not program.is_marked(changed("tokens", to={}))
    assert not program.is_marked(None)


@pytest.mark.parametrize("line", ["", "ab" * 31, "AB" * 32, "zz" * 32, "ab" * 33, "ab" * 5000])
def test_what_is_no_key_is_refused(program, line):
    with pytest.raises(program.Refusal, match="64 hexadecimal digits"):
        program.key_of(io.StringIO(f"{line}\n"))


def test_keys_are_read_one_a_line(program):
    lines = io.StringIO(f"{'ab' * 32}\n{'cd' * 32}\n")
    assert [program.key_of(lines), program.key_of(lines)] == [b"ab" * 32, b"cd" * 32]


@pytest.mark.parametrize("keys_first", [True, False])
def test_a_header_is_brought_back_and_nothing_behind_it_touched(program, tmp_path, keys_first):
    size = program.HEADER_BYTES
    header, disk = tmp_path / "header", tmp_path / "disk"
    disk.write_bytes(bytes(size) + b"data" * 1024)
    header.write_bytes(b"\1" * 4096 + bytes(size - 8192) + b"\2" * 4096)
    program.write_back(str(header), str(disk), keys_first=keys_first)
    assert disk.read_bytes() == header.read_bytes() + b"data" * 1024


def test_it_says_how_it_is_called(program):
    with pytest.raises(program.Refusal, match="open, format, rekey or status"):
        program.main(["close"], io.StringIO())
