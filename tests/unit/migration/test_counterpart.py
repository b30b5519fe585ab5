"""The destination's container is described as the source's is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sealift.host.docker import RUNTIME
from sealift.migration.counterpart import counterpart

ID = "0123456789ab" + "0" * 52


def described(**changes: Any) -> dict[str, Any]:
    container: dict[str, Any] = {
        "Id": ID,
        "Config": {"Image": "image", "Env": ["A=1"], "Labels": {"colour": "blue"}, "Hostname": "itself"},
        "HostConfig": {"Memory": 1, "RestartPolicy": {"Name": "always"}, "Runtime": "runc", "Binds": None},
        "Mounts": [],
        "NetworkSettings": {
            "Networks": {
                "sealift": {"IPAddress": "10.77.0.9", "Aliases": ["other", ID[:12]], "DriverOpts": None}
            }
        },
    }
    return {**container, **changes}


def volume(name: str, *, writable: bool = True, mode: str = "z") -> dict[str, Any]:
    return {
        "Type": "volume",
        "Name": name,
        "Destination": f"/{name}",
        "RW": writable,
        "Mode": mode,
        "Source": "/x",
    }


def test_configuration_address_and_aliases_are_kept_and_the_runtime_is_ours() -> None:
    plan = counterpart(described(), {}, "sealift")
    assert plan.body["Env"] == ["A=1"]
    assert plan.body["Labels"] == {"colour": "blue"}
    assert plan.body["HostConfig"]["RestartPolicy"]["Name"] == "no", "until it has won"
    assert plan.body["HostConfig"]["Runtime"] == RUNTIME
    endpoint = plan.body["NetworkingConfig"]["EndpointsConfig"]["sealift"]
    assert endpoint["IPAMConfig"] == {"IPv4Address": "10.77.0.9"}
    assert endpoint["Aliases"] == ["other"]


def test_the_description_given_stays_as_it_is() -> None:
    given = described(Mounts=[volume("data")])
    before = repr(given)
    counterpart(given, {}, "sealift")
    assert repr(given) == before


def test_volumes_are_mounted_by_name_and_not_filled_from_the_image() -> None:
    plan = counterpart(described(Mounts=[volume("data"), volume("fixed", writable=False)]), {}, "sealift")
    assert plan.volumes == ("data", "fixed")
    assert plan.body["HostConfig"]["Binds"] == ["data:/data:rw,nocopy", "fixed:/fixed:ro,nocopy"]


def test_a_bind_mount_goes_where_its_name_lies_at_the_destination() -> None:
    mount = {
        "Type": "bind",
        "Source": "/srv/a",
        "Destination": "/data",
        "RW": True,
        "Mode": "",
        "Propagation": "",
    }
    plan = counterpart(described(Mounts=[mount]), {"d": (Path("/srv/a"), Path("/mnt/b"))}, "sealift")
    assert plan.binds == (("/srv/a", "/mnt/b"),)
    assert plan.body["HostConfig"]["Binds"] == ["/mnt/b:/data:rw"]
    assert counterpart(described(Mounts=[mount]), {}, "sealift").binds == ()
