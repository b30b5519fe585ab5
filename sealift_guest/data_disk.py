#!/usr/bin/python3 -IS
"""data-disk open|format|rekey|status: the encrypted disk of a measured VM.

Keys come on standard input, 64 hexadecimal digits a line.

open    opens the disk with the key of the first line and mounts it.
format  the same, but a disk without content is formatted first: the owner says that no content can be lost.
rekey   makes the key of the second line the only one, given that of the first line.
status  prints empty, locked or open.

Exit status 0, or a sentence on standard error and 3 (the disk does not open with this key), 4 (its content is not the
content that was written), 5 (it has no content) or 1 (any other error). If it is killed at any point, the same call
again completes the work.

The provider can write to the disk at any time, also between two reads. So its header is copied to memory, checked
there, and used from there. LUKS does not authenticate a header by a key, and a header without any encryption would
open with any key.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

NAME = "sealift-data"
MAPPED = f"/dev/mapper/{NAME}"
# Authenticated, with 128 bits of key, tag and random nonce. Under emulation AES-XTS with HMAC and ChaCha20-Poly1305
# take three times as long. The nonce of AES-GCM has only 96 bits, which is short for a random nonce.
CIPHER, KEY_BITS = "aegis128-random", 128
# cryptsetup's own choice for the key slots of an authenticated disk, which cannot be changed.
SLOT_CIPHER, SLOT_KEY_BITS = "aes-xts-plain64", 512
HEADER_BYTES = 1 << 20
METADATA_BYTES = 32 << 10  # both copies of the header itself; the key slots follow them
SECTOR_BYTES = 4096
GROUP_BYTES = 8 * SECTOR_BYTES * SECTOR_BYTES  # ext4: the block bitmap of a group has one block
MODULES = ("dm_crypt", "dm_integrity", "aegis128_aesni", "aesni_intel", "xts")
MOUNT = Path("/data")
FOLDERS = ("docker", "containerd", "sealift")
RUN = Path("/run/sealift")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "DM_DISABLE_UDEV": "1"}

WRONG_KEY, BROKEN, EMPTY = 3, 4, 5
CRYPTSETUP_WRONG_KEY = 2  # cryptsetup(8), "RETURN CODES"


class Refusal(Exception):
    """An error that ends the program: exit status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def main(words: Sequence[str], keys: TextIO) -> None:
    """Execute the command."""
    match words:
        case ["open" | "format" as verb]:
            with alone():
                open_disk(data_disk(), key_of(keys), may_format=verb == "format")
        case ["rekey"]:
            with alone():
                rekey(data_disk(), key_of(keys), key_of(keys))
        case ["status"]:
            sys.stdout.write(f"{status(data_disk())}\n")
        case _:
            raise Refusal(1, "it is called with open, format, rekey or status")


def open_disk(disk: str, key: bytes, *, may_format: bool) -> None:
    """Open and mount the disk, from any state."""
    run(["modprobe", "-a", "-q", "-b", *MODULES], check=False)
    if os.path.ismount(MOUNT):
        with header_copy(disk) as header:
            require_key(header, key)
    else:
        close_leftovers()
        if not unlocked(disk, key):
            if not may_format:
                raise Refusal(EMPTY, "nothing that was written to the disk is there")
            format_disk(disk, key)
        mount()
    bind_folders()


def unlocked(disk: str, key: bytes, *, whole: bool = True) -> bool:
    """Map the disk with a checked header. False if it was not formatted, or, with `whole`, not completely."""
    with header_copy(disk) as header:
        content = metadata(header)
        if content is None or (whole and not is_marked(content)):
            return False
        check_header(content)
        done = cryptsetup(["open", "--type", "luks2", "--header", header, disk, NAME], key)
    if done.returncode == CRYPTSETUP_WRONG_KEY:
        raise Refusal(WRONG_KEY, "the disk does not open with this key")
    if done.returncode:
        raise Refusal(BROKEN, f"the disk cannot be opened: {last_line(done)}")
    return True


def format_disk(disk: str, key: bytes) -> None:
    """Make header and file system, and leave the disk mapped. The mark of a complete format is written last."""
    cryptsetup(
        [
            *("luksFormat", "--type", "luks2", "--label", NAME),
            *("--cipher", CIPHER, "--key-size", str(KEY_BITS), "--integrity", "aead"),
            # Sectors that were never written cannot be read; the file system below reads none of them.
            *("--integrity-no-wipe", "--sector-size", str(SECTOR_BYTES)),
            # The key is random, so many rounds of key derivation would not make it safer.
            *("--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha256"),
            *("--luks2-metadata-size", "16k", "--luks2-keyslots-size", "992k"),
            *("--offset", str(HEADER_BYTES // 512), disk),
        ],
        key,
        check=True,
    )
    if not unlocked(disk, key, whole=False):
        raise Refusal(BROKEN, "the disk does not keep what is written to it")
    write_group_starts(MAPPED)
    run(
        [
            *(
                "mke2fs",
                "-q",
                "-F",
                "-t",
                "ext4",
                "-L",
                NAME,
                "-m",
                "0",
                "-b",
                str(SECTOR_BYTES),
                "-i",
                "65536",
            ),
            # Every block that may be read before it is written has to be written now.
            *("-J", "size=16", "-O", "^resize_inode"),
            *("-E", "nodiscard,lazy_itable_init=0,lazy_journal_init=0", MAPPED),
        ]
    )
    run(["sync", MAPPED])
    mark = json.dumps({"type": NAME, "keyslots": []})
    run(["cryptsetup", "token", "import", "--token-id", "0", "--json-file", "-", disk], stdin=mark.encode())


def write_group_starts(device: str) -> None:
    """Make blocks readable that mke2fs does not write completely: copies of the superblock, and unused bitmaps.

    The bitmaps of 16 groups are together, after the superblock and descriptors of the first group.
    """
    handle = os.open(device, os.O_WRONLY)
    try:
        for at in range(0, os.lseek(handle, 0, os.SEEK_END), GROUP_BYTES):
            os.pwrite(handle, bytes(SECTOR_BYTES * (1 if at % (16 * GROUP_BYTES) else 64)), at)
    finally:
        os.close(handle)


def mount() -> None:
    """Mount the disk without devices and set-user-id programs. `bind_folders` allows both for containers only."""
    done = run(["mount", "-t", "ext4", "-o", "noatime,nosuid,nodev", MAPPED, MOUNT], check=False)
    if done.returncode:
        run(["cryptsetup", "close", NAME], check=False)
        raise Refusal(BROKEN, f"the disk's file system is not what was written to it: {last_line(done)}")


def bind_folders() -> None:
    """Bind the folders, as the init does for a disk without encryption."""
    for name in FOLDERS:
        target = Path("/var/lib", name)
        (MOUNT / name).mkdir(exist_ok=True)
        target.mkdir(parents=True, exist_ok=True)
        if not os.path.ismount(target):
            run(["mount", "--bind", MOUNT / name, target])
            if name == "docker":
                run(["mount", "-o", "remount,bind,suid,dev", target])


def rekey(disk: str, old: bytes, new: bytes) -> None:
    """Change the key. First both keys open the disk, then only the new one."""
    with header_copy(disk) as header:
        check_header(written(header))
        if slot_of(header, new) is None:
            require_key(header, old)
            with handed_over(old) as known, handed_over(new) as added:
                words = ["cryptsetup", "luksAddKey", "-q", "--pbkdf", "pbkdf2"]
                run([*words, "--pbkdf-force-iterations", "1000", "--key-file", known, header, added])
            write_back(header, disk, keys_first=True)
        kept = slot_of(header, new)
        for slot in written(header)["keyslots"]:
            if slot != kept:
                run(["cryptsetup", "luksKillSlot", "-q", header, slot])
        write_back(header, disk, keys_first=False)


def status(disk: str) -> str:
    """The state of the disk, as one word."""
    if os.path.ismount(MOUNT):
        return "open"
    return "locked" if is_finished(disk) else "empty"


def check_header(content: dict[str, Any]) -> None:
    """Refuse a header that this program has not written."""
    slots, segments = content.get("keyslots", {}), content.get("segments", {})
    wanted_slot = {"encryption": SLOT_CIPHER, "key_size": SLOT_KEY_BITS // 8}
    wanted_segment = {
        "type": "crypt",
        "offset": str(HEADER_BYTES),
        "size": "dynamic",
        "iv_tweak": "0",
        "encryption": CIPHER,
        "sector_size": SECTOR_BYTES,
    }
    for slot in slots.values():
        area = slot.get("area", {})
        if slot.get("type") != "luks2" or {name: area.get(name) for name in wanted_slot} != wanted_slot:
            raise Refusal(BROKEN, "the disk's header keeps a key in a way that is not ours")
    segment = segments.get("0", {})
    if (
        len(segments) != 1
        or {name: segment.get(name) for name in wanted_segment} != wanted_segment
        or segment.get("integrity", {}).get("type") != "aead"
        or "flags" in segment
        or "requirements" in content.get("config", {})
    ):
        raise Refusal(BROKEN, "the disk's header describes an encryption that is not ours")


def is_finished(disk: str) -> bool:
    """Whether a disk was formatted completely."""
    with header_copy(disk, f"header.{os.getpid()}") as header:
        return is_marked(metadata(header))


def is_marked(content: dict[str, Any] | None) -> bool:
    """The same for a parsed header; None without a header."""
    return content is not None and any(
        token.get("type") == NAME for token in content.get("tokens", {}).values()
    )


def metadata(header: str) -> dict[str, Any] | None:
    """The content of a header, or None if it is not a header."""
    done = run(["cryptsetup", "luksDump", "--dump-json-metadata", header], check=False)
    return json.loads(done.stdout) if done.returncode == 0 else None


def written(header: str) -> dict[str, Any]:
    """The content of a completely written header. Refuses any other."""
    content = metadata(header)
    if content is None or not is_marked(content):
        raise Refusal(EMPTY, "nothing that was written to the disk is there")
    return content


def require_key(header: str, key: bytes) -> None:
    """Refuse a key that opens no slot of a header."""
    if slot_of(header, key) is None:
        raise Refusal(WRONG_KEY, "the disk does not open with this key")


def slot_of(header: str, key: bytes) -> str | None:
    """The slot of a header that a key opens, or None."""
    done = cryptsetup(["open", "--test-passphrase", "-v", "--type", "luks2", header], key)
    found = re.search(rb"Key slot (\d+) unlocked", done.stdout + done.stderr)
    return found[1].decode() if found and done.returncode == 0 else None


@contextmanager
def header_copy(disk: str, name: str = "header") -> Iterator[str]:
    """A copy of a disk's header, as a file in memory. It is empty if the disk has no header."""
    path = RUN / name
    with Path(disk).open("rb") as source:
        path.write_bytes(source.read(HEADER_BYTES))
    try:
        yield str(path)
    finally:
        path.unlink()


def write_back(header: str, disk: str, *, keys_first: bool) -> None:
    """Write the changes of a header's copy to the disk. If it is interrupted, the old or the new state opens."""
    content = Path(header).read_bytes()
    proper = [(0, METADATA_BYTES // 2), (METADATA_BYTES // 2, METADATA_BYTES)]
    keys = [(METADATA_BYTES, len(content))]
    handle = os.open(disk, os.O_RDWR)
    try:
        for start, end in [*keys, *proper] if keys_first else [*proper, *keys]:
            for at in range(start, end, SECTOR_BYTES):
                block = content[at : at + SECTOR_BYTES]
                if os.pread(handle, SECTOR_BYTES, at) != block:
                    os.pwrite(handle, block, at)
            os.fsync(handle)
    finally:
        os.close(handle)


def close_leftovers() -> None:
    """Unmap the remains of a killed call."""
    for found in Path("/sys/block").glob("dm-*/dm/name"):
        with suppress(FileNotFoundError):
            name = found.read_text().strip()
            if name.startswith((NAME, "temporary-cryptsetup-")) and not name.endswith("_dif"):
                run(["cryptsetup", "close", name], check=False)


def data_disk() -> str:
    """The disk's device node, by its serial number."""
    for found in sorted(Path("/sys/block").glob("vd*/serial")):
        if found.read_text().strip() == NAME:
            return f"/dev/{found.parent.name}"
    raise Refusal(1, f"there is no disk with the serial number {NAME}")


def key_of(keys: TextIO) -> bytes:
    """The key in the next line."""
    line = keys.readline(130).strip()
    if not re.fullmatch("[0-9a-f]{64}", line):
        raise Refusal(1, "a key of 64 hexadecimal digits in a line is wanted on standard input")
    return line.encode()


@contextmanager
def alone() -> Iterator[None]:
    """One call at a time. Child processes keep the lock, too, so the next call waits for a killed call's cryptsetup."""
    RUN.mkdir(exist_ok=True)
    lock = os.open(RUN / "data-disk.lock", os.O_CREAT | os.O_RDWR, 0o600)
    os.set_inheritable(lock, True)
    fcntl.flock(lock, fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(lock)


@contextmanager
def handed_over(key: bytes) -> Iterator[str]:
    """A path from which a child process can read the key once."""
    readable, writable = os.pipe()
    os.set_inheritable(readable, True)
    try:
        os.write(writable, key)
        os.close(writable)
        yield f"/dev/fd/{readable}"
    finally:
        os.close(readable)


def cryptsetup(
    words: Sequence[str], key: bytes, *, check: bool = False
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with a key on its standard input."""
    return run(["cryptsetup", "-q", "--key-file", "-", *words], stdin=key, check=check)


def run(
    words: Sequence[str | Path], *, stdin: bytes = b"", check: bool = True
) -> subprocess.CompletedProcess[bytes]:
    """Run a command. With `check`, a failure is a refusal."""
    done = subprocess.run(
        words, input=stdin, capture_output=True, close_fds=False, env=ENVIRONMENT, check=False
    )
    if check and done.returncode:
        raise Refusal(1, f"{words[0]} {words[1]} ended with status {done.returncode}: {last_line(done)}")
    return done


def last_line(done: subprocess.CompletedProcess[bytes]) -> str:
    """The last line of a command's output."""
    return (done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"])[-1]


if __name__ == "__main__":
    try:
        main(sys.argv[1:], sys.stdin)
    except Refusal as refusal:
        sys.exit([sys.stderr.write(f"data-disk: {refusal}\n"), refusal.status][1])
