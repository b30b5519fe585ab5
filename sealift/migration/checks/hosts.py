"""Checks of the two hosts: processor, kernel, CRIU, Docker, and free space at the destination."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import docker

from sealift.host.docker import RUNTIME
from sealift.migration import image
from sealift.migration.checks.cpu_flags import HARMLESS
from sealift.migration.checks.finding import Findings, Resource
from sealift.model import Step
from sealift.network import foreign
from sealift_agent.constants import BLOB_STORE
from sealift_agent.protocol import FindLayer, TooDeep, TreeBytes

if TYPE_CHECKING:
    from sealift.migration.checks.finding import Finding
    from sealift.migration.checks.inspection import Endpoints, Inspection
    from sealift.migration.parties import Side
    from sealift_agent.protocol import HostFacts

CRIU_LEAST = (4, 2)
"""CRIU 4.1 can't dump an INET socket on Linux 6.16 and later (SO_PASSSEC is refused there)."""

KERNEL_LEAST = (5, 14)
"""For mounts without symbolic links (mount_setattr(2), MOUNT_ATTR_NOSYMFOLLOW), from which files are sent."""

TRIED = (((6, 1), (6, 12)),)
"""Pairs of kernels between which containers were moved in both directions (tests/system/test_vm_kernels.py).

What a container uses and only newer ones have is compared by itself (`processes._droppable`)."""

ALONE = ((6, 12), (6, 18))
"""The oldest and the newest kernel that both hosts had alike."""

FILLS_LATE = (27,)
"""From this version on Docker fills a container's network after the runtime's `create` (`destination.stand_in`)."""

NAME_BYTES = 4000
"""Rsync adds something before and after a name, and all of it has to fit into PATH_MAX."""

SPACE_MARGIN_BYTES = 64 << 20
LARGER = "Free some, or take a larger host"
COPIES_OF_IMAGE = 2
"""Docker unpacks the archive of an image, and makes layers of that beside it (moby, image/tarexport/load.go).

At the source it writes all layers into files before it sends the first (save.go)."""

IMAGES_PER_MEMORY = 2
"""At the destination the pages are in memory twice until the images are removed: as images and as pages."""


def source(side: Side, facts: HostFacts, *, limits_unreadable: bool) -> list[Finding]:
    """What the source must be able to do."""
    findings = Findings(side.name)
    if limits_unreadable:
        findings.no(
            Resource.CRIU,
            "it lacks CAP_SYS_RESOURCE, without which CRIU can't read the resource limits of other users' processes",
            "Grant it, or install tcc: Sealift then makes a library that reads them from /proc",
        )
    _guarded(findings, loaded=facts.guarded)
    if _release(facts.kernel) < KERNEL_LEAST:
        least = ".".join(map(str, KERNEL_LEAST))
        findings.no(
            Resource.KERNEL,
            f"its kernel {facts.kernel} can't mount files so that no link is followed, which is needed to send them",
            f"Start Linux {least} or later",
        )
    _tools(findings, facts)
    findings.yes(Resource.CRIU, f"{facts.criu}; {_tracking(facts)}")
    return findings.found


def destination(
    name: str, docker_there: dict[str, Any], here: HostFacts, there: HostFacts, container: dict[str, Any]
) -> list[Finding]:
    """What the destination must be and have for a container, given Docker's description and both hosts' facts."""
    findings = Findings(name)
    if here.machine != there.machine:
        findings.no(Resource.CPU, f"it is {there.machine}, the source {here.machine}", "Take another")
    if lacking := sorted(set(here.cpu_flags) - set(there.cpu_flags) - HARMLESS):
        findings.no(
            Resource.CPU,
            f"its CPU lacks {', '.join(lacking)}",
            "Programs may be using what the source's CPU has: take a destination with at least the same",
        )
    findings.yes(Resource.CPU, f"{there.machine}, with every flag that a program of the source may be using")
    _kernel(findings, here, there)
    _guarded(findings, loaded=there.guarded)
    _tools(findings, there)
    later = "memory can follow" if there.lazy else "memory can't follow afterwards (userfaultfd)"
    findings.yes(Resource.CRIU, f"{there.criu}; {later}")
    if not there.wrapper or RUNTIME not in docker_there["Runtimes"]:
        findings.no(
            Resource.DOCKER,
            f"Docker has no runtime {RUNTIME!r}",
            "Install /usr/libexec/sealift/runtime and register it in daemon.json (README, section Hosts)",
        )
    version = docker_there["ServerVersion"]
    if _release(version)[:1] >= FILLS_LATE and not there.interposable:
        findings.no(
            Resource.CRIU,
            f"Docker {version} needs the id of the restored process beforehand, and nothing here can make CRIU use it",
            "Install tcc: Sealift then makes a library for CRIU",
        )
    _stores(findings, docker_there, container)
    findings.yes(Resource.DOCKER, f"{version}, with the runtime {RUNTIME!r}")
    return findings.found


def _stores(findings: Findings, there: dict[str, Any], container: dict[str, Any]) -> None:
    """Whether both keep images in the same way. An image's id is another one in the other store."""
    names = {True: "containerd's image store", False: "a store of its own (overlay2)"}
    ours = not (container.get("GraphDriver") or {}).get("Data")
    theirs = BLOB_STORE in (there.get("DriverStatus") or [])
    if ours is not theirs:
        findings.no(
            Resource.DOCKER,
            f"its Docker keeps images in {names[theirs]}, the source's in {names[ours]}: an image has another id there",
            'Set "features": {"containerd-snapshotter": …} in /etc/docker/daemon.json to the same value on both hosts',
        )


def overlaps(endpoints: Endpoints) -> list[Finding]:
    """Whether an attested host's addresses, which its provider wrote, overlap the tunnel's networks."""
    found = []
    for side in (endpoints.source, endpoints.destination):
        if side is not None and endpoints.inventory.host(side.name).vm is not None:
            findings, network = Findings(side.name), endpoints.inventory.network
            if claims := foreign.find(side.connection, network, Step.PREFLIGHT):
                findings.no(Resource.NETWORK, foreign.sentence(network, claims), foreign.REMEDY)
            found += findings.found
    return found


def gateway(loaded: bool) -> list[Finding]:
    """What the gateway must have."""
    findings = Findings("gateway")
    _guarded(findings, loaded=loaded)
    return findings.found


def space(endpoints: Endpoints, inspection: Inspection) -> list[Finding]:
    """Free space at the destination for image, files, their names, and memory. Stores what is there already."""
    paths = [endpoints.source.facts.call(FindLayer(inspection.container["Id"]))]
    paths += [
        mount["Source"] for mount in inspection.container["Mounts"] if mount["Type"] in {"volume", "bind"}
    ]
    deep = _depth(endpoints, paths)
    if endpoints.destination is None or inspection.there is None:
        return deep
    container, there = inspection.container, inspection.there
    try:
        inspection.image_there = (
            endpoints.destination.docker.inspect_image(container["Image"])["Id"] == container["Image"]
        )
    except docker.errors.ImageNotFound:
        inspection.image_there = False
    inspection.file_bytes = endpoints.source.facts.call(TreeBytes(paths))
    archive_bytes = 0
    if not inspection.image_there:
        described = endpoints.source.docker.inspect_image(container["Image"])
        inspection.left_out = image.left_out(described, endpoints.source, endpoints.destination)
        inspection.image_bytes = image.missing_bytes(described, endpoints.source, inspection.left_out)
        archive_bytes = described["Size"]
    disk = SPACE_MARGIN_BYTES + inspection.file_bytes + COPIES_OF_IMAGE * inspection.image_bytes
    copies = 1 if endpoints.post_copy else IMAGES_PER_MEMORY
    memory = SPACE_MARGIN_BYTES + copies * inspection.uses.memory_bytes
    # Files without a name are in the images, which are in memory on both hosts, and on the disk again, or in memory.
    unlinked = sum(inspection.uses.unlinked.values())
    findings = Findings(endpoints.destination.name)
    _room(findings, "disk space for Docker", there.disk_free_bytes, disk + unlinked, LARGER)
    _room(findings, "memory", there.memory_available_bytes, memory + IMAGES_PER_MEMORY * unlinked, LARGER)
    findings.yes(Resource.SPACE, f"{disk >> 20} MiB of disk and {memory >> 20} MiB of memory are there")
    here = Findings(endpoints.source.name)
    if archive_bytes:
        free = inspection.here.disk_free_bytes
        _room(here, "disk space for Docker to save the image", free, archive_bytes, "Free some")
    if unlinked:
        _room(
            here, "memory", inspection.here.memory_available_bytes, SPACE_MARGIN_BYTES + unlinked, "Free some"
        )
    return [*deep, *findings.found, *here.found]


def _room(findings: Findings, of_what: str, free: int, needed: int, remedy: str) -> None:
    if free < needed:
        said = f"{free >> 20} MiB of {of_what} free, {needed >> 20} MiB needed"
        findings.no(Resource.SPACE, said, remedy)


def _depth(endpoints: Endpoints, paths: list[str]) -> list[Finding]:
    """Whether every file can be sent by its name."""
    findings = Findings(endpoints.source.name)
    for path in endpoints.source.facts.call(TooDeep(paths, NAME_BYTES)):
        findings.no(
            Resource.MOUNTS,
            f"in {path} there are files whose path is longer than {NAME_BYTES} bytes",
            f"rsync can't send them: `find {path} -mindepth {NAME_BYTES // 256}` shows them; move them up",
        )
    return findings.found


def _guarded(findings: Findings, *, loaded: bool) -> None:
    if not loaded:
        findings.no(
            Resource.NETWORK,
            "its rules that let only the tunnel's peers in at its tunnel address are not loaded",
            f"`sealift host prepare {findings.host}` installs them, and `/usr/libexec/sealift/network rules` there "
            "loads them again. Needs nftables",
        )
    findings.yes(Resource.NETWORK, "its tunnel address is for the tunnel's peers only")


def _tools(findings: Findings, facts: HostFacts) -> None:
    version = tuple(int(part) for part in re.findall(r"\d+", facts.criu or "")[:2])
    if not version:
        findings.no(Resource.CRIU, "CRIU is not installed", "Install CRIU 4.2 or later")
    elif version < CRIU_LEAST:
        least = ".".join(map(str, CRIU_LEAST))
        findings.no(Resource.CRIU, f"CRIU {facts.criu} is too old", f"Install CRIU {least} or later")
    elif facts.criu_problem:
        findings.no(Resource.CRIU, f"CRIU can't work: {facts.criu_problem}", "`criu check` there says more")
    if not facts.rsync:
        findings.no(Resource.DOCKER, "rsync is not installed", "Install it")


def _kernel(findings: Findings, here: HostFacts, there: HostFacts) -> None:
    ours, theirs = _release(here.kernel), _release(there.kernel)
    alike = ours == theirs and ALONE[0] <= ours <= ALONE[1]
    if not alike and (min(ours, theirs), max(ours, theirs)) not in TRIED:
        tried = ", ".join(" and ".join(f"{major}.{minor}" for major, minor in pair) for pair in TRIED)
        findings.unknown(
            Resource.KERNEL,
            f"its kernel is {there.kernel}, the source's {here.kernel}, and no move between these was tried",
            f"Tried were {tried}, in both directions. If CRIU can't restore there, the migration is rolled back",
        )
    if there.cgroup != here.cgroup:
        findings.unknown(
            Resource.KERNEL,
            f"it has control groups of version {there.cgroup}, the source of version {here.cgroup}",
            "That has not been tried: start both with the same",
        )
    findings.yes(Resource.KERNEL, f"{there.kernel}, and {here.kernel} at the source")


def _release(kernel: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", kernel)[:2])


def _tracking(facts: HostFacts) -> str:
    return "dirty pages are tracked" if facts.dirty_tracking else "no tracking of dirty pages, so no pre-copy"
