"""Runners of a workload: Docker with any of its runtimes, and bare runc in a network namespace of its own."""

from __future__ import annotations

import io
import json
import tarfile
from typing import TYPE_CHECKING, Any

from benchmarks.workloads.workload import (
    FILES_PER_FOLDER,
    SCRIPTS,
    SMALL_BYTES,
    SMALL_FILES,
    VOLUME,
    Workload,
)
from sealift.lab import images
from sealift_agent.constants import BRIDGE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sealift.host.ssh import Connection
    from sealift.inventory import Network

CRIU_SETTINGS = "/etc/criu/peer.conf"
SETTINGS = """tcp-established
network-lock nftables
ghost-limit 1073741824
link-remap
"""
"""What a peer's CRIU is told, in place of what Sealift keeps in runc.conf: it has to keep packets away by itself."""

RUNC_STATE = "/run/sealift/peer-runc"
BUNDLES = "/var/lib/docker/peer"
"""On the same storage as Docker's layers."""

FILL_VOLUME = """
docker volume create "$1" >/dev/null
head -c "${2}000000" /dev/urandom >"$(docker volume inspect --format '{{.Mountpoint}}' "$1")/data"
"""

CAPABILITIES = [
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL"),
    "CAP_AUDIT_WRITE",
]
"""Docker's defaults (`docker run` documentation, section "Runtime privilege and Linux capabilities")."""


def packed(workload: Workload) -> bytes:
    """The workload's scripts and small files as a tar archive that is laid over `/`."""
    contents = {f"{SCRIPTS}/{name}": content for name, content in workload.scripts.items()}
    for number in range(workload.small_files):
        name = f"{SMALL_FILES}/{number // FILES_PER_FOLDER}/{number}"
        contents[name] = f"{number}\n".encode().ljust(SMALL_BYTES)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in contents.items():
            entry = tarfile.TarInfo(name.lstrip("/"))
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


class Docker:
    """Containers of Docker's own, in the workloads' network."""

    def __init__(
        self,
        host: Connection,
        network: Network,
        options: Sequence[str] = (),
        *,
        say: Callable[[str], None],
    ) -> None:
        self.host, self.network, self.options, self.say = host, network, options, say

    def create(self, name: str, address: str, workload: Workload) -> str:
        """Create without starting. Returns the id."""
        tag = images.provide(self.host, workload.image, say=self.say)
        options = ["--name", name, "--network", self.network.docker_network, "--ip", address, *self.options]
        if workload.volume_mb:
            self.host.run(
                ["sh", "-euc", FILL_VOLUME, "sh", name, str(int(workload.volume_mb))], timeout_s=300
            )
            options += ["--volume", f"{name}:{VOLUME}"]
        made = self.host.run(["docker", "create", *options, tag, *workload.command]).stdout.strip()
        if workload.scripts or workload.small_files:
            self.host.run(["docker", "cp", "-", f"{name}:/"], stdin=packed(workload))
        return made

    def run(self, name: str, address: str, workload: Workload) -> None:
        """Create and start."""
        self.create(name, address, workload)
        self.host.run(["docker", "start", name])

    def execute(self, name: str, argv: Sequence[str], timeout_s: float) -> str:
        """Run a command in it; what it printed."""
        return self.host.run(["docker", "exec", name, *argv], timeout_s=timeout_s).stdout

    def remove(self, name: str) -> None:
        """End and remove, whatever its state, with a volume of its name."""
        self.host.run(["docker", "rm", "--force", "--volumes", name], check=False, timeout_s=120)
        self.host.run(["docker", "volume", "rm", "--force", name], check=False)


class Runc:
    """Containers of runc without any engine: a bundle unpacked from the image, a network namespace made by hand."""

    def __init__(self, host: Connection, network: Network, *, say: Callable[[str], None]) -> None:
        self.host, self.network, self.say = host, network, say

    def run(self, name: str, address: str, workload: Workload) -> None:
        """Unpack, connect, start."""
        self.unpack(name, workload)
        self.connect(name, address)
        self.launch(name)

    def launch(self, name: str) -> None:
        """Start what is unpacked and connected."""
        # What the processes hold open goes with them: no file of this host, so runc's complaints go to a log.
        script = (
            'runc --root "$1" --log "$2/runc.log" run --detach --bundle "$2" "$3" </dev/null >/dev/null 2>&1 || '
            '{ cat "$2/runc.log" >&2; exit 1; }'
        )
        self.host.run(["sh", "-euc", script, "sh", RUNC_STATE, f"{BUNDLES}/{name}", name])

    def unpack(self, name: str, workload: Workload) -> None:
        """The bundle: the image's files, the workload's scripts, a configuration like Docker's."""
        tag = images.provide(self.host, workload.image, say=self.say)
        script = (
            'mkdir -p "$1/rootfs"; c=$(docker create "$2"); docker export "$c" | tar -x -C "$1/rootfs"; '
            'docker rm "$c" >/dev/null; tar -x -C "$1/rootfs"; cd "$1"; rm -f config.json; runc spec; '
            "cat config.json"
        )
        bundle = f"{BUNDLES}/{name}"
        done = self.host.run(["sh", "-euc", script, "sh", bundle, tag], stdin=packed(workload), timeout_s=120)
        spec = configuration(json.loads(done.stdout), name, workload)
        self.host.put(f"{bundle}/config.json", json.dumps(spec).encode())

    def connect(self, name: str, address: str) -> None:
        """A network namespace with the workload's address, its veth pair in the workloads' bridge."""
        net = self.network
        script = """
        ip netns add "$1"; ip link add "$2" type veth peer name eth0 netns "$1"
        ip link set "$2" mtu "$6" master "$3" up; ip -n "$1" link set lo up; ip -n "$1" link set eth0 mtu "$6" up
        ip -n "$1" address add "$4" dev eth0; ip -n "$1" route add default via "$5"
        """
        mine = f"{address}/{net.workloads.prefixlen}"
        gateway = str(next(net.workloads.hosts()))
        veth = f"bench-{name}"[:15]
        self.host.run(["sh", "-euc", script, "sh", name, veth, BRIDGE, mine, gateway, str(net.mtu)])

    def execute(self, name: str, argv: Sequence[str], timeout_s: float) -> str:
        """Run a command in it; what it printed."""
        return self.host.run(["runc", "--root", RUNC_STATE, "exec", name, *argv], timeout_s=timeout_s).stdout

    def remove(self, name: str) -> None:
        """End it; its bundle and its network go too."""
        script = (
            'runc --root "$1" delete --force "$3" 2>/dev/null; ip netns del "$3" 2>/dev/null; '
            'ip link del "$4" 2>/dev/null; rm -rf --one-file-system "$2"'
        )
        veth = f"bench-{name}"[:15]
        words = ["sh", "-uc", script, "sh", RUNC_STATE, f"{BUNDLES}/{name}", name, veth]
        self.host.run(words, check=False)


def configuration(spec: dict[str, Any], name: str, workload: Workload) -> dict[str, Any]:
    """The sample configuration of runc, made into what Docker would run."""
    user = {"root": 0, "workload": 1000}[workload.image.user]
    allowed = CAPABILITIES if user == 0 else []
    return configured(spec, name, workload.command, user=user, allowed=allowed, bounding=CAPABILITIES)


def configured(
    spec: dict[str, Any],
    name: str,
    command: Sequence[str],
    *,
    user: int,
    allowed: Sequence[str],
    bounding: Sequence[str],
) -> dict[str, Any]:
    """The sample configuration of runc with a command, a user and capabilities."""
    spec["process"] |= {
        "terminal": False,
        "user": {"uid": user, "gid": user},
        "args": list(command),
        "env": [f"PATH={images.PATH}", "HOME=/"],
        "capabilities": {
            "bounding": list(bounding),
            "effective": list(allowed),
            "permitted": list(allowed),
        },
        "rlimits": [],
    }
    spec["root"] = {"path": "rootfs", "readonly": False}
    spec["hostname"] = name
    spec["annotations"] = {"org.criu.config": CRIU_SETTINGS}
    spec["mounts"] = [mount for mount in spec["mounts"] if mount["type"] != "cgroup"]
    for namespace in spec["linux"]["namespaces"]:
        if namespace["type"] == "network":
            namespace["path"] = f"/run/netns/{name}"
    spec["linux"]["namespaces"] = [n for n in spec["linux"]["namespaces"] if n["type"] != "cgroup"]
    spec["linux"]["cgroupsPath"] = f"/sealift-peer/{name}"
    return spec
