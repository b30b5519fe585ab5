"""Search files below some paths, and what processes were started with, for byte strings: `search.py`, run on a host.

Standard input: JSON with `needles` (name to base64) and `paths`. Prints JSON: how many files were searched, and for
each needle that was found the places. Holes of sparse files are skipped.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHUNK_BYTES = 1 << 22
LONGEST_BYTES = 256


def pieces(path: Path) -> Iterator[bytes]:
    """The file's data, in chunks that overlap by the longest needle."""
    size = path.stat().st_size
    with path.open("rb", buffering=0) as file:
        position = 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
                end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            except OSError:
                return  # nothing but a hole up to its end
            carried = b""
            os.lseek(file.fileno(), start, os.SEEK_SET)
            while start < end and (chunk := file.read(min(CHUNK_BYTES, end - start))):
                yield carried + chunk
                carried = chunk[-LONGEST_BYTES:]
                start += len(chunk)
            position = end


def files(paths: list[str]) -> Iterator[Path]:
    """All regular files below the paths."""
    for top in paths:
        for folder, _, names in os.walk(top):
            yield from (
                path for name in names if (path := Path(folder, name)).is_file() and not path.is_symlink()
            )


def started_with() -> Iterator[tuple[Path, bytes]]:
    """Arguments and environment of every process."""
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            try:
                yield process / what, (process / what).read_bytes()
            except OSError:
                continue  # it has ended


def main() -> None:
    """Search."""
    asked = json.loads(sys.stdin.read())
    needles = {name: base64.b64decode(text) for name, text in asked["needles"].items()}
    found: dict[str, set[str]] = {}
    searched = 0

    def look(place: Path, content: bytes) -> None:
        for name, needle in needles.items():
            if needle in content:
                found.setdefault(name, set()).add(str(place))

    for path in files(asked["paths"]):
        searched += 1
        for piece in pieces(path):
            look(path, piece)
    for place, content in started_with():
        look(place, content)
    print(json.dumps({"files": searched, "found": {name: sorted(places) for name, places in found.items()}}))


if __name__ == "__main__":
    main()
