"""The container as Docker, the inventory and the gateway describe it: name, address, namespaces, mounts, settings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker

from sealift.errors import Refused
from sealift.migration.checks.finding import Bench, Resource
from sealift.migration.counterpart import bind_target
from sealift.model import Step
from sealift_agent.protocol import DescribeVolumes, Exist, ShowRecord, VolumeFound

if TYPE_CHECKING:
    from sealift.migration.checks.finding import Finding
    from sealift.migration.checks.scene import Look, Scene

NAMESPACES = {"PidMode": "process", "IpcMode": "IPC", "UTSMode": "UTS", "UsernsMode": "user"}

DOCKERS_OWN = {
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
    "/sbin/docker-init",
    "/usr/sbin/docker-init",
}
"""Files that Docker binds into each container, at the destination as well."""

MADE_ANEW = {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "cgroup", "cgroup2", "devtmpfs"}
"""File systems without a device, which CRIU mounts again; the contents of a tmpfs travel in the images."""


def describe(scene: Scene) -> dict[str, Any]:
    """Docker's description of a container that runs. Refused for one that does not: there is nothing to look at."""
    name = scene.container
    container = _inspect(scene.source.docker, name)
    if container is None:
        there = scene.destination and _inspect(scene.destination.docker, name)
        if there and there["State"]["Running"]:
            raise _refusal(
                scene.destination_name, f"the container {name!r} is there already", "Nothing to do"
            )
        raise _refusal(scene.source.name, f"there is no container {name!r}", "`docker ps` there lists them")
    state = container["State"]
    if not state["Running"]:
        raise _refusal(
            scene.source.name,
            f"the container {name!r} does not run ({state['Status']})",
            "Start it, or move it with `docker save` and `docker cp`: there is nothing live in it",
        )
    if state["Paused"]:
        raise _refusal(scene.source.name, f"the container {name!r} is paused", "`docker unpause` it first")
    return container


def _refusal(host: str, what: str, remedy: str) -> Refused:
    return Refused(what, host=host, remedy=remedy, step=Step.PREFLIGHT, reasons=(what,))


def _inspect(api: Any, name: str) -> dict[str, Any] | None:
    try:
        return dict(api.inspect_container(name))
    except docker.errors.NotFound:
        return None


def network(scene: Scene, look: Look) -> list[Finding]:
    """Whether the container has an address that can move with it; fills it in."""
    host, name = scene.source.name, scene.inventory.network.docker_network
    attached = look.container["NetworkSettings"]["Networks"]
    bench = Bench(host)
    if set(attached) != {name}:
        bench.no(
            Resource.ADDRESS,
            f"the container is on the networks {', '.join(sorted(attached)) or 'none'}",
            f"Only one that is on the network {name!r}, and on no other, keeps its address: "
            f"start it with `--network {name} --ip ADDRESS`",
        )
        return bench.findings
    look.address = address = attached[name]["IPAddress"]
    route = scene.gateway.call(ShowRecord())["routes"].get(address)
    gateway = Bench("gateway")
    if route is None:
        gateway.no(
            Resource.ADDRESS,
            f"{address} is assigned to no host",
            f"`sealift network assign {address} {host}` makes the gateway send its packets there",
        )
    elif route["peer"] != scene.inventory.host(host).wireguard_key:
        gateway.no(
            Resource.ADDRESS,
            f"{address} belongs to {route['host']}",
            "Two containers can't have one address: give this one another",
        )
    gateway.yes(Resource.ADDRESS, f"{address} is {host}'s and can be moved")
    return gateway.findings


def configuration(scene: Scene, look: Look) -> list[Finding]:
    """What the container was started with."""
    host, config = look.container["HostConfig"], look.container["Config"]
    bench = Bench(scene.source.name)
    if config["Tty"]:
        bench.no(
            Resource.TERMINALS,
            "the container has a terminal attached (-t)",
            "CRIU can't move a terminal whose other end is outside: start it without -t",
        )
    if host["Privileged"]:
        bench.no(
            Resource.DEVICES, "the container is privileged", "Grant it the capabilities that it needs instead"
        )
    if host["Devices"]:
        names = [device["PathOnHost"] for device in host["Devices"]]
        bench.no(
            Resource.DEVICES,
            f"the container has devices: {', '.join(names)}",
            "A device stays where it is: start it without",
        )
    if host.get("DeviceRequests"):
        bench.no(
            Resource.GPUS, "the container has devices: a GPU", "A device stays where it is: start it without"
        )
    for setting, namespace in NAMESPACES.items():
        if host.get(setting, "").startswith(("host", "container:", "shareable")):
            bench.no(
                Resource.NAMESPACES,
                f"the container shares its {namespace} namespace ({host[setting]})",
                "Only a namespace of its own can move with it",
            )
    if host.get("VolumesFrom"):
        bench.no(
            Resource.MOUNTS,
            "the container takes volumes from another (--volumes-from)",
            "Name the volumes instead",
        )
    return bench.findings


def taken(scene: Scene, look: Look) -> list[Finding]:
    """Whether name and address are free at the destination."""
    if scene.destination is None:
        return []
    name, api = look.container["Name"].lstrip("/"), scene.destination.docker
    bench = Bench(scene.destination.name)
    if there := _inspect(api, name):
        bench.no(
            Resource.NAME,
            f"the name {name!r} is taken there, by a container that is {there['State']['Status']}",
            f"Rename or remove it: `docker rename {name} OTHER`",
        )
    bench.yes(Resource.NAME, f"{name!r} is free there")
    network = scene.inventory.network.docker_network
    try:
        members = api.inspect_network(network)["Containers"].values()
    except docker.errors.NotFound:
        bench.no(
            Resource.ADDRESS, f"Docker has no network {network!r}", f"`sealift host prepare {bench.host}`"
        )
        return bench.findings
    for member in members:
        if look.address and member["IPv4Address"].partition("/")[0] == look.address:
            bench.no(
                Resource.ADDRESS,
                f"the address {look.address} is taken there, by {member['Name']}",
                "Stop that container or give it another address",
            )
    bench.yes(Resource.ADDRESS, f"{look.address or 'its address'} is free there")
    return bench.findings


def mounts(scene: Scene, look: Look) -> list[Finding]:
    """Bind mounts with their counterparts, volumes that must not be in use there."""
    mounted = look.container["Mounts"]
    here = scene.inventory.host(scene.source.name).binds
    there = scene.inventory.host(scene.destination_name).binds
    pairs = {name: (here[name], there[name]) for name in here if name in there}
    bench, targets = Bench(scene.source.name), []
    for mount in mounted:
        if mount["Type"] != "bind":
            continue
        target = bind_target(mount["Source"], pairs)
        if target is None:
            bench.no(
                Resource.MOUNTS,
                f"the bind mount {mount['Source']} has no counterpart at {scene.destination_name}",
                "Give it one name under `binds` of both hosts in the inventory, or use a volume",
            )
        else:
            targets.append(target)
    inside = {
        point: kind
        for point, kind in look.uses["mounts"].items()
        if kind not in MADE_ANEW and point not in {mount["Destination"] for mount in mounted} | DOCKERS_OWN
    }
    if inside:
        bench.no(
            Resource.MOUNTS,
            f"mounted inside the container: {', '.join(f'{point} ({kind})' for point, kind in inside.items())}",
            "CRIU can't restore such a mount: have the program do without, or mount it as a volume",
        )
    volumes = [mount["Name"] for mount in mounted if mount["Type"] == "volume"]
    kept = scene.source.facts.call(DescribeVolumes(volumes))
    for name in volumes:
        _plain(bench, name, kept[name])
    bench.yes(Resource.MOUNTS, f"{len(volumes)} volumes, {len(targets)} bind mounts with counterparts")
    return [*bench.findings, *_mounts_there(scene, targets, kept)]


def _plain(bench: Bench, name: str, volume: VolumeFound | None) -> None:
    """Only what Docker keeps in a directory of its own is known to be the volume's files, and nobody else's."""
    if volume and (volume.driver != "local" or volume.options):
        given = ", ".join(f"{option}={value}" for option, value in volume.options.items())
        bench.no(
            Resource.MOUNTS,
            f"the volume {name!r} is of the driver {volume.driver!r}{f' with the options {given}' if given else ''}",
            "What lies behind it may be shared, or no directory at all: copy its files into a plain volume "
            "(`docker volume create NAME`), or bind-mount the directory that both hosts have",
        )


def _mounts_there(scene: Scene, targets: list[str], volumes: dict[str, VolumeFound | None]) -> list[Finding]:
    if scene.destination is None:
        return []
    bench, api = Bench(scene.destination.name), scene.destination.docker
    present = scene.destination.facts.call(Exist(targets))
    for target, is_there in zip(targets, present, strict=True):
        if not is_there:
            bench.no(Resource.MOUNTS, f"the directory {target} for a bind mount is missing", "Create it")
    for name in volumes:
        for user in api.containers(all=True, filters={"volume": name}):
            bench.no(
                Resource.MOUNTS,
                f"the volume {name!r} is there already, and {user['Names'][0].lstrip('/')} uses it",
                "Its files would be overwritten: remove that container, or give the volume another name",
            )
    for name, volume in scene.destination.facts.call(DescribeVolumes(list(volumes))).items():
        if volume is None:
            continue
        _plain(bench, name, volume)
        here = volumes[name]
        lineage = here.lineage if here else None
        ours = lineage and volume.lineage == lineage and volume.content in {"left", "taken"}
        if volume.content != "empty" and not ours:
            bench.no(
                Resource.MOUNTS,
                f"the volume {name!r} is there already, with files that this container has not left there",
                "They would be overwritten: `docker volume rm` it there if nobody needs them, or give the volume "
                "another name",
            )
    return bench.findings


def warnings(container: dict[str, Any]) -> list[str]:
    """What will be otherwise afterwards."""
    said = []
    driver = container["HostConfig"]["LogConfig"]["Type"]
    if driver not in {"json-file", "none"}:
        said.append(
            f"what it has printed so far stays at the source (log driver {driver}; json-file's goes along)"
        )
    ports = [port for port, bound in (container["HostConfig"].get("PortBindings") or {}).items() if bound]
    if ports:
        said.append(
            f"published ports ({', '.join(ports)}) answer at the destination's own address afterwards"
        )
    return said
