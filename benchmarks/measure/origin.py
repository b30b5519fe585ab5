"""Where a row comes from: machine, kernel, versions, revision."""

from __future__ import annotations

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.testbed import SOURCE
from sealift.errors import SealiftError
from sealift.process import run

if TYPE_CHECKING:
    from benchmarks.testbed import Testbed

VERSIONS = """
echo "docker $(docker version --format '{{.Server.Version}}')"
echo "runc $(runc --version | sed -n 's/^runc version //p')"
echo "criu $(criu --version | sed -n 's/^Version: //p')"
"""


def origin(testbed: Testbed) -> dict[str, Any]:
    """Columns of a row that are the same for all rows of a testbed."""
    lab = testbed.inventory.lab
    said = testbed.sh(SOURCE, VERSIONS).splitlines()
    own = [f"sealift {version('sealift')}", f"python {platform.python_version()}"]
    return {
        "lab": testbed.lab_kind,
        "accelerator": lab.accelerator if lab else None,
        "machine": machine(),
        "kernel": testbed.sh(SOURCE, "uname -r"),
        "versions": ", ".join([*own, *said]),
        "revision": revision(),
    }


def machine() -> str:
    """The processor's name and how many there are."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    name = names[0].split(":", 1)[1].strip() if names else platform.processor()
    return f"{name}, {os.cpu_count()} processors"


CODE = ("sealift", "sealift_agent", "sealift_guest", "tasks", "flows")
"""What a migration is made of. Documents, tests and measurements may change beside it."""


@cache
def code() -> str:
    """A name of the code that migrates, the same for all revisions in which it is the same; as `revision` otherwise."""
    here = Path(__file__).parents[2]
    try:
        trees = run(["git", "-C", here, "rev-parse", *(f"HEAD:{folder}" for folder in CODE)]).stdout
        changed = run(["git", "-C", here, "status", "--porcelain", "--", *CODE]).stdout.strip()
    except SealiftError:
        return "unknown"
    return hashlib.sha256(trees.encode()).hexdigest()[:12] + ("+" if changed else "")


@cache
def revision() -> str:
    """Git's name of this tree, with a + where it had changes; `unknown` in an installed wheel."""
    here = Path(__file__).parent
    try:
        commit = run(["git", "-C", here, "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        changed = run(["git", "-C", here, "status", "--porcelain", "--untracked-files=no"]).stdout.strip()
    except SealiftError:
        return "unknown"
    return commit + ("+" if changed else "")
