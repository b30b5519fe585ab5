"""Sync: image, volumes and files reach the destination while the container runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import docker
from docker.utils import parse_repository_tag

from sealift.migration.counterpart import Counterpart, counterpart
from sealift.migration.endings import Made
from sealift_agent.protocol import (
    Accept,
    Adopt,
    KeepVolumes,
    LivePass,
    OpenSource,
    Prepare,
    ReceiveImage,
    SendImage,
    SendLog,
    TakeVolumes,
)

if TYPE_CHECKING:
    from sealift.migration.session import Session


def sync_image(session: Session) -> int:
    """Send the image unless the destination has it. Returns the bytes sent."""
    if session.found.image_at_destination:
        return 0
    container = session.found.container
    reference = container["Config"]["Image"] if _is_named(session) else container["Image"]
    address = str(session.inventory.host(session.request.destination).tunnel_address)
    endpoint = session.receiver.call(ReceiveImage(address))
    bandwidth = session.request.bandwidth
    return session.sender.call(SendImage(reference, endpoint, bandwidth))


def _is_named(session: Session) -> bool:
    """Whether the container's image is still what its name means at the source. A name may be gone there too."""
    container = session.found.container
    try:
        named = session.source.docker.inspect_image(container["Config"]["Image"])
    except docker.errors.ImageNotFound:
        return False
    return bool(named["Id"] == container["Image"])


def name_image(session: Session) -> str:
    """What the destination's Docker is to call the image, which it has: its name, if that means the same there.

    An image may be there without its name (a host that has lost its power has lost Docker's last note of names), which
    it gets then, or with its name given to another one, which keeps it.
    """
    api, container = session.destination.docker, session.found.container
    name, identity = container["Config"]["Image"], container["Image"]
    try:
        return str(name if api.inspect_image(name)["Id"] == identity else identity)
    except docker.errors.ImageNotFound:
        if "@" in name or not _is_named(session):
            return str(identity)
    api.tag(identity, *parse_repository_tag(name))
    return str(name)


def create_copy(session: Session) -> Counterpart:
    """Create the container's counterpart and its volumes at the destination, not started."""
    request, found, api = session.request, session.found, session.destination.docker
    binds = {
        name: (session.inventory.host(request.source).binds[name], there)
        for name, there in session.inventory.host(request.destination).binds.items()
        if name in session.inventory.host(request.source).binds
    }
    plan = counterpart(found.container, binds, session.inventory.network.docker_network)
    plan.body["Image"] = name_image(session)
    name = found.container["Name"].lstrip("/")
    missing = [volume for volume in plan.volumes if not _is_there(api, volume)]
    session.note(
        "opened",
        source=request.source,
        destination=request.destination,
        address=found.address,
        container=found.container["Id"],
        name=name,
        image=found.container["Image"],
        missing=missing,
    )
    # Whatever interrupts this from here on: what was created and has no name yet is found by these.
    session.creating = Made(name, found.container["Image"], missing)
    for volume in missing:
        described = session.source.docker.inspect_volume(volume)
        api.create_volume(volume, described["Driver"], described["Options"], described["Labels"])
        found.volumes[volume] = api.inspect_volume(volume)["CreatedAt"]
    session.receiver.call(Adopt(None, found.volumes))
    lineages = session.sender.call(KeepVolumes(session.migration, list(plan.volumes)))
    session.receiver.call(TakeVolumes(session.migration, lineages, missing))
    try:
        found.copy = api.create(plan.body, name)
    except docker.errors.APIError:
        session.creating = None  # refused: one of that name is somebody else's
        raise
    session.receiver.call(Adopt(found.copy, found.volumes))
    session.note("copied", copy=found.copy, volumes=found.volumes)
    session.creating = None
    return plan


def open_doors(session: Session, plan: Counterpart) -> None:
    """Connect the two agents, with one tree for each directory that moves."""
    copy = session.destination.docker.inspect_container(session.found.copy)
    sources, targets = _trees(session, copy, plan)
    logs = _logs(session.found.container, copy)
    if logs is not None:
        targets["log"] = logs[1].rpartition("/")[0]
    address = str(session.inventory.host(session.request.destination).tunnel_address)
    peer = session.receiver.call(Prepare(session.migration, address, targets))
    session.found.descriptors = session.sender.call(
        OpenSource(
            migration=session.migration,
            container=session.found.container["Id"],
            peer=peer,
            trees=sources,
            log=logs[0] if logs else None,
            bandwidth=session.request.bandwidth,
            compress=session.request.compress,
            streams=session.streams,
        )
    )
    session.receiver.call(Accept())
    session.found.log = logs[1] if logs else None


def _is_there(api: Any, volume: str) -> bool:
    try:
        api.inspect_volume(volume)
    except docker.errors.NotFound:
        return False
    return True


def live_pass(session: Session) -> int:
    """Send the files that differ, and what the container has printed. Returns the bytes sent."""
    return session.sender.call(LivePass()) + send_log(session)


def send_log(session: Session, behind: int = -1) -> int:
    """Send what the container has printed, if that is more than `behind` bytes since the last time.

    Returns the bytes sent. What comes later is printed again, while the hosts are armed and in the freeze.
    """
    if session.found.log is None:
        return 0
    sent = session.sender.call(SendLog(session.found.log.rpartition("/")[2], behind))
    if sent is None:
        return 0
    session.found.log_marked = sent.marked
    return sent.sent


def _trees(
    session: Session, copy: dict[str, Any], plan: Counterpart
) -> tuple[dict[str, str], dict[str, str]]:
    sources = {"layer": session.found.container["GraphDriver"]["Data"]["UpperDir"]}
    targets = {"layer": copy["GraphDriver"]["Data"]["UpperDir"]}
    for number, volume in enumerate(plan.volumes):
        sources[f"volume-{number}"] = session.source.docker.inspect_volume(volume)["Mountpoint"]
        targets[f"volume-{number}"] = session.destination.docker.inspect_volume(volume)["Mountpoint"]
    for number, (here, there) in enumerate(plan.binds):
        sources[f"bind-{number}"], targets[f"bind-{number}"] = here, there
    return sources, targets


def _logs(container: dict[str, Any], copy: dict[str, Any]) -> tuple[str, str] | None:
    """Where Docker keeps what the container prints, at the source and at the destination, if in files of its own."""
    here = container["LogPath"]
    if container["HostConfig"]["LogConfig"]["Type"] != "json-file" or not here:
        return None
    # Docker names the log of a container only once it has started. It lies beside the layers, as at the source.
    root = copy["GraphDriver"]["Data"]["UpperDir"].partition("/overlay2/")[0]
    return here, f"{root}/containers/{copy['Id']}/{copy['Id']}-json.log"
