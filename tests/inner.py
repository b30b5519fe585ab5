"""Tests whose inner half is a program: a provider that starts VMs, in namespaces of its own that end with it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.machine.recipe import files_dir, lower_dirs

if TYPE_CHECKING:
    from collections.abc import Iterable

TESTS = Path(__file__).parent
DEVICES = ("/dev/net/tun", "/dev/null", "/dev/urandom")


def inner_half(script: str, *words: object, timeout_s: float) -> Any:
    """Run a test's file as a program. What it prints last is JSON."""
    contained = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(
        [*contained, sys.executable, script, *map(str, words)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent}:{TESTS}"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found


def provider_root(folder: Path, tree: Path, read_only: Iterable[Path] = ()) -> Path:
    """Where QEMU runs: the tree, the devices that it needs, the folder, files to read, and a bridge."""
    ram = folder / "ram"
    ram.mkdir()
    sh("mount", "-t", "tmpfs", "ram", ram)
    for name in ("upper", "work", "root"):
        (ram / name).mkdir()
    root = ram / "root"
    upper = f"upperdir={ram}/upper,workdir={ram}/work"
    sh("mount", "-t", "overlay", "-o", f"lowerdir={lower_dirs(tree, files_dir())},{upper}", "root", root)
    for path in (*map(Path, DEVICES), folder):
        bind(path, root)
    for path in read_only:
        sh("mount", "-o", "remount,bind,ro", bind(path, root))
    sh("ip", "link", "set", "lo", "up")
    sh("ip", "link", "add", "br0", "type", "bridge")
    sh("ip", "address", "add", "192.0.2.1/24", "dev", "br0")
    sh("ip", "link", "set", "br0", "up")
    return root


def bind(path: Path, root: Path) -> Path:
    """Show a file or folder at the same path below a root. Returns where."""
    target = root / path.relative_to("/")
    if path.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    sh("mount", "--bind", path, target)
    return target


def sh(*argv: object) -> None:
    """Run a command, which has to succeed."""
    subprocess.run([str(word) for word in argv], check=True)
