"""The container as Docker, the inventory and the gateway describe it: name, address, namespaces, mounts, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker

from sealift.errors import Refused
from sealift.migration.checks.finding import Findings, Resource
from sealift.migration.counterpart import parts_of_volumes
from sealift.model import Step
from sealift_agent.protocol import DescribePaths, DescribeVolumes, PathFound, ShowRecord, VolumeFound

if TYPE_CHECKING:
    from sealift.migration.checks.finding import Finding
    from sealift.migration.checks.inspection import Endpoints, Inspection

NAMESPACES = {"PidMode": "process", "IpcMode": "IPC", "UTSMode": "UTS"}
"""Not the user namespace: `--userns=host` gives a container the same as all have without `userns-remap`."""

DOCKERS_OWN = {
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
}
"""Files that Docker binds into each container, also at the destination."""

WORDS = {
    "directory": "a directory",
    "file": "a file",
    "socket": "a socket, at which a program of the host answers",
    "device": "a device",
    "pipe": "a named pipe",
    "kernel": "a file of the kernel",
}
"""The kinds of `PathFound`."""

MADE_ANEW = {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs", "binfmt_misc"}
"""File systems without a device, which CRIU mounts again. The content of a tmpfs is in the images."""


def describe(endpoints: Endpoints) -> dict[str, Any]:
    """Docker's description of a running container. Refused if it does not run."""
    name = endpoints.container
    container = _inspect(endpoints.source.docker, name)
    if container is None:
        there = endpoints.destination and _inspect(endpoints.destination.docker, name)
        if there and there["State"]["Running"]:
            raise _refusal(
                endpoints.destination_name, f"the container {name!r} is there already", "Nothing to do"
            )
        if rootless := _rootless(endpoints):
            raise _refusal(
                endpoints.source.name,
                f"there is no container {name!r} in root's Docker, and that at {rootless} runs without root",
                "CRIU needs root: run the container under a Docker that root has started",
            )
        raise _refusal(
            endpoints.source.name, f"there is no container {name!r}", "`docker ps` there lists them"
        )
    state = container["State"]
    if not state["Running"]:
        raise _refusal(
            endpoints.source.name,
            f"the container {name!r} does not run ({state['Status']})",
            "Start it, or move it with `docker save` and `docker cp`: it has no running processes",
        )
    if state["Paused"]:
        raise _refusal(
            endpoints.source.name, f"the container {name!r} is paused", "`docker unpause` it first"
        )
    return container


def _rootless(endpoints: Endpoints) -> str:
    """The sockets of Dockers that users have started, which only they are asked for (dockerd-rootless.sh)."""
    listed = endpoints.source.connection.run(["sh", "-c", "ls /run/user/*/docker.sock"], check=False)
    return ", ".join(listed.stdout.split())


def _refusal(host: str, what: str, remedy: str) -> Refused:
    return Refused(what, host=host, remedy=remedy, step=Step.PREFLIGHT, reasons=(what,))


def _inspect(api: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(api.inspect_container(name))
    except docker.errors.NotFound:
        return None


def network(endpoints: Endpoints, inspection: Inspection) -> list[Finding]:
    """Whether the container has an address that can move with it. Stores the address."""
    host, name = endpoints.source.name, endpoints.inventory.network.docker_network
    attached = inspection.container["NetworkSettings"]["Networks"]
    findings = Findings(host)
    if set(attached) != {name}:
        findings.no(
            Resource.ADDRESS,
            f"the container is on the networks {', '.join(sorted(attached)) or 'none'}",
            f"Only one that is on the network {name!r}, and on no other, keeps its address: "
            f"start it with `--network {name} --ip ADDRESS`",
        )
        return findings.found
    inspection.address = address = attached[name]["IPAddress"]
    route = endpoints.gateway.call(ShowRecord()).routes.get(address)
    gateway = Findings("gateway")
    if route is None:
        gateway.no(
            Resource.ADDRESS,
            f"{address} is assigned to no host",
            f"`sealift network assign {address} {host}` makes the gateway send its packets there",
        )
    elif route.peer != endpoints.inventory.host(host).wireguard_key:
        gateway.no(
            Resource.ADDRESS,
            f"{address} belongs to {route.host}",
            "Two containers can't have one address: give this one another",
        )
    gateway.yes(Resource.ADDRESS, f"{address} is {host}'s and can be moved")
    return gateway.found


def configuration(endpoints: Endpoints, inspection: Inspection) -> list[Finding]:
    """The container's settings from its start."""
    host, config = inspection.container["HostConfig"], inspection.container["Config"]
    findings = Findings(endpoints.source.name)
    if config["Tty"] and inspection.there is not None and not inspection.there.interposable:
        findings.no(
            Resource.TERMINALS,
            f"the container has a terminal (-t), and {endpoints.destination_name} can't make the library that CRIU "
            "needs for it",
            "Install tcc there",
        )
    if host["Privileged"]:
        findings.no(
            Resource.DEVICES, "the container is privileged", "Grant it the capabilities that it needs instead"
        )
    if host["Devices"]:
        names = [device["PathOnHost"] for device in host["Devices"]]
        findings.no(
            Resource.DEVICES,
            f"the container has devices: {', '.join(names)}",
            "A device can't move: start the container without it",
        )
    if host.get("DeviceRequests"):
        findings.no(
            Resource.GPUS,
            "the container has devices: a GPU",
            "A device can't move: start the container without it",
        )
    for setting, namespace in NAMESPACES.items():
        if host.get(setting, "").startswith(("host", "container:", "shareable")):
            findings.no(
                Resource.NAMESPACES,
                f"the container shares its {namespace} namespace ({host[setting]})",
                "Only a namespace of its own can move with it",
            )
    if host.get("VolumesFrom"):
        findings.no(
            Resource.MOUNTS,
            "the container takes volumes from another (--volumes-from)",
            "Name the volumes instead",
        )
    return findings.found


def namespace(host: str, added: list[str]) -> list[Finding]:
    """What somebody has set in the container's network namespace, which does not move with it."""
    findings = Findings(host)
    if added:
        findings.no(
            Resource.NETWORK_NAMESPACE,
            f"set in the container's network namespace since its start: {', '.join(added)}",
            "It would be missing at the destination: take it back there, and set it again after the migration",
        )
    findings.yes(Resource.NETWORK_NAMESPACE, "as Docker has made it")
    return findings.found


def taken(endpoints: Endpoints, inspection: Inspection) -> list[Finding]:
    """Whether name and address are free at the destination."""
    if endpoints.destination is None:
        return []
    name, api = inspection.container["Name"].lstrip("/"), endpoints.destination.docker
    findings = Findings(endpoints.destination.name)
    if there := _inspect(api, name):
        findings.no(
            Resource.NAME,
            f"the name {name!r} is taken there, by a container that is {there['State']['Status']}",
            f"Rename or remove it: `docker rename {name} OTHER`",
        )
    findings.yes(Resource.NAME, f"{name!r} is free there")
    network = endpoints.inventory.network.docker_network
    try:
        members = api.inspect_network(network)["Containers"].values()
    except docker.errors.NotFound:
        findings.no(
            Resource.ADDRESS, f"Docker has no network {network!r}", f"`sealift host prepare {findings.host}`"
        )
        return findings.found
    for member in members:
        if inspection.address and member["IPv4Address"].partition("/")[0] == inspection.address:
            findings.no(
                Resource.ADDRESS,
                f"the address {inspection.address} is taken there, by {member['Name']}",
                "Stop that container or give it another address",
            )
    findings.yes(Resource.ADDRESS, f"{inspection.address or 'its address'} is free there")
    return findings.found


def mounts(endpoints: Endpoints, inspection: Inspection) -> list[Finding]:
    """Bind mounts with their counterparts, and volumes that must not be in use at the destination."""
    mounted = inspection.container["Mounts"]
    findings = Findings(endpoints.source.name)
    bound = _bound(findings, endpoints, mounted)
    for mount in mounted:
        if mount["Type"] not in {"bind", "volume", "tmpfs"}:
            findings.no(
                Resource.MOUNTS,
                f"a mount of the kind {mount['Type']!r} at {mount['Destination']}",
                "It is not made at the destination: put the files into a volume, and start the container with that",
            )
    inside = {
        point: kind
        for point, kind in inspection.uses.mounts.items()
        if kind not in MADE_ANEW and point not in {mount["Destination"] for mount in mounted} | DOCKERS_OWN
    }
    if inside:
        findings.no(
            Resource.MOUNTS,
            f"mounted inside the container: {', '.join(f'{point} ({kind})' for point, kind in inside.items())}",
            "CRIU can't restore such a mount: change the program so that it does not need it, or mount it as a volume",
        )
    volumes = list(dict.fromkeys(mount["Name"] for mount in mounted if mount["Type"] == "volume"))
    kept = endpoints.source.facts.call(DescribeVolumes(volumes))
    for name in volumes:
        _plain(findings, name, kept[name])
    parts = len(parts_of_volumes(inspection.container))
    of_parts = f" ({parts} of a part)" if parts else ""
    findings.yes(
        Resource.MOUNTS, f"{len(volumes)} volumes{of_parts}, {len(bound)} bind mounts with counterparts"
    )
    return [*findings.found, *_mounts_there(endpoints, bound, kept)]


def _bound(
    findings: Findings, endpoints: Endpoints, mounted: list[dict[str, Any]]
) -> dict[str, tuple[str, PathFound]]:
    """The bind mounts that can move: each path of the source, with its path there and what lies at the source."""
    sources = list(dict.fromkeys(mount["Source"] for mount in mounted if mount["Type"] == "bind"))
    bound = {}
    described = endpoints.source.facts.call(DescribePaths(sources))
    for source, found in zip(sources, described, strict=True):
        target = endpoints.binds.target(source)
        if source == "/" or found.kind not in {"directory", "file", "missing"}:
            kind = "the host's root" if source == "/" else WORDS[found.kind]
            findings.no(
                Resource.MOUNTS,
                f"the bind mount {source} is {kind}",
                "It belongs to this host and can't move: start the container without it",
            )
        elif found.kind == "missing":
            findings.no(
                Resource.MOUNTS,
                f"what was bind-mounted from {source} is not there any more",
                "The container still has it, but no name leads to its files: start the container again",
            )
        elif target is None:
            findings.no(
                Resource.MOUNTS,
                f"the bind mount {source} has no counterpart at {endpoints.destination_name}",
                f"Name one: `--bind {source}=PATH`, or `--binds-as-they-are`, or one name under `binds` of both hosts "
                "in the inventory",
            )
        elif target == "/":
            findings.no(
                Resource.MOUNTS,
                f"the bind mount {source} would replace the root of {endpoints.destination_name}",
                "Name another directory",
            )
        else:
            bound[source] = (target, found)
    return bound


def _plain(findings: Findings, name: str, volume: VolumeFound | None) -> None:
    """Only if Docker keeps a volume in its own directory, its files are known and belong to nobody else."""
    if volume and (volume.driver != "local" or volume.options):
        given = ", ".join(f"{option}={value}" for option, value in volume.options.items())
        findings.no(
            Resource.MOUNTS,
            f"the volume {name!r} is of the driver {volume.driver!r}{f' with the options {given}' if given else ''}",
            "What lies behind it may be shared, or no directory at all: copy its files into a plain volume "
            "(`docker volume create NAME`), or bind-mount the directory that both hosts have",
        )


def _mounts_there(
    endpoints: Endpoints,
    bound: dict[str, tuple[str, PathFound]],
    volumes: dict[str, VolumeFound | None],
) -> list[Finding]:
    if endpoints.destination is None:
        return []
    findings, api = Findings(endpoints.destination.name), endpoints.destination.docker
    present = endpoints.destination.facts.call(DescribePaths([target for target, _ in bound.values()]))
    for (source, (target, moved)), found in zip(bound.items(), present, strict=True):
        _place_there(findings, target, moved, found, named=endpoints.binds.is_named(source))
    for name in volumes:
        for user in api.containers(all=True, filters={"volume": name}):
            findings.no(
                Resource.MOUNTS,
                f"the volume {name!r} is there already, and {user['Names'][0].lstrip('/')} uses it",
                "Its files would be overwritten: remove that container, or give the volume another name",
            )
    for name, volume in endpoints.destination.facts.call(DescribeVolumes(list(volumes))).items():
        if volume is None:
            continue
        _plain(findings, name, volume)
        here = volumes[name]
        lineage = here.lineage if here else None
        ours = lineage and volume.lineage == lineage and volume.content in {"left", "taken"}
        if volume.content != "empty" and not ours:
            findings.no(
                Resource.MOUNTS,
                f"the volume {name!r} is there already, with files that this container has not left there",
                "They would be overwritten: `docker volume rm` it there if nobody needs them, or give the volume "
                "another name",
            )
    return findings.found


def _place_there(findings: Findings, target: str, here: PathFound, there: PathFound, *, named: bool) -> None:
    """Whether what is bind-mounted can lie at this path of the destination."""
    if there.kind == "missing":
        if named:
            create = f"`mkdir -p {target}`" if here.kind == "directory" else f"`touch {target}`"
            findings.no(
                Resource.MOUNTS,
                f"the {here.kind} {target} for a bind mount is missing",
                f"Create it: {create}",
            )
        return
    if there.kind != here.kind:
        findings.no(
            Resource.MOUNTS,
            f"at {target} lies {WORDS[there.kind]}, and the bind mount is {WORDS[here.kind]}",
            "Name another path: `--bind`",
        )
    elif not named and not there.empty and (here.digest is None or here.digest != there.digest):
        findings.no(
            Resource.MOUNTS,
            f"the {here.kind} {target} is there already, with other content",
            f"`--bind {target}={target}` replaces it; another path after the `=` leaves it as it is",
        )


def warnings(container: dict[str, Any]) -> list[str]:
    """What will be different after the migration."""
    said = []
    driver = container["HostConfig"]["LogConfig"]["Type"]
    if driver not in {"json-file", "none"}:
        said.append(f"its output so far stays at the source (log driver {driver}; only json-file's is moved)")
    if container["Config"]["Tty"]:
        said.append("whoever is attached (`docker attach`) is not any more: attach again at the destination")
    ports = [port for port, bound in (container["HostConfig"].get("PortBindings") or {}).items() if bound]
    if ports:
        said.append(
            f"published ports ({', '.join(ports)}) answer at the destination's own address afterwards"
        )
    return said
