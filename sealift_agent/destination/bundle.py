"""What is changed in the bundle that Docker has made, before runc restores into it."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from .. import cgroup

if TYPE_CHECKING:
    from pathlib import Path


CONFIG = "config.json"


def read(bundle: Path) -> dict[str, Any]:
    """The specification that a bundle has (OCI runtime specification)."""
    spec: dict[str, Any] = json.loads((bundle / CONFIG).read_text())
    return spec


def write(bundle: Path, spec: dict[str, Any]) -> None:
    """Put another one in its place."""
    (bundle / CONFIG).write_text(json.dumps(spec))


def has_terminal(spec: dict[str, Any]) -> bool:
    """Whether the container has a terminal (`docker run -t`)."""
    return bool(spec["process"].get("terminal"))


def follow_links(spec: dict[str, Any]) -> None:
    """Name the sources of a bundle's bind mounts by their real paths. Runc follows links, CRIU binds the link itself.

    For example, Debian's /usr/bin/docker-init is a link, which `docker run --init` mounts.
    """
    for mount in spec["mounts"]:
        if mount["type"] == "bind":
            mount["source"] = os.path.realpath(mount["source"])


def has_own_cgroup_namespace(spec: dict[str, Any]) -> bool:
    """Whether the container gets a cgroup namespace, as it does by default on version 2."""
    return any(each["type"] == "cgroup" for each in spec["linux"]["namespaces"])


def show_own_groups(spec: dict[str, Any]) -> None:
    """Have /sys/fs/cgroup show the container's own groups (version 1, without a cgroup namespace).

    It is a bind mount for each hierarchy there. Runc makes the list of them, and asks for its own groups meanwhile: a
    container that it creates has them by then, but at a restore they are runc's, which is the host's root
    (`getCgroupMounts` in runc's libcontainer, 1.1 to 1.3). So the list is written out here. The groups are made now:
    CRIU binds them.
    """
    linux = spec["linux"]
    if not cgroup.is_first_version() or has_own_cgroup_namespace(spec):
        return
    listed = [mount for mount in spec["mounts"] if mount["type"] == "cgroup"]
    if not listed:
        return
    groups = cgroup.of_bundle(linux["cgroupsPath"])
    binds = [
        {
            "destination": f"{mount['destination']}/{group.relative_to(cgroup.ROOT).parts[0]}",
            "type": "bind",
            "source": str(group),
            "options": ["rbind", *mount.get("options", [])],
        }
        for mount in listed
        for group in groups
    ]
    # Runc makes the mount points that a tmpfs does not have, in the container's files. These come with CRIU's images.
    on_tmpfs = {"destination": "/sys", "type": "tmpfs", "source": "tmpfs", "options": []}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount not in listed] + [on_tmpfs, *binds]
