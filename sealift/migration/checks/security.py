"""Checks of what confines a container: the users that Docker gives it, seccomp, AppArmor and SELinux.

What is true of Docker comes from its description of itself (`docker info`), what is true of kernels from their facts.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from sealift.migration.checks.finding import Findings, Resource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.migration.checks.finding import Finding
    from sealift_agent.protocol import HostFacts, Uses

DOCKERS_PROFILE = "docker-default"
"""Docker makes it from a template of its own version, and loads it at its start."""

MODE = re.compile(r" \((\w+)\)$")
"""After a profile's name in /proc/PID/attr/apparmor/current: enforce, complain, kill, or others."""


def of_docker(host: str, info: Mapping[str, Any], container: Mapping[str, Any]) -> list[Finding]:
    """What a host's Docker does to all containers and CRIU does not restore.

    `info` is Docker's description of itself, with `SecurityOptions`; `container` that of the container.
    """
    findings = Findings(host)
    own = container["HostConfig"]
    names = _options(info)
    if "rootless" in names:
        findings.no(
            Resource.DOCKER,
            "Docker runs without root, and CRIU needs root",
            "Run the container under a Docker that root has started",
        )
    if "selinux" in names and "label=disable" not in (own.get("SecurityOpt") or []):
        findings.no(
            Resource.SELINUX,
            "Docker labels processes and files for SELinux, which has not been tried with Sealift",
            "Start the container with `--security-opt label=disable`",
        )
    return findings.found


def users(host: str, info: Mapping[str, Any], container: Mapping[str, Any]) -> list[Finding]:
    """Whether the container has a user namespace of its own, at the source."""
    findings = Findings(host)
    if _shifted(info) and container["HostConfig"].get("UsernsMode") != "host":
        findings.no(
            Resource.NAMESPACES,
            "Docker gives all containers a user namespace (userns-remap), and other owners to their files",
            "`docker commit` keeps what it has written; start that with `--userns=host`, and give the files of its "
            f"volumes their owners without the shift by {_shifted(info).partition('.')[0]} (`chown`)",
        )
    return findings.found


def owners(host: str, here: Mapping[str, Any], there: Mapping[str, Any]) -> list[Finding]:
    """Whether the files of images belong to the same users on both hosts. Docker shifts them all for `userns-remap`.

    So they are seen shifted by a container with `--userns=host`.
    """
    findings, ours, theirs = Findings(host), _shifted(here), _shifted(there)
    if ours != theirs:
        said = {True: "not shifted", False: "shifted by {}"}
        findings.no(
            Resource.NAMESPACES,
            f"the owners of an image's files are {said[not theirs].format(theirs)} there, and "
            f"{said[not ours].format(ours)} at the source (userns-remap)",
            "Take a destination with the same `userns-remap` in daemon.json, and the same lines in /etc/subuid and "
            "/etc/subgid. (Docker shows other containers after a change of it, and the old ones again once it is "
            "changed back)",
        )
    return findings.found


def _options(info: Mapping[str, Any]) -> set[str]:
    """The names in Docker's `SecurityOptions`, such as `name=seccomp,profile=builtin`."""
    return {option.partition(",")[0].removeprefix("name=") for option in info.get("SecurityOptions") or []}


def _shifted(info: Mapping[str, Any]) -> str:
    """The first user and group of `userns-remap`, as `UID.GID`, by which Docker names its directory; else nothing.

    (moby, daemon/daemon_unix.go, setupDaemonRoot)
    """
    return PurePosixPath(info.get("DockerRootDir", "")).name if "userns" in _options(info) else ""


def of_processes(
    uses: Uses, here: tuple[str, HostFacts], there: tuple[str, HostFacts | None]
) -> list[Finding]:
    """What confines the container's processes, by names and facts of both hosts. The destination's may be unknown."""
    source, destination = Findings(here[0]), Findings(there[0])
    filtered = len(uses.states.get("seccomp", []))
    source.yes(Resource.SECCOMP, f"filters on {filtered} processes" if filtered else "no filter")
    if careful := uses.states.get("speculation"):
        source.unknown(
            Resource.PROCESSES,
            f"they have asked the processor to speculate less (PR_SET_SPECULATION_CTRL): {', '.join(careful)}",
            "CRIU does not restore that: afterwards they run as others do, until they ask again",
        )
    _apparmor(destination, uses.profiles, here[1], there[1])
    _selinux(destination, here[1], there[1])
    return [*source.found, *destination.found]


def _apparmor(
    findings: Findings, used: Mapping[str, list[str]], here: HostFacts, there: HostFacts | None
) -> None:
    if not used:
        findings.yes(Resource.APPARMOR, "no profile")
        return
    said = ", ".join(f"{who} ({profile})" for profile, holders in used.items() for who in holders)
    if there is None:
        findings.unknown(
            Resource.APPARMOR,
            f"the profile of {said} must be loaded there",
            "Check again once it can be examined",
        )
        return
    if there.profiles is None:
        findings.no(
            Resource.APPARMOR,
            f"it has no AppArmor, and there are processes under a profile: {said}",
            "CRIU restores none without it: take a destination with AppArmor on, or start the container with "
            "`--security-opt apparmor=unconfined`",
        )
        return
    names = sorted({name for profile in used for name in loaded_names(profile)})
    missing = [name for name in names if name not in there.profiles]
    changed = [name for name in names if not _same(name, here, there) and name not in missing]
    if missing:
        findings.no(
            Resource.APPARMOR,
            f"it has not loaded the profile {', '.join(missing)}",
            "Load it there from the source's file: `apparmor_parser --replace FILE`",
        )
    if own := [name for name in changed if name != DOCKERS_PROFILE]:
        findings.no(
            Resource.APPARMOR,
            f"it has loaded another policy as the profile {', '.join(own)}",
            "One file is another policy for each kernel. Copy the source's, "
            "/sys/kernel/security/apparmor/policy/profiles/NAME.*/raw_data, and load that there: "
            "`apparmor_parser --binary --replace FILE`",
        )
    elif changed:
        findings.unknown(
            Resource.APPARMOR,
            f"its Docker has made another {DOCKERS_PROFILE}",
            "Each version of Docker, AppArmor and kernel has its own: what the container may do can differ slightly",
        )
    findings.yes(Resource.APPARMOR, f"both hosts have the same {', '.join(names)}")


def loaded_names(label: str) -> list[str]:
    """The profiles that a process's label names: several if they are stacked. A child belongs to its parent's policy.

    For example `web//worker//&site (enforce)` are web and site (apparmor(7), apparmor_stack(7)).
    """
    return [name.partition("//")[0] for name in MODE.sub("", label).split("//&")]


def _same(name: str, here: HostFacts, there: HostFacts) -> bool:
    """Whether both hosts have the same policy. One whose content the kernel does not show is not known to be."""
    ours, theirs = ((facts.profiles or {}).get(name) for facts in (here, there))
    return bool(ours) and ours == theirs


def _selinux(findings: Findings, here: HostFacts, there: HostFacts | None) -> None:
    if here.selinux and there is not None and not there.selinux:
        findings.no(
            Resource.SELINUX,
            f"it has no SELinux, and the source has ({here.selinux})",
            "CRIU restores no process's label without it: take a destination that has SELinux on",
        )
    elif here.selinux or (there is not None and there.selinux):
        where = (
            f"here ({there.selinux})"
            if there is not None and there.selinux
            else f"at the source ({here.selinux})"
        )
        findings.unknown(
            Resource.SELINUX,
            f"it is on {where}",
            "This has not been tried. If CRIU can't restore a label, the migration is rolled back",
        )
    findings.yes(Resource.SELINUX, "not in use")
