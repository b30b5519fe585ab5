"""Runs on a host (`python3 -`). Prints as JSON, in sections, everything that a migration could leave there.

Identifiers that differ between containers are masked, so that two states can be compared line by line.
"""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess

MASKS = (
    (r"[0-9a-f]{64}", "ID"),
    (r"netns/[0-9a-f]{12}", "netns/ID"),
    (r"veth[0-9a-f]{7}(@if\d+)?", "vethID"),
    (r"@if\d+", ""),
    (r" linkdown\b", ""),
)
OWN = re.compile(r"^(sshd\b|/usr/s?bin/sshd|/usr/lib/openssh/|python3 (-|/run/sealift/agent-)|wireguard-go)")
"""This script, the test's connections, agents (which have a section of their own), and programs whose number of
threads changes at any time."""

AGENT = re.compile(r"^python3 /run/sealift/agent-\S+ (?P<role>\w+)")
DAEMONS = ("dockerd", "containerd", "wireguard-go")
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - looked at, not used
RUNTIME = ("/run/docker", "/run/containerd", "/run/runc")
"""The state of runc, containerd and Docker about running containers."""

KEPT = re.compile(r"/run/sealift/(agent-|interposed-|clients|places|upper)|/run/sealift/(restore|dumps)$")
"""What stays on purpose, and the upper layer of a VM's root file system, whose /tmp is examined separately."""


def masked(text: str) -> str:
    """The text without identifiers."""
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text.strip()


def output(*command: str) -> list[str]:
    """The lines that a command prints, masked and sorted."""
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return sorted(masked(line) for line in done.stdout.splitlines())


def commands() -> list[str]:
    """Command lines of all processes but this one."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if words:
                found.append(masked(words))
    return sorted(found)


def oldest(name: str) -> pathlib.Path | None:
    """The oldest process of that name, as a directory of /proc."""
    found = subprocess.run(["pgrep", "-xo", name], capture_output=True, text=True, check=False).stdout.strip()
    return pathlib.Path("/proc", found) if found else None


def anonymous_mb(process: pathlib.Path) -> int:
    """Private memory of a process, in megabytes."""
    found = re.search(
        r"^RssAnon:\s+(\d+) kB$", (process / "status").read_text(errors="replace"), re.MULTILINE
    )
    return int(found[1]) * 1024 // 1_000_000 if found else 0


def below(*folders: str) -> list[str]:
    """Everything in these folders, masked."""
    return sorted(masked(str(path)) for folder in folders for path in pathlib.Path(folder).rglob("*"))


def entries(folder: str) -> list[str]:
    """The number of entries of a folder. Nothing if it does not exist."""
    return [str(len(list(pathlib.Path(folder).glob("*"))))]


def state() -> dict[str, list[str]]:
    """The sections."""
    mounts = os.fsdecode(pathlib.Path("/proc/self/mountinfo").read_bytes()).split("\n")[:-1]
    running = commands()
    sections = {
        "processes": [words for words in running if not OWN.match(words)],
        "agents": [found["role"] for words in running if (found := AGENT.match(words))],
        "temporary files": below(*TEMPORARY),
        "shared memory": [str(len(pathlib.Path("/proc/sysvipc/shm").read_text().splitlines()) - 1)],
        "mounts": sorted(masked(line.split(" ")[4]) for line in mounts),
        "files": sorted(
            masked(str(path))
            for path in pathlib.Path("/run/sealift").rglob("*")
            if not KEPT.search(str(path))
        ),
        "links": sorted(masked(line.split(":")[1]) for line in output("ip", "-o", "link")),
        "rules": output("ip", "rule"),
        # A bridge loses its carrier some time after its last port. That is no difference.
        "routes": [
            line.removesuffix(" linkdown") for line in output("ip", "-4", "route", "show", "table", "all")
        ],
        "packet rules": [line for line in output("iptables-save") if line.startswith("-A")],
    }
    if shutil.which("docker") and pathlib.Path("/var/run/docker.sock").exists():
        sections["containers"] = output("docker", "ps", "-a", "--format", "{{.Names}} {{.State}}")
        sections["volumes"] = output("docker", "volume", "ls", "-q")
        sections["networks"] = output("docker", "network", "ls", "--format", "{{.Name}}")
        # Once a minute Docker removes mount points of namespaces that have ended. Mounts themselves are listed above.
        own = [path for path in below(*RUNTIME) if "/ID" in path]
        sections["runtime"] = [path for path in own if not path.startswith("/run/docker/netns/")]
        sections["control groups"] = output(
            "find", "/sys/fs/cgroup", "-type", "d", "-regex", r".*[0-9a-f]\{64\}.*"
        )
        layers = [path for path in pathlib.Path("/var/lib/docker/overlay2").iterdir() if path.name != "l"]
        sections["layers"] = [str(len(layers))]
        sections["container directories"] = entries("/var/lib/docker/containers")
        sections["writable layers"] = entries("/var/lib/docker/image/overlay2/layerdb/mounts")
    for daemon in DAEMONS:
        if process := oldest(daemon):
            sections[f"descriptors of {daemon}"] = entries(f"{process}/fd")
            if daemon != "wireguard-go":  # it keeps as many buffers as it has ever needed
                sections[f"megabytes of {daemon}"] = [str(anonymous_mb(process))]
    return sections


print(json.dumps(state()))
