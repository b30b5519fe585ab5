"""What a container mounts is there after a migration as it was: single files, parts of volumes, binds by any name."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hosts import untouched

from sealift.errors import Refused

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

SLEEP = "import time; time.sleep(1e9)"
WRITES = """
import time
file = open("/app.conf", "r+")
while True:
    file.seek(0)
    file.write(f"{time.monotonic_ns():020}")
    file.flush()
    time.sleep(0.01)
"""


def paths(hosts: Hosts, host: str, script: str) -> str:
    """Run a script in a folder of the test's own on a host."""
    return hosts.sh(host, f"mkdir -p /srv/mounts; cd /srv/mounts; {script}")


@pytest.fixture(autouse=True)
def tidy(hosts: Hosts) -> Any:
    yield
    hosts.clean()
    for host in ("source", "destination"):
        hosts.sh(host, "rm -rf /srv/mounts /srv/elsewhere")


def test_a_single_file_goes_there_and_back_while_it_is_written(hosts: Hosts) -> None:
    paths(hosts, "source", "printf %020d 0 >app.conf; echo own >beside; chmod 640 app.conf")
    paths(hosts, "destination", "printf %s something-much-longer-than-that >app.conf; echo theirs >beside")
    hosts.python("box", WRITES, options=["--volume", "/srv/mounts/app.conf:/app.conf"])
    bind = ["/srv/mounts/app.conf=/srv/mounts/app.conf"]
    for source, destination in (("source", "destination"), ("destination", "source")):
        hosts.engine("box", source=source, destination=destination, bind=bind)
        first, second = (
            int(hosts.docker(destination, "exec", "box", "sh", "-c", script))
            for script in ("cat /app.conf", "sleep 0.1; cat /app.conf")
        )
        assert second > first > int(paths(hosts, source, "cat app.conf"))
        assert paths(hosts, destination, "stat -c '%a %s' app.conf; cat beside").splitlines() == [
            "640 20",
            {"source": "own", "destination": "theirs"}[destination],
        ]


def test_what_no_name_covers_goes_to_the_same_path_if_nothing_is_lost_by_it(hosts: Hosts) -> None:
    paths(hosts, "source", "mkdir -p a/deep; echo deep >a/deep/file; echo setting >b.conf")
    hosts.python(
        "box",
        SLEEP,
        options=["--volume", "/srv/mounts/a/deep:/a:ro", "--volume", "/srv/mounts/b.conf:/b.conf"],
    )
    paths(hosts, "destination", "echo theirs >b.conf")
    refused = hosts.refuse("box")
    assert isinstance(refused, Refused)
    assert sum("has no counterpart" in reason for reason in refused.reasons) == 2
    with untouched(hosts, "box"), pytest.raises(Refused, match="with other content"):
        hosts.engine("box", binds_as_they_are=True)
    assert paths(hosts, "destination", "cat b.conf; ls") == "theirs\nb.conf"
    hosts.sh("destination", "mkdir -p /srv/elsewhere; touch /srv/elsewhere/b.conf")
    hosts.engine("box", binds_as_they_are=True, bind=["/srv/mounts/b.conf=/srv/elsewhere/b.conf"])
    assert hosts.docker("destination", "exec", "box", "cat", "/a/file", "/b.conf") == "deep\nsetting"
    assert paths(hosts, "destination", "cat b.conf a/deep/file") == "theirs\ndeep"
    (mounted,) = (
        mount for mount in hosts.inspect("destination", "box")["Mounts"] if mount["Destination"] == "/a"
    )
    assert (mounted["Source"], mounted["RW"]) == ("/srv/mounts/a/deep", False)


def test_a_named_directory_covers_what_is_beneath_it(hosts: Hosts) -> None:
    paths(
        hosts, "source", "mkdir -p shop/data shop/conf; echo 1 >shop/data/one; echo set >shop/conf/app.conf"
    )
    hosts.sh(
        "destination", "mkdir -p /srv/elsewhere/data /srv/elsewhere/conf; touch /srv/elsewhere/conf/app.conf"
    )
    volumes = ["--volume", "/srv/mounts/shop/data:/data", "--volume", "/srv/mounts/shop/conf/app.conf:/conf"]
    hosts.python("box", SLEEP, options=volumes)
    hosts.engine("box", bind=["/srv/mounts/shop=/srv/elsewhere"])
    assert hosts.docker("destination", "exec", "box", "cat", "/data/one", "/conf") == "1\nset"
    assert hosts.sh("destination", "cd /srv/elsewhere; cat data/one conf/app.conf") == "1\nset"


def test_docker_s_socket_is_refused_by_name(hosts: Hosts) -> None:
    hosts.python("box", SLEEP, options=["--volume", "/var/run/docker.sock:/var/run/docker.sock"])
    refused = hosts.refuse("box")
    assert "/var/run/docker.sock is a socket, at which a program of the host answers" in str(refused)


def test_a_part_of_a_volume_is_a_part_of_it_afterwards(hosts: Hosts) -> None:
    hosts.docker("source", "volume", "create", "kept")
    hosts.sh(
        "source",
        "cd /var/lib/docker/volumes/kept/_data; mkdir -p a/b; echo deep >a/b/file; echo secret >top",
    )
    part = "type=volume,source=kept,target=/part,volume-subpath=a/b"
    program = "import time; file = open('/part/file', 'a'); time.sleep(1e9)"
    hosts.python("box", program, options=["--mount", part])
    for source, destination in (("source", "destination"), ("destination", "source")):
        hosts.engine("box", source=source, destination=destination)
        assert hosts.docker(destination, "exec", "box", "ls", "/part") == "file"
        assert hosts.sh(destination, "ls /var/lib/docker/volumes/kept/_data") == "a\ntop"
    described = hosts.inspect("source", "box")["HostConfig"]["Mounts"]
    assert described[0]["VolumeOptions"]["Subpath"] == "a/b", json.dumps(described)
