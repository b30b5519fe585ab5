"""The destination's container is described as the source's is."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sealift.host.docker import RUNTIME
from sealift.migration.binds import NO_BINDS, Binds
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
                "sealift": {
                    "IPAddress": "10.77.0.9",
                    "Aliases": ["other", ID[:12]],
                    "DriverOpts": None,
                    "MacAddress": "02:42:0a:4d:00:09",
                }
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
    plan = counterpart(described(), NO_BINDS, "sealift")
    assert plan.body["Env"] == ["A=1"]
    assert plan.body["Labels"] == {"colour": "blue"}
    assert plan.body["HostConfig"]["RestartPolicy"]["Name"] == "no", "until it has won"
    assert plan.body["HostConfig"]["Runtime"] == RUNTIME
    endpoint = plan.body["NetworkingConfig"]["EndpointsConfig"]["sealift"]
    assert endpoint["IPAMConfig"] == {"IPv4Address": "10.77.0.9"}
    assert endpoint["Aliases"] == ["other"]
    assert endpoint["MacAddress"] == "02:42:0a:4d:00:09"


def test_the_description_given_stays_as_it_is() -> None:
    given = described(Mounts=[volume("data")])
    before = repr(given)
    counterpart(given, NO_BINDS, "sealift")
    assert repr(given) == before


def test_volumes_are_mounted_by_name_and_not_filled_from_the_image() -> None:
    plan = counterpart(
        described(Mounts=[volume("data"), volume("fixed", writable=False)]), NO_BINDS, "sealift"
    )
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
    plan = counterpart(
        described(Mounts=[mount]), Binds(((PurePosixPath("/srv/a"), PurePosixPath("/mnt/b")),)), "sealift"
    )
    assert plan.binds == (("/srv/a", "/mnt/b"),)
    assert plan.body["HostConfig"]["Binds"] == ["/mnt/b:/data:rw"]
    assert counterpart(described(Mounts=[mount]), NO_BINDS, "sealift").binds == ()


def test_a_part_of_a_volume_stays_a_part() -> None:
    given = described(Mounts=[volume("data", writable=False), volume("whole")])
    part = {"Type": "volume", "Source": "data", "Target": "/data", "VolumeOptions": {"Subpath": "a/b"}}
    given["HostConfig"]["Mounts"] = [part, {"Type": "volume", "Source": "whole", "Target": "/whole"}]
    plan = counterpart(given, NO_BINDS, "sealift")
    assert plan.volumes == ("data", "whole")
    assert plan.body["HostConfig"]["Binds"] == ["whole:/whole:rw,nocopy"]
    assert plan.body["HostConfig"]["Mounts"] == [
        {
            "Type": "volume",
            "Source": "data",
            "Target": "/data",
            "ReadOnly": True,
            "VolumeOptions": {"NoCopy": True, "Subpath": "a/b"},
        }
    ]
