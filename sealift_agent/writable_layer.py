"""Where a container's writable layer is: a directory that overlayfs puts on top of the image's layers."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from . import docker_api
from .wire import AgentError

SOCKETS = (Path("/run/containerd/containerd.sock"), Path("/run/docker/containerd/containerd.sock"))
"""Containerd's own, and that of one which dockerd has started itself."""

NAMESPACE = "moby"
"""In which Docker keeps all that it has in containerd."""

UPPER = re.compile(r"[ ,]upperdir=([^,\n]+)")


def find(container: str) -> str:
    """The directory. AgentError if the container's files are not on overlayfs.

    Docker says it itself where it keeps layers (overlay2). Where containerd keeps them (Docker's containerd image
    store, the default from Docker 29 on), the container's snapshot has the container's id, and containerd says what
    would be mounted.
    """
    described = docker_api.call("GET", f"/containers/{container}/json")
    driver = described.get("GraphDriver") or {}
    if upper := (driver.get("Data") or {}).get("UpperDir"):
        return str(upper)
    snapshotter = str(driver.get("Name") or described.get("Driver") or "overlayfs")
    for place in filter(Path.exists, SOCKETS):
        words = [
            "ctr",
            "--address",
            str(place),
            "--namespace",
            NAMESPACE,
            "snapshots",
            "--snapshotter",
            snapshotter,
        ]
        done = subprocess.run(
            [*words, "mounts", "/nowhere", described["Id"]], capture_output=True, text=True, check=False
        )
        if done.returncode == 0 and (found := UPPER.search(done.stdout)) is not None:
            return found[1]
    raise AgentError(
        f"the container's files are kept by {snapshotter}, which has no directory for what it has written: "
        "Sealift needs Docker's overlay2, or containerd's overlayfs and its program `ctr`",
        "preflight",
    )
