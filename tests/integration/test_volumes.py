"""Volumes: only what a container has left at a host is overwritten there; of a migration that failed nothing stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hosts import untouched
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

SLEEP = "import time; time.sleep(1e9)"
READ = "cd /var/lib/docker/volumes/$1/_data && stat -c '%a %u %g' . && grep -r . || true"


def start(hosts: Hosts, *options: str) -> None:
    hosts.python("box", SLEEP, options=[*options, "--volume", "kept:/data"])


def write(hosts: Hosts, host: str, text: str) -> None:
    hosts.docker(host, "exec", "box", "sh", "-c", 'rm -f /data/*; echo "$1" >"/data/$1"', "sh", text)


def read(hosts: Hosts, host: str, volume: str = "kept") -> list[str]:
    return hosts.sh(host, READ, volume).splitlines()


def fail(hosts: Hosts, source: str, destination: str) -> None:
    """A migration that is rolled back: the CRIU that is to restore fails."""

    def break_it(_: object) -> None:
        hosts[destination].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)

    try:
        with pytest.raises(MigrationFailed):
            hosts.engine("box", {"frozen": break_it}, source, destination)
    finally:
        hosts.sh(destination, "rm -f /usr/local/sbin/criu")


def test_a_container_comes_home_to_the_volume_that_it_left(hosts: Hosts) -> None:
    start(hosts)
    write(hosts, "source", "first")
    hosts.engine("box")
    write(hosts, "destination", "second")
    assert read(hosts, "source")[1:] == ["first:first"]
    fail(hosts, "destination", "source")
    hosts.engine("box", source="destination", destination="source")
    assert read(hosts, "source")[1:] == ["second:second"]
    write(hosts, "source", "third")
    hosts.sh(
        "destination", "echo own >/var/lib/docker/volumes/kept/_data/own"
    )  # somebody has used what was left
    refused = hosts.refuse("box")
    assert "kept" in str(refused)
    assert "docker volume rm" in str(refused)
    assert read(hosts, "destination")[1:] == ["own:own", "second:second"]
    hosts.docker("destination", "volume", "rm", "kept")
    hosts.engine("box")
    assert read(hosts, "destination")[1:] == ["third:third"]


def test_a_volume_with_somebody_else_s_files_is_left_alone(hosts: Hosts) -> None:
    start(hosts)
    write(hosts, "source", "mine")
    hosts.docker("destination", "volume", "create", "kept")
    hosts.sh("destination", "echo theirs >/var/lib/docker/volumes/kept/_data/theirs")
    with untouched(hosts, "box"):
        refused = hosts.refuse("box")
    (reason,) = refused.reasons
    assert "the volume 'kept' is there already, with files that this container has not left there" in reason
    assert read(hosts, "destination")[1:] == ["theirs:theirs"]


def test_an_empty_volume_is_filled_and_empty_again_if_nothing_comes_of_it(hosts: Hosts) -> None:
    start(hosts)
    write(hosts, "source", "mine")
    hosts.sh("source", "chmod 1711 /var/lib/docker/volumes/kept/_data")
    hosts.docker("destination", "volume", "create", "kept")
    hosts.sh("destination", "chown 7:8 /var/lib/docker/volumes/kept/_data")
    before = read(hosts, "destination")
    with untouched(hosts, "box"):
        fail(hosts, "source", "destination")
    assert read(hosts, "destination") == before == ["755 7 8"]
    hosts.engine("box")
    assert read(hosts, "destination") == ["1711 0 0", "mine:mine"]


@pytest.mark.parametrize("where", ["source", "destination"])
def test_what_a_volume_is_an_option_for_is_no_plain_volume(hosts: Hosts, where: str) -> None:
    hosts.sh(where, "mkdir -p /srv/bound")
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", "device=/srv/bound")
    hosts.docker(where, "volume", "create", *options, "kept")
    start(hosts)
    refused = hosts.refuse("box")
    (reason,) = refused.reasons
    assert reason.startswith(f"{where}: the volume 'kept' is of the driver 'local' with the options ")
    assert "device=/srv/bound" in reason
    assert "docker volume create" in reason
