"""Volumes: only what a container has left at a host is overwritten there; of a migration that failed nothing stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from stage import untouched
from test_failures import BROKEN_CRIU

from sealift.errors import MigrationFailed

if TYPE_CHECKING:
    from stage import Stage

pytestmark = [pytest.mark.root, pytest.mark.netns]

SLEEP = "import time; time.sleep(1e9)"
READ = "cd /var/lib/docker/volumes/$1/_data && stat -c '%a %u %g' . && grep -r . || true"


def start(stage: Stage, *options: str) -> None:
    stage.python("box", SLEEP, options=[*options, "--volume", "kept:/data"])


def write(stage: Stage, host: str, text: str) -> None:
    stage.docker(host, "exec", "box", "sh", "-c", 'rm -f /data/*; echo "$1" >"/data/$1"', "sh", text)


def read(stage: Stage, host: str, volume: str = "kept") -> list[str]:
    return stage.sh(host, READ, volume).splitlines()


def fail(stage: Stage, source: str, destination: str) -> None:
    """A migration that is rolled back: the CRIU that is to restore fails."""

    def break_it(_: object) -> None:
        stage[destination].put("/usr/local/sbin/criu", BROKEN_CRIU.encode(), mode=0o755)

    try:
        with pytest.raises(MigrationFailed):
            stage.engine("box", {"frozen": break_it}, source, destination)
    finally:
        stage.sh(destination, "rm -f /usr/local/sbin/criu")


def test_a_container_comes_home_to_the_volume_that_it_left(stage: Stage) -> None:
    start(stage)
    write(stage, "source", "first")
    stage.engine("box")
    write(stage, "destination", "second")
    assert read(stage, "source")[1:] == ["first:first"]
    fail(stage, "destination", "source")
    stage.engine("box", source="destination", destination="source")
    assert read(stage, "source")[1:] == ["second:second"]
    write(stage, "source", "third")
    stage.sh(
        "destination", "echo own >/var/lib/docker/volumes/kept/_data/own"
    )  # somebody has used what was left
    refused = stage.refuse("box")
    assert "kept" in str(refused)
    assert "docker volume rm" in str(refused)
    assert read(stage, "destination")[1:] == ["own:own", "second:second"]
    stage.docker("destination", "volume", "rm", "kept")
    stage.engine("box")
    assert read(stage, "destination")[1:] == ["third:third"]


def test_a_volume_with_somebody_else_s_files_is_left_alone(stage: Stage) -> None:
    start(stage)
    write(stage, "source", "mine")
    stage.docker("destination", "volume", "create", "kept")
    stage.sh("destination", "echo theirs >/var/lib/docker/volumes/kept/_data/theirs")
    with untouched(stage, "box"):
        refused = stage.refuse("box")
    (reason,) = refused.reasons
    assert "the volume 'kept' is there already, with files that this container has not left there" in reason
    assert read(stage, "destination")[1:] == ["theirs:theirs"]


def test_an_empty_volume_is_filled_and_empty_again_if_nothing_comes_of_it(stage: Stage) -> None:
    start(stage)
    write(stage, "source", "mine")
    stage.sh("source", "chmod 1711 /var/lib/docker/volumes/kept/_data")
    stage.docker("destination", "volume", "create", "kept")
    stage.sh("destination", "chown 7:8 /var/lib/docker/volumes/kept/_data")
    before = read(stage, "destination")
    with untouched(stage, "box"):
        fail(stage, "source", "destination")
    assert read(stage, "destination") == before == ["755 7 8"]
    stage.engine("box")
    assert read(stage, "destination") == ["1711 0 0", "mine:mine"]


@pytest.mark.parametrize("where", ["source", "destination"])
def test_what_a_volume_is_an_option_for_is_no_plain_volume(stage: Stage, where: str) -> None:
    stage.sh(where, "mkdir -p /srv/bound")
    options = ("--opt", "type=none", "--opt", "o=bind", "--opt", "device=/srv/bound")
    stage.docker(where, "volume", "create", *options, "kept")
    start(stage)
    refused = stage.refuse("box")
    (reason,) = refused.reasons
    assert reason.startswith(f"{where}: the volume 'kept' is of the driver 'local' with the options ")
    assert "device=/srv/bound" in reason
    assert "docker volume create" in reason
