"""A container chooses its words: on no terminal and no page are they more than text, nor do they make it our worker."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import unicodedata
from typing import TYPE_CHECKING, Any

import pytest

from sealift.host.agents import Agent
from sealift_agent.protocol import SweepCopy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]

ESCAPE = "\x1b]0;owned\x07"
PROGRAM = """
import ctypes, os, sys, time
prctl = ctypes.CDLL(None).prctl
prctl(15, b"\\x1b]0;own\\x07\\xc2\\x9b[red]", 0, 0, 0)
print("\\x1b]0;owned\\x07\\x1b[2J", flush=True)
if sys.argv[1] == "stuck":
    name = "/tmp/\\x1b]0;owned\\x07\\u202e[red]"
    kept = open(name, "w")
    os.unlink(name)
    packets = os.pipe2(os.O_DIRECT)
open("/tmp/ready", "w").close()
while True:
    time.sleep(60)
"""


def start(hosts: Hosts, name: str, mode: str, *options: str) -> None:
    hosts.python(name, PROGRAM, mode, f"{ESCAPE}\u202e", options=["--label", f"word={ESCAPE}|`<b>", *options])
    hosts.sh("source", f"until docker exec {name} test -e /tmp/ready; do sleep 0.05; done")


def cli(*words: str, api: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "cli", *words]
    environment = {**os.environ, "PREFECT_API_URL": api}
    return subprocess.run(command, capture_output=True, env=environment, timeout=200, check=False)


def is_plain(said: str) -> bool:
    return all(each in "\n\t" or unicodedata.category(each) not in {"Cc", "Cf", "Cs"} for each in said)


def plain(done: subprocess.CompletedProcess[bytes]) -> str:
    for said in (done.stdout.decode(), done.stderr.decode()):
        assert is_plain(said), said
        assert "Traceback" not in said, said
    return " ".join((done.stdout + done.stderr).decode().split())


@pytest.fixture
def ways() -> tuple[str, ...]:
    return ("--from", "source", "--to", "destination")


def test_a_command_line_prints_a_containers_words_as_text(
    hosts: Hosts, prefect_api: str, ways: tuple[str, ...]
) -> None:
    place = f"/srv/{ESCAPE}[red]"
    hosts.sh("source", 'mkdir -p "$1"', place)
    start(hosts, "box", "stuck", "--volume", f"{place}:/data")
    checked = cli("check", "box", *ways, api=prefect_api)
    assert checked.returncode == 1
    said = plain(checked)
    assert "\\x1b]0;ow" in said  # a name is cut where its column ends
    as_json = cli("check", "box", *ways, "--json", api=prefect_api)
    plain(as_json)
    found = json.dumps(json.loads(as_json.stdout)["findings"])
    assert "\\\\x1b]0;own\\\\x07" in found
    assert "[red]" in found
    refused = cli("migrate", "box", *ways, api=prefect_api)
    assert refused.returncode == 1
    assert "\\x1b]0;own\\x07" in plain(refused)
    plain(cli("migrate", f"b{ESCAPE}", *ways, api=prefect_api))
    plain(cli("recover", f"m{ESCAPE}", api=prefect_api))
    plain(cli("attest", "destination", api=prefect_api))


def test_a_migration_and_its_pages_are_plain(hosts: Hosts, prefect_api: str, ways: tuple[str, ...]) -> None:
    from prefect.client.orchestration import get_client

    start(hosts, "box", "free")
    moved = cli("migrate", "box", *ways, api=prefect_api)
    assert moved.returncode == 0, moved.stderr
    plain(moved)
    labels = hosts.inspect("destination", "box")["Config"]["Labels"]
    assert labels["word"] == f"{ESCAPE}|`<b>", "it has kept its own words"
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts()
    assert artifacts
    for artifact in artifacts:
        assert is_plain(str(artifact.data)), artifact.key
        assert is_plain(str(artifact.description)), artifact.key


def test_words_make_nobody_a_worker_of_a_migration(hosts: Hosts) -> None:
    """`sweep` kills who works on a migration's images: no container, no local user, no look into the log of a dump."""
    place = "/run/sealift/dumps/made-up"
    hosts.sh(
        "destination",
        f"mkdir -p {place} && cp /bin/sleep /run/runc && chmod 755 /run/runc && : >{place}/dump.log",
    )
    tag = hosts.docker("source", "image", "inspect", "--format", "{{.Id}}", _image(hosts, "source"))
    _image(hosts, "destination")
    words = ["sh", "-c", "sleep 600; :", "checkpoint", "--image-path", f"{place}/final"]
    for name, options in (("one", ()), ("two", ("--pid", "host"))):
        hosts.docker("destination", "run", "-d", "--name", name, *options, tag, *words)
    hosts.sh(
        "destination",
        "setpriv --reuid 65534 --clear-groups sh -c 'sleep 600; :' runc checkpoint "
        f"--image-path {place}/final </dev/null >/dev/null 2>&1 & echo $! >/run/user.pid; "
        f"tail -f {place}/dump.log </dev/null >/dev/null 2>&1 & echo $! >/run/tail.pid",
    )
    time.sleep(0.5)
    began = time.monotonic()
    try:
        with Agent(hosts["destination"], "destination") as agent:
            agent.call(SweepCopy("made-up", "", {}))
        alive: dict[str, Any] = {
            "containers": sorted(hosts.docker("destination", "ps", "--format", "{{.Names}}").split()),
            "others": hosts.sh("destination", "kill -0 $(cat /run/user.pid /run/tail.pid) && echo alive"),
        }
    finally:
        hosts.sh(
            "destination",
            "pkill -P $(cat /run/user.pid); kill $(cat /run/user.pid /run/tail.pid); "
            "rm -f /run/user.pid /run/tail.pid /run/runc",
        )
    assert alive == {"containers": ["one", "two"], "others": "alive"}
    assert time.monotonic() - began < 60


def _image(hosts: Hosts, host: str) -> str:
    from sealift.lab import images

    return images.provide(hosts[host], images.PYTHON, say=print)
