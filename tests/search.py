"""Search everything below some paths, and what processes were started with, for byte strings: `search.py` on a host.

Standard input: JSON with `needles` (name to base64), `paths`. Prints JSON: needles found, each with the places. Holes of
sparse files are skipped; what is found has to lie in one piece.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from pathlib import Path

CHUNK_BYTES = 1 << 22


def pieces(path: Path):
    """The file's data, in overlapping chunks."""
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
                carried = chunk[-256:]
                start += len(chunk)
            position = end


def main() -> None:
    """Search."""
    asked = json.loads(sys.stdin.read())
    needles = {name: base64.b64decode(text) for name, text in asked["needles"].items()}
    found: dict[str, list[str]] = {}
    files = 0
    for top in asked["paths"]:
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                if not path.is_file() or path.is_symlink():
                    continue
                files += 1
                for piece in pieces(path):
                    for needle, content in needles.items():
                        if content in piece:
                            found.setdefault(needle, []).append(str(path))
    for process in Path("/proc").glob("[0-9]*"):
        for what in ("cmdline", "environ"):
            try:
                content = (process / what).read_bytes()
            except OSError:
                continue
            for needle, wanted in needles.items():
                if wanted in content:
                    found.setdefault(needle, []).append(str(process / what))
    print(json.dumps({"files": files, "found": found}))


if __name__ == "__main__":
    main()
