"""A VM gets its name, addresses and keys on a disk of its own, which nobody but root reads."""

import io
import tarfile
from ipaddress import IPv4Address, IPv4Interface

import pytest

from sealift.errors import UnusableInput
from sealift.machine.boot import (
    GuestConfiguration,
    GuestFile,
    NetworkInterface,
    configuration_bytes,
    write_configuration,
)


def configuration(**changes):
    values = {
        "hostname": "source",
        "interfaces": (
            NetworkInterface("52:54:00:AA:00:01", IPv4Interface("10.0.0.2/24"), IPv4Address("10.0.0.1")),
            NetworkInterface("52:54:00:aa:00:02", IPv4Interface("10.1.0.2/30")),
        ),
        "authorized_keys": ("ssh-ed25519 AAAA one", "ssh-ed25519 BBBB two\n"),
        "host_key": b"-----BEGIN OPENSSH PRIVATE KEY-----\n",
        "files": (GuestFile("/etc/wireguard/wg0.conf", b"[Interface]\n", 0o600),),
    }
    return GuestConfiguration(**{**values, **changes})


def members(archive):
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        return {m.name: (m, tar.extractfile(m).read() if m.isfile() else None) for m in tar.getmembers()}


def test_all_that_was_configured_is_on_the_disk():
    found = members(configuration_bytes(configuration()))
    assert found["etc/hostname"][1] == b"source\n"
    assert found["etc/sealift/network"][1] == (
        b"52:54:00:aa:00:01 10.0.0.2/24 10.0.0.1\n52:54:00:aa:00:02 10.1.0.2/30 -\n"
    )
    assert found["root/.ssh/authorized_keys"][1] == b"ssh-ed25519 AAAA one\nssh-ed25519 BBBB two\n"
    assert found["etc/wireguard/wg0.conf"][1] == b"[Interface]\n"
    assert len(found["etc/machine-id"][1]) == 33


def test_keys_and_their_folders_are_private():
    found = members(configuration_bytes(configuration()))
    for name in ("etc/ssh/ssh_host_ed25519_key", "root/.ssh/authorized_keys", "etc/wireguard/wg0.conf"):
        assert found[name][0].mode == 0o600
    for name in ("root/.ssh", "etc/wireguard", "root"):
        assert found[name][0].mode == 0o700
    assert found["etc/ssh"][0].mode == 0o755


def test_the_disk_is_readable_by_its_owner_only(tmp_path):
    disk = tmp_path / "config"
    disk.write_bytes(b"old")
    write_configuration(disk, configuration())
    assert disk.stat().st_mode & 0o777 == 0o600
    assert disk.stat().st_size % 512 == 0
    assert disk.read_bytes() == configuration_bytes(configuration())


def test_secrets_do_not_show_in_what_is_printed():
    assert "PRIVATE" not in repr(configuration())
    assert "Interface]" not in repr(configuration())


@pytest.mark.parametrize("path", ["etc/passwd", "/etc/../passwd", "/", ""])
def test_a_path_that_is_not_absolute_is_refused(path):
    with pytest.raises(UnusableInput, match="absolute path"):
        configuration_bytes(configuration(files=(GuestFile(path, b""),)))


@pytest.mark.parametrize("name", ["", "-a", "A", "a b", "a/b", "x" * 64])
def test_a_name_that_no_host_can_have_is_refused(name):
    with pytest.raises(UnusableInput, match="hostname"):
        configuration_bytes(configuration(hostname=name))
