"""Preflight: everything that would stop the migration, found before anything is touched, and all of it at once."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker

from sealift.errors import Refused
from sealift.host.docker import RUNTIME
from sealift.migration.counterpart import bind_target
from sealift.model import Choice, Step, Strategy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.migration.session import Session

CRIU_LEAST = (4, 2)
"""CRIU 4.1 can't dump an INET socket on Linux 6.16 and later (SO_PASSSEC is refused there)."""

SPACE_MARGIN_BYTES = 64 << 20
LAZY_FROM_BYTES = 32 << 20
"""Less memory is read in faster before the start than CRIU's daemon for filling it in afterwards is started."""

IMAGES_PER_MEMORY = 2
"""At the destination the pages are in memory twice until the images are wiped: as images and as pages."""


@dataclass(frozen=True)
class Finding:
    """One thing in the way: where, what, and what to do about it."""

    host: str
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.host}: {self.what}. {self.remedy}"


def preflight(session: Session) -> list[str]:
    """Look at the container and both hosts. Returns warnings; Refused carries every reason."""
    container = _container(session)
    with ThreadPoolExecutor(2) as pool:
        looks = [pool.submit(side.facts.call, "host") for side in (session.source, session.destination)]
    source, destination = (look.result() for look in looks)
    uses = session.source.facts.call("container", container=container["Id"])
    session.found.container = container
    session.found.memory_bytes = uses["memory_bytes"]
    findings = [
        *_network(session, container),
        *_configuration(session, container),
        *_uses(session, uses),
        *_hosts(session, source, destination),
        *_taken(session, container),
        *_binds(session, container),
        *_volumes(session, container),
    ]
    if not findings:
        findings = _space(session, container, destination)
    if findings:
        raise Refused(
            f"{session.request.container} can't be migrated: " + "; ".join(map(str, findings)),
            reasons=tuple(map(str, findings)),
            step=Step.PREFLIGHT,
        )
    missing = [name for name, facts in _named(session, source, destination) if not facts["lazy"]]
    session.found.choice = choose(session.request.strategy, source["dirty_tracking"], missing)
    session.found.lazy_restore = destination["lazy"] and uses["memory_bytes"] >= LAZY_FROM_BYTES
    session.found.warnings = _warnings(container)
    return session.found.warnings


def choose(asked: Strategy, dirty_tracking: bool, not_lazy: Sequence[str] = ()) -> Choice:
    """The strategy. Refused when the one asked for can't be had.

    `not_lazy` names the hosts where CRIU can't bring a process's memory after its start.
    """
    if asked == Strategy.POST_COPY and not_lazy:
        why = (
            f"CRIU can't work with userfaultfd on {' and '.join(not_lazy)}, so memory can't follow afterwards"
        )
        raise Refused(why, step=Step.PREFLIGHT, remedy="Take --strategy auto", reasons=(why,))
    if asked in {Strategy.STOP_AND_COPY, Strategy.POST_COPY}:
        return Choice(strategy=asked, why="asked for")
    if dirty_tracking:
        return Choice(strategy=Strategy.PRE_COPY, why="the source's kernel tracks dirty pages")
    why = (
        "the source's kernel does not track dirty pages (CONFIG_MEM_SOFT_DIRTY), so there can be no pre-dump"
    )
    if asked == Strategy.PRE_COPY:
        raise Refused(
            why, step=Step.PREFLIGHT, remedy="Take --strategy stop-and-copy or auto", reasons=(why,)
        )
    return Choice(strategy=Strategy.STOP_AND_COPY, why=why)


def _container(session: Session) -> dict[str, Any]:
    name = session.request.container
    try:
        container: dict[str, Any] = session.source.docker.inspect_container(name)
    except docker.errors.NotFound:
        container = {}
    if not container:
        there = _inspect(session.destination.docker, name)
        if there and there["State"]["Running"]:
            raise _refusal(
                session.destination.name, f"the container {name!r} is there already", "Nothing to do"
            )
        raise _refusal(session.source.name, f"there is no container {name!r}", "`docker ps` there lists them")
    state = container["State"]
    if not state["Running"]:
        raise _refusal(
            session.source.name,
            f"the container {name!r} does not run ({state['Status']})",
            "Start it, or move it with `docker save` and `docker cp`: there is nothing live in it",
        )
    if state["Paused"]:
        raise _refusal(session.source.name, f"the container {name!r} is paused", "`docker unpause` it first")
    return container


def _refusal(host: str, what: str, remedy: str) -> Refused:
    return Refused(what, host=host, remedy=remedy, step=Step.PREFLIGHT, reasons=(what,))


def _inspect(api: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(api.inspect_container(name))
    except docker.errors.NotFound:
        return None


def _network(session: Session, container: dict[str, Any]) -> list[Finding]:
    host, network = session.source.name, session.inventory.network.docker_network
    attached = container["NetworkSettings"]["Networks"]
    if set(attached) != {network}:
        return [
            Finding(
                host,
                f"the container is on the networks {', '.join(sorted(attached)) or 'none'}",
                f"Only one that is on the network {network!r}, and on no other, keeps its address: "
                f"start it with `--network {network} --ip ADDRESS`",
            )
        ]
    session.found.address = address = attached[network]["IPAddress"]
    route = session.gateway.call("show")["routes"].get(address)
    if route is None:
        return [
            Finding(
                "gateway",
                f"{address} is assigned to no host",
                f"`sealift network assign {address} {host}` makes the gateway send its packets there",
            )
        ]
    if route["peer"] != session.inventory.host(host).wireguard_key:
        return [
            Finding(
                "gateway",
                f"{address} belongs to {route['host']}",
                "Two containers can't have one address: give this one another",
            )
        ]
    return []


def _configuration(session: Session, container: dict[str, Any]) -> list[Finding]:
    host, config = container["HostConfig"], container["Config"]
    found = []

    def refuse(what: str, remedy: str) -> None:
        found.append(Finding(session.source.name, what, remedy))

    if config["Tty"]:
        refuse(
            "the container has a terminal attached (-t)",
            "CRIU can't move a terminal whose other end is outside: start it without -t",
        )
    if host["Privileged"]:
        refuse("the container is privileged", "Grant it the capabilities that it needs instead")
    if host["Devices"] or host.get("DeviceRequests"):
        names = [device["PathOnHost"] for device in host["Devices"] or []] or ["a GPU"]
        refuse(
            f"the container has devices: {', '.join(names)}", "A device stays where it is: start it without"
        )
    shared = {"PidMode": "process", "IpcMode": "IPC", "UTSMode": "UTS", "UsernsMode": "user"}
    for setting, namespace in shared.items():
        if host.get(setting, "").startswith(("host", "container:", "shareable")):
            refuse(
                f"the container shares its {namespace} namespace ({host[setting]})",
                "Only a namespace of its own can move with it",
            )
    if host.get("VolumesFrom"):
        refuse("the container takes volumes from another (--volumes-from)", "Name the volumes instead")
    return found


def _uses(session: Session, uses: dict[str, Any]) -> list[Finding]:
    found = []

    def refuse(what: str, remedy: str) -> None:
        found.append(Finding(session.source.name, what, remedy))

    if uses["io_uring"]:
        refuse(
            f"io_uring is in use by {', '.join(uses['io_uring'])}",
            "CRIU can't dump it: switch it off in the program, or with `sysctl kernel.io_uring_disabled=2`",
        )
    if uses["limits_unreadable"]:
        refuse(
            "it lacks CAP_SYS_RESOURCE, without which CRIU can't read the resource limits of other users' processes",
            "Grant it, or install tcc: Sealift then makes a library that reads them from /proc",
        )
    if uses["devices"]:
        refuse(f"devices are open: {', '.join(uses['devices'])}", "A device stays where it is: close it")
    if uses["terminals"]:
        refuse(
            f"a terminal is open: {', '.join(uses['terminals'])}",
            "End the `docker exec -t` session that it belongs to",
        )
    return found


def _named(
    session: Session, source: dict[str, Any], destination: dict[str, Any]
) -> list[tuple[str, dict[str, Any]]]:
    return [(session.source.name, source), (session.destination.name, destination)]


def _hosts(session: Session, source: dict[str, Any], destination: dict[str, Any]) -> list[Finding]:
    found = []
    for name, facts in _named(session, source, destination):
        version = tuple(int(part) for part in re.findall(r"\d+", facts["criu"] or "")[:2])
        if not version:
            found.append(Finding(name, "CRIU is not installed", "Install CRIU 4.2 or later"))
        elif version < CRIU_LEAST:
            least = ".".join(map(str, CRIU_LEAST))
            found.append(Finding(name, f"CRIU {facts['criu']} is too old", f"Install CRIU {least} or later"))
        elif facts["criu_problem"]:
            found.append(
                Finding(name, f"CRIU can't work: {facts['criu_problem']}", "`criu check` there says more")
            )
        if not facts["rsync"]:
            found.append(Finding(name, "rsync is not installed", "Install it"))
    name = session.destination.name
    if not destination["wrapper"] or RUNTIME not in session.destination.docker.info()["Runtimes"]:
        found.append(
            Finding(
                name,
                f"Docker has no runtime {RUNTIME!r}",
                "Install /usr/libexec/sealift/runtime and register it in daemon.json (README, section Hosts)",
            )
        )
    if source["machine"] != destination["machine"]:
        found.append(
            Finding(name, f"it is {destination['machine']}, the source {source['machine']}", "Take another")
        )
    if lacking := sorted(set(source["cpu_flags"]) - set(destination["cpu_flags"]) - _HARMLESS):
        found.append(
            Finding(
                name,
                f"its CPU lacks {', '.join(lacking)}",
                "Programs may be using what the source's CPU has: take a destination with at least the same",
            )
        )
    return found


_HARMLESS = frozenset(
    [
        "constant_tsc",
        "nonstop_tsc",
        "tsc_known_freq",
        "tsc_reliable",
        "rep_good",
        "nopl",
        "cpuid",
        "extd_apicid",
        "aperfmperf",
        "hypervisor",
        "art",
        "arch_perfmon",
        "pebs",
        "bts",
        "amd_dcm",
        "topoext",
        "tsc_adjust",
        "invariant_tsc",
        "nodeid_msr",
        "mce",
        "mca",
        "mtrr",
        "pat",
        "apic",
        "x2apic",
        "pge",
        "vmmcall",
        "svm",
        "vmx",
        "npt",
        "nrip_save",
        "ibpb",
        "ibrs",
        "stibp",
        "ssbd",
        "ssb_no",
        "md_clear",
        "flush_l1d",
        "arch_capabilities",
        "umip",
        "smap",
        "smep",
        "pti",
        "invpcid_single",
        "cpb",
        "hw_pstate",
        "perfctr_core",
        "perfctr_nb",
        "perfctr_llc",
        "pse",
        "pse36",
        "pae",
        "de",
        "vme",
        "msr",
    ]
)
"""Flags of the kernel's own affairs: no program in a container can be using what they stand for."""


def _taken(session: Session, container: dict[str, Any]) -> list[Finding]:
    name, api = container["Name"].lstrip("/"), session.destination.docker
    host = session.destination.name
    found = []
    if there := _inspect(api, name):
        found.append(
            Finding(
                host,
                f"the name {name!r} is taken there, by a container that is {there['State']['Status']}",
                f"Rename or remove it: `docker rename {name} OTHER`",
            )
        )
    network = session.inventory.network.docker_network
    try:
        members = api.inspect_network(network)
    except docker.errors.NotFound:
        return [*found, Finding(host, f"Docker has no network {network!r}", f"`sealift host prepare {host}`")]
    found += [
        Finding(
            host,
            f"the address {session.found.address} is taken there, by {member['Name']}",
            "Stop that container or give it another address",
        )
        for member in members["Containers"].values()
        if session.found.address and member["IPv4Address"].partition("/")[0] == session.found.address
    ]
    return found


def _binds(session: Session, container: dict[str, Any]) -> list[Finding]:
    here = session.inventory.host(session.request.source).binds
    there = session.inventory.host(session.request.destination).binds
    pairs = {name: (here[name], there[name]) for name in here if name in there}
    found, targets = [], []
    for mount in container["Mounts"]:
        if mount["Type"] != "bind":
            continue
        target = bind_target(mount["Source"], pairs)
        if target is None:
            found.append(
                Finding(
                    session.source.name,
                    f"the bind mount {mount['Source']} has no counterpart at {session.request.destination}",
                    "Give it one name under `binds` of both hosts in the inventory, or use a volume",
                )
            )
        else:
            targets.append(target)
    found += [
        Finding(session.destination.name, f"the directory {target} for a bind mount is missing", "Create it")
        for target, there in zip(
            targets, session.destination.facts.call("exists", paths=targets), strict=True
        )
        if not there
    ]
    return found


def _volumes(session: Session, container: dict[str, Any]) -> list[Finding]:
    host, api = session.destination.name, session.destination.docker
    names = [mount["Name"] for mount in container["Mounts"] if mount["Type"] == "volume"]
    return [
        Finding(
            host,
            f"the volume {name!r} is there already, and {user['Names'][0].lstrip('/')} uses it",
            "Its files would be overwritten: remove that container, or give the volume another name",
        )
        for name in names
        for user in api.containers(all=True, filters={"volume": name})
    ]


def _space(session: Session, container: dict[str, Any], destination: dict[str, Any]) -> list[Finding]:
    api, host = session.destination.docker, session.destination.name
    try:
        session.found.image_at_destination = api.inspect_image(container["Image"])["Id"] == container["Image"]
    except docker.errors.ImageNotFound:
        session.found.image_at_destination = False
    paths = [container["GraphDriver"]["Data"]["UpperDir"]]
    paths += [m["Source"] for m in container["Mounts"] if m["Type"] in {"volume", "bind"}]
    disk = SPACE_MARGIN_BYTES + session.source.facts.call("tree_bytes", paths=paths)
    if not session.found.image_at_destination:
        disk += session.source.docker.inspect_image(container["Image"])["Size"]
    memory = SPACE_MARGIN_BYTES + IMAGES_PER_MEMORY * session.found.memory_bytes
    found = []
    if destination["disk_free_bytes"] < disk:
        found.append(_short(host, "disk space for Docker", destination["disk_free_bytes"], disk))
    if destination["memory_available_bytes"] < memory:
        found.append(_short(host, "memory", destination["memory_available_bytes"], memory))
    return found


def _short(host: str, of_what: str, free: int, needed: int) -> Finding:
    return Finding(
        host,
        f"{free >> 20} MiB of {of_what} free, {needed >> 20} MiB needed",
        "Free some, or take a larger host",
    )


def _warnings(container: dict[str, Any]) -> list[str]:
    ports = [port for port, bound in (container["HostConfig"].get("PortBindings") or {}).items() if bound]
    if ports:
        return [f"published ports ({', '.join(ports)}) answer at the destination's own address afterwards"]
    return []
