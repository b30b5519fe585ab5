"""Docker's restart policy stays out of a migration: Docker brings no copy to life that is frozen, cut off or given up.

A host that is started again, or a container that ends, would have Docker start a second copy from the disk: at the
source after the commit, at the destination before it. So the source's copy has the policy "no" from before the freeze,
and the destination's until it has won. What it was is in the journal at the gateway before it is changed.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from . import docker_api, durable

if TYPE_CHECKING:
    from collections.abc import Mapping

NEVER = "no"
ALWAYS = {"always", "unless-stopped"}
ON_FAILURE = "on-failure"
KILL = "9"


class Policy:
    """One container's restart policy in a migration: in force, or out of force until it is `put_back`.

    `was` is what is to be put back; None while the policy is in force.
    """

    def __init__(self, container: str, was: Mapping[str, Any] | None = None) -> None:
        self._container, self._was = container, was

    def suspend(self, was: Mapping[str, Any]) -> None:
        """Out of force from now on. Noted first: what fails half-way is put back, too."""
        self._was = was
        suspend(self._container)

    def put_back(self) -> None:
        """In force again. Nothing if it is; tried again by the next call if it fails."""
        if self._was is not None:
            put_back(self._container, self._was)
            self._was = None


def policy(container: str) -> dict[str, Any]:
    """The policy as Docker describes it: `Name` and `MaximumRetryCount`."""
    described = docker_api.call("GET", f"/containers/{container}/json")
    found: dict[str, Any] = described["HostConfig"]["RestartPolicy"]
    return found


def suspend(container: str) -> None:
    """Docker starts this container only if it is told to. On the disk when this returns."""
    _give(container, {"Name": NEVER})


def put_back(container: str, was: Mapping[str, Any] | None) -> None:
    """Give the policy back, and start the container if Docker would have meanwhile. Nothing if it is not there.

    NotThere is no error: whoever owned it has removed it.
    """
    if not _acts(was):
        return
    try:
        _give(container, dict(was or {}))
        described = docker_api.call("GET", f"/containers/{container}/json")
        if _would_start(described, was or {}) and not _ended_by_somebody(container):
            docker_api.call("POST", f"/containers/{container}/start")
    except docker_api.NotThere:
        return


def _acts(given: Mapping[str, Any] | None) -> bool:
    return given is not None and given.get("Name") not in {None, "", NEVER}


def _give(container: str, wanted: Mapping[str, Any]) -> None:
    described = docker_api.call("GET", f"/containers/{container}/json")
    has = described["HostConfig"]["RestartPolicy"]
    if (has.get("Name") or NEVER) == wanted["Name"] and has.get("MaximumRetryCount", 0) == wanted.get(
        "MaximumRetryCount", 0
    ):
        return
    docker_api.call("POST", f"/containers/{container}/update", {"RestartPolicy": dict(wanted)})
    # Docker puts the new file in the place of the old one without writing the directory through.
    directory = Path(described["HostsPath"] or described["ResolvConfPath"]).parent
    durable.sync(directory / "hostconfig.json")
    durable.sync(directory)


def _would_start(described: Mapping[str, Any], was: Mapping[str, Any]) -> bool:
    """Whether it has ended in a way that Docker's policy answers with a start (moby, restartmanager.ShouldRestart)."""
    state = described["State"]
    if state["Status"] != "exited":
        return False
    if was["Name"] in ALWAYS:
        return True
    most = was.get("MaximumRetryCount", 0)
    failed = was["Name"] == ON_FAILURE and state["ExitCode"] != 0
    return bool(failed and (most == 0 or described["RestartCount"] < most))


def _ended_by_somebody(container: str) -> bool:
    """Whether Docker was told to stop it since its last start, as far back as this dockerd remembers."""
    wanted = quote(json.dumps({"container": [container], "event": ["start", "stop", "kill"]}))
    path = f"/events?since=0&until={time.time():.3f}&filters={wanted}"
    connection, response = docker_api.request("GET", path)
    try:
        seen = [json.loads(line) for line in response.read().splitlines() if line.strip()]
    finally:
        connection.close()
    told = [
        event["Action"]
        for event in seen
        if event["Action"] != "kill" or event["Actor"]["Attributes"].get("signal") == KILL
    ]
    return bool(told) and told[-1] != "start"
