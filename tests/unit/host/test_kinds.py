"""What lies at a path is told apart: what can be sent, and what is the host's own."""

from __future__ import annotations

import hashlib
import os
import socket
from typing import TYPE_CHECKING

from sealift_agent.files import kinds
from sealift_agent.protocol import PathFound

if TYPE_CHECKING:
    from pathlib import Path


def test_each_kind_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("text")
    (tmp_path / "nothing").touch()
    (tmp_path / "link").symlink_to("full/file")
    (tmp_path / "large").write_bytes(bytes(kinds.DIGEST_MOST_BYTES + 1))
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        digest = hashlib.sha256(b"text").hexdigest()
        wanted = {
            tmp_path / "empty": PathFound("directory", empty=True),
            tmp_path / "full": PathFound("directory"),
            tmp_path / "full/file": PathFound("file", digest=digest),
            tmp_path / "link": PathFound("file", digest=digest),
            tmp_path / "nothing": PathFound("file", empty=True, digest=hashlib.sha256().hexdigest()),
            tmp_path / "large": PathFound("file"),
            tmp_path / "pipe": PathFound("pipe"),
            tmp_path / "socket": PathFound("socket"),
            tmp_path / "missing": PathFound("missing"),
            "/dev/null": None,
            "/proc/version": PathFound("kernel"),
            "/sys": PathFound("kernel"),
        }
        for path, found in zip(wanted, kinds.describe([str(path) for path in wanted]), strict=True):
            # A container's /dev is a tmpfs, a machine's is the kernel's.
            assert found == wanted[path] or (path == "/dev/null" and found.kind in {"device", "kernel"}), path
