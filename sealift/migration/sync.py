"""The step sync: send image, volumes and files to the destination while the container runs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker
from docker.utils import parse_repository_tag

from sealift.errors import CommandFailed
from sealift.migration.counterpart import Counterpart, counterpart
from sealift.migration.endings import Made
from sealift.migration.request import binds
from sealift.migration.results import Log
from sealift.model import Step
from sealift_agent.constants import SINGLE
from sealift_agent.protocol import (
    Accept,
    Adopt,
    DescribePaths,
    FindLayer,
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
    from collections.abc import Sequence

    from sealift.host.agents import Caller
    from sealift.inventory import Inventory
    from sealift.migration.journal import Journal
    from sealift.migration.parties import Parties
    from sealift.migration.request import Request
    from sealift.migration.results import Plan
    from sealift_agent.protocol import ImageSent


@dataclass(frozen=True)
class SentLog:
    """The result of sending the container's log: bytes sent, and how much of it is there now."""

    log: Log | None
    sent_bytes: int = 0


@dataclass(frozen=True)
class Connected:
    """The two agents are connected. `descriptors` and `log`: see `results.Copy`."""

    descriptors: tuple[str, ...]
    log: Log | None


class Sync:
    """The parts of this step, in their order."""

    def __init__(
        self, request: Request, inventory: Inventory, parties: Parties, journal: Journal, plan: Plan
    ) -> None:
        self._request = request
        self._inventory = inventory
        self._source = parties.source
        self._destination = parties.destination
        self._journal = journal
        self._plan = plan

    def send_image(self) -> int:
        """Send the image unless the destination has it. Returns the bytes sent."""
        if self._plan.image_at_destination:
            return 0
        sent_bytes = 0
        if self._plan.left_out:
            with contextlib.suppress(CommandFailed):  # as if it was refused: then there is no image
                sent_bytes = self._send_image(self._plan.left_out).sent_bytes
            if self._has_image():
                return sent_bytes
        sent = self._send_image()
        if sent.refused is not None or not self._has_image():
            raise CommandFailed(
                sent.refused or "Docker has loaded the container's image, but gives it another id",
                host=self._destination.side.name,
                step=Step.SYNC,
                remedy=None if sent.refused else "Docker must keep its images the same way on both hosts",
            )
        return sent_bytes + sent.sent_bytes

    def create_copy(self) -> Counterpart:
        """Create the container's counterpart and its volumes at the destination, not started."""
        container, api, journal = self._plan.container, self._destination.side.docker, self._journal
        places = binds(self._inventory, self._request)
        plan = counterpart(container, places, self._inventory.network.docker_network)
        plan.body["Image"] = self._name_image()
        missing = [volume for volume in plan.volumes if not _is_there(api, volume)]
        made = Made(container["Name"].lstrip("/"), container["Image"], missing)
        journal.note_opened(self._request.source, self._request.destination, made)
        volumes: dict[str, str] = {}
        with journal.making(made):
            for volume in missing:
                described = self._source.side.docker.inspect_volume(volume)
                api.create_volume(volume, described["Driver"], described["Options"], described["Labels"])
                volumes[volume] = api.inspect_volume(volume)["CreatedAt"]
                journal.created(None, volumes)
            self._destination.agent.call(Adopt(None, volumes))
            lineages = self._source.agent.call(KeepVolumes(journal.migration, list(plan.volumes)))
            self._destination.agent.call(TakeVolumes(journal.migration, lineages, missing))
            try:
                copy = api.create(plan.body, made.name)
            except docker.errors.APIError:
                journal.made_nothing_else()  # refused: a container with that name belongs to somebody else
                raise
            journal.created(copy, volumes)
            self._destination.agent.call(Adopt(copy, volumes))
            journal.note_copied()
        return plan

    def connect(self, plan: Counterpart) -> Connected:
        """Connect the two agents, with one tree for each directory that moves."""
        copy = self._destination.side.docker.inspect_container(self._journal.traces.copy)
        sources, targets = self._trees(copy, plan)
        logs = _logs(self._plan.container, copy, self._destination.side.docker.info()["DockerRootDir"])
        if logs is not None:
            targets["log"] = logs[1].rpartition("/")[0]
        peer = self._destination.agent.call(Prepare(self._journal.migration, self._address(), targets))
        descriptors = self._source.agent.call(
            OpenSource(
                migration=self._journal.migration,
                container=self._plan.container["Id"],
                peer=peer,
                trees=sources,
                log=logs[0] if logs else None,
                bandwidth=self._request.options.bandwidth,
                compress=self._request.options.compress,
                streams=self._plan.streams,
            )
        )
        self._destination.agent.call(Accept())
        return Connected(tuple(descriptors), Log(logs[1], 0) if logs else None)

    def send_files(self, log: Log | None) -> tuple[int, Log | None]:
        """Send the files that differ, and the container's output. Returns the bytes sent, and the log."""
        sent = self._source.agent.call(LivePass())
        printed = send_log(self._source.agent, log)
        return sent + printed.sent_bytes, printed.log

    def _send_image(self, left_out: Sequence[str] = ()) -> ImageSent:
        endpoint = self._destination.agent.call(ReceiveImage(self._address()))
        bandwidth = self._request.options.bandwidth
        return self._source.agent.call(SendImage(self._reference(), endpoint, bandwidth, list(left_out)))

    def _has_image(self) -> bool:
        """Whether the destination has the very image. Its id is a digest of all of it."""
        identity = self._plan.container["Image"]
        try:
            return bool(self._destination.side.docker.inspect_image(identity)["Id"] == identity)
        except docker.errors.ImageNotFound:
            return False

    def _reference(self) -> str:
        """What the source's Docker is to save: the image's name with its tag, or its id if it has lost its name.

        By a name without a tag Docker saves every image of that name.
        """
        container = self._plan.container
        if not self._is_named():
            return str(container["Image"])
        name = str(container["Config"]["Image"])
        tags = self._source.side.docker.inspect_image(container["Image"])["RepoTags"] or []
        return f"{name}:latest" if f"{name}:latest" in tags else name

    def _address(self) -> str:
        return str(self._inventory.host(self._request.destination).tunnel_address)

    def _is_named(self) -> bool:
        """Whether the name of the container's image still means this image at the source. It may also be gone."""
        container = self._plan.container
        try:
            named = self._source.side.docker.inspect_image(container["Config"]["Image"])
        except docker.errors.ImageNotFound:
            return False
        return bool(named["Id"] == container["Image"])

    def _name_image(self) -> str:
        """The name of the image at the destination, which has it: the source's name, if it means the same image there.

        The image may be there without its name, since a host that has lost its power has lost Docker's last names. Then
        it gets the name. If the name belongs to another image there, it stays with that.
        """
        api, container = self._destination.side.docker, self._plan.container
        name, identity = container["Config"]["Image"], container["Image"]
        try:
            return str(name if api.inspect_image(name)["Id"] == identity else identity)
        except docker.errors.ImageNotFound:
            if "@" in name or not self._is_named():
                return str(identity)
        api.tag(identity, *parse_repository_tag(name))
        return str(name)

    def _trees(self, copy: dict[str, Any], plan: Counterpart) -> tuple[dict[str, str], dict[str, str]]:
        here, there = self._source.side.docker, self._destination.side.docker
        sources = {"layer": self._source.side.facts.call(FindLayer(self._plan.container["Id"]))}
        targets = {"layer": self._destination.side.facts.call(FindLayer(copy["Id"]))}
        for number, volume in enumerate(plan.volumes):
            sources[f"volume-{number}"] = here.inspect_volume(volume)["Mountpoint"]
            targets[f"volume-{number}"] = there.inspect_volume(volume)["Mountpoint"]
        paths = [source for source, _ in plan.binds]
        found = self._source.side.facts.call(DescribePaths(paths))
        for number, ((source, target), seen) in enumerate(zip(plan.binds, found, strict=True)):
            tree = f"{SINGLE if seen.kind == 'file' else 'bind-'}{number}"
            sources[tree], targets[tree] = source, target
        return sources, targets


def send_log(source: Caller, log: Log | None, behind: int = -1) -> SentLog:
    """Send the container's output, if it has more than `behind` new bytes since the last time.

    Later output is printed again while the hosts are armed and in the freeze.
    """
    if log is None:
        return SentLog(None)
    sent = source.call(SendLog(log.path.rpartition("/")[2], behind))
    return SentLog(log) if sent is None else SentLog(Log(log.path, sent.marked), sent.sent)


def _is_there(api: Any, volume: str) -> bool:
    try:
        api.inspect_volume(volume)
    except docker.errors.NotFound:
        return False
    return True


def _logs(container: dict[str, Any], copy: dict[str, Any], root: str) -> tuple[str, str] | None:
    """Docker's files for the container's output, at the source and at the destination, if there are any.

    `root` is the directory of the destination's Docker.
    """
    here = container["LogPath"]
    if container["HostConfig"]["LogConfig"]["Type"] != "json-file" or not here:
        return None
    # Docker sets the log's path only when it has started the container. The file is at the same place as at the source.
    return here, f"{root}/containers/{copy['Id']}/{copy['Id']}-json.log"
