"""The destination's container: created from Docker's description of the source's, and equal in all that matters."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.host.docker import RUNTIME

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.migration.binds import Binds


@dataclass(frozen=True)
class Counterpart:
    """`body` is the request that creates it, `volumes` the names of its volumes, `binds` pairs of host paths."""

    body: dict[str, Any]
    volumes: tuple[str, ...]
    binds: tuple[tuple[str, str], ...]


def counterpart(container: Mapping[str, Any], binds: Binds, network: str) -> Counterpart:
    """Describe the counterpart of a container, given `docker inspect` of it."""
    body = copy.deepcopy(dict(container["Config"]))
    host = copy.deepcopy(dict(container["HostConfig"]))
    parts = parts_of_volumes(container)
    volumes, bound, mounts, whole = [], [], [], []
    for mount in container["Mounts"]:
        if mount["Type"] == "volume":
            volumes.append(mount["Name"])
            if mount["Destination"] in parts:
                whole.append(_part(mount, parts[mount["Destination"]]))
            else:
                mounts.append(_bind(mount["Name"], mount))
        elif mount["Type"] == "bind":
            there = binds.target(mount["Source"])
            if there is not None:  # the preflight has refused the others
                bound.append((mount["Source"], there))
                mounts.append(_bind(there, mount))
    host["Binds"] = mounts
    host["Mounts"] = [mount for mount in host.get("Mounts") or [] if mount["Type"] == "tmpfs"] + whole
    host["Runtime"] = RUNTIME
    # The source's policy is set when the copy has won. Otherwise Docker would restart a copy that ends, from its files.
    host["RestartPolicy"] = {"Name": "no", "MaximumRetryCount": 0}
    host["AutoRemove"] = bool(host.get("AutoRemove"))
    body["HostConfig"] = host
    body["NetworkingConfig"] = {"EndpointsConfig": {network: _endpoint(container, network)}}
    return Counterpart(body, tuple(dict.fromkeys(volumes)), tuple(dict.fromkeys(bound)))


def parts_of_volumes(container: Mapping[str, Any]) -> dict[str, str]:
    """Where only a part of a volume is mounted (`volume-subpath`): the part's path in it, by the mount point.

    Docker says it only in what the container was created from.
    """
    found = {}
    for mount in container["HostConfig"].get("Mounts") or []:
        options = mount.get("VolumeOptions") or {}
        if mount["Type"] == "volume" and options.get("Subpath"):
            found[mount["Target"]] = options["Subpath"]
    return found


def _part(mount: Mapping[str, Any], part: str) -> dict[str, Any]:
    """A mount of a part of a volume, which `Binds` can't say."""
    return {
        "Type": "volume",
        "Source": mount["Name"],
        "Target": mount["Destination"],
        "ReadOnly": not mount["RW"],
        "VolumeOptions": {"NoCopy": True, "Subpath": part},
    }


def _bind(origin: str, mount: Mapping[str, Any]) -> str:
    options = [
        word for word in (mount.get("Mode") or "").split(",") if word and word not in {"ro", "rw", "z", "Z"}
    ]
    options.insert(0, "rw" if mount["RW"] else "ro")
    if mount["Type"] == "volume":
        options.append("nocopy")  # its files come from the source, not from the image
    return f"{origin}:{mount['Destination']}:{','.join(dict.fromkeys(options))}"


def _endpoint(container: Mapping[str, Any], network: str) -> dict[str, Any]:
    endpoint = container["NetworkSettings"]["Networks"][network]
    short = container["Id"][:12]  # Docker adds it as an alias by itself, also for the new id
    return {
        "IPAMConfig": {"IPv4Address": endpoint["IPAddress"]},
        "Aliases": [alias for alias in endpoint.get("Aliases") or [] if alias != short],
        "DriverOpts": endpoint.get("DriverOpts"),
        "MacAddress": endpoint.get("MacAddress"),
    }
