"""Put the agents' archive to a host: `python3 -c THIS PATH`, with the archive on standard input.

Python compiles modules of an archive at every start, which is more than half of what a start takes. So each module is
compiled here, once, and kept beside its source (PEP 552: by a hash that is not checked again, since the name of the
archive is the hash of its content). A Python of another version finds the source and takes that.
"""

from __future__ import annotations

import importlib.util
import io
import marshal
import os
import sys
import zipfile
from pathlib import Path

HASHED, NOT_CHECKED = 0b01, 0b00


def compiled(source: bytes, name: str) -> bytes:
    """A module as Python keeps it compiled."""
    code = compile(source, name, "exec", dont_inherit=True)
    flags = (HASHED | NOT_CHECKED).to_bytes(4, "little")
    return importlib.util.MAGIC_NUMBER + flags + importlib.util.source_hash(source) + marshal.dumps(code)


def put(archive: bytes, path: str) -> None:
    """Write the archive with its modules compiled as well, whole or not at all."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    with zipfile.ZipFile(io.BytesIO(archive)) as sources, zipfile.ZipFile(new, "w") as made:
        for entry in sources.infolist():
            source = sources.read(entry)
            made.writestr(entry, source)
            if entry.filename.endswith(".py"):
                code = compiled(source, f"{path}/{entry.filename}")
                made.writestr(zipfile.ZipInfo(f"{entry.filename}c"), code)
    new.replace(target)


if __name__ == "__main__":
    os.umask(0o077)  # as all that Sealift puts to a host: its folder is root's alone
    put(sys.stdin.buffer.read(), sys.argv[1])
