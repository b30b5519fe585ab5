"""Runs on a host (`python3 -`): prints as JSON everything that a migration could leave there, in sections.

Identifiers that differ from one container to the next are masked, so that two looks can be compared line by line.
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
"""The looking itself, the test's connections and agents, and what changes its threads at will."""

KEPT = re.compile(r"/run/sealift/(agent-|clients|places)|/run/sealift/(restore|dumps|restore/\.lock)$")


def masked(text: str) -> str:
    """The text without identifiers."""
    for pattern, name in MASKS:
        text = re.sub(pattern, name, text)
    return text.strip()


def output(*command: str) -> list[str]:
    """What a command prints, masked and in order."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return sorted(masked(line) for line in done.stdout.splitlines())


def processes() -> list[str]:
    """Command lines of all processes but the look's own."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            except OSError:
                continue
            if words and not OWN.match(words):
                found.append(masked(words))
    return sorted(found)


def descriptors(name: str) -> int:
    """How many files the oldest process of that name has open."""
    found = subprocess.run(["pgrep", "-xo", name], capture_output=True, text=True, check=False).stdout.strip()
    return len(list(pathlib.Path(f"/proc/{found}/fd").iterdir())) if found else 0


def look() -> dict[str, list[str]]:
    """The sections."""
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
    sections = {
        "processes": processes(),
        "mounts": sorted(masked(line.split()[4]) for line in mounts),
        "files": sorted(
            masked(str(path))
            for path in pathlib.Path("/run/sealift").rglob("*")
            if not KEPT.search(str(path))
        ),
        "links": sorted(masked(line.split(":")[1]) for line in output("ip", "-o", "link")),
        "rules": output("ip", "rule"),
        # A bridge without ports loses its carrier a while after the last one has gone: that is no difference.
        "routes": [
            line.removesuffix(" linkdown") for line in output("ip", "-4", "route", "show", "table", "all")
        ],
        "packet rules": [line for line in output("iptables-save") if line.startswith("-A")],
    }
    if shutil.which("docker") and pathlib.Path("/var/run/docker.sock").exists():
        sections["containers"] = output("docker", "ps", "-a", "--format", "{{.Names}} {{.State}}")
        sections["volumes"] = output("docker", "volume", "ls", "-q")
        sections["networks"] = output("docker", "network", "ls", "--format", "{{.Name}}")
        layers = [path for path in pathlib.Path("/var/lib/docker/overlay2").iterdir() if path.name != "l"]
        sections["layers"] = [str(len(layers))]
        sections["container directories"] = [
            str(len(list(pathlib.Path("/var/lib/docker/containers").iterdir())))
        ]
        for daemon in ("dockerd", "containerd"):
            sections[f"descriptors of {daemon}"] = [str(descriptors(daemon))]
    return sections


print(json.dumps(look()))
