"""What the init of a measured VM takes from its configuration, which the provider wrote: run by busybox's shell."""

import subprocess
from importlib import resources
from ipaddress import IPv4Address, IPv4Interface

import pytest

from sealift.machine.boot import GuestConfiguration, NetworkInterface, configuration_bytes
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path

LINE = "52:54:00:00:00:01 192.0.2.2/24 192.0.2.1\n"


def ask(call, content, **variables):
    busybox = tree_path(RECIPE) / "usr/bin/busybox"
    if not busybox.exists():
        pytest.skip("the Debian tree is not built: `sealift lab up` builds it")
    script = str(resources.files("sealift.machine") / "init.sh")
    done = subprocess.run(
        [busybox, "sh", "-c", f'. "$0"; {call}', script],
        input=content.encode(),
        capture_output=True,
        check=False,
        env={"PATH": "/usr/bin:/bin", **variables},
    )
    return done.returncode, done.stdout.decode()


def test_lines_with_addresses_are_taken():
    lines = LINE + LINE.replace("192.0.2.1\n", "-\n")
    assert ask('few_lines "$network_line"', lines) == (0, lines)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "52:54:00:00:00:01 192.0.2.2/24",
        "52:54:00:00:00:01 192.0.2.2/24 192.0.2.1 more",
        "52:54:00:00:00:01 192.0.2.2/24 $(reboot)",
        "52:54:00:00:00:01 192.0.2.2/24;reboot -",
        "52:54:00:00:00:01  192.0.2.2/24 -",
        "* 192.0.2.2/24 -",
        "52:54:00:00:00:01 fe80::1/64 -",
    ],
)
def test_a_line_that_is_no_address_is_refused_with_all_others(line):
    assert ask('few_lines "$network_line"', LINE + line + "\n" + LINE) == (1, "")


def test_more_than_a_few_lines_are_refused():
    assert ask('few_lines "$network_line"', LINE * 9) == (1, "")
    assert ask('few_lines "$network_line"', LINE * 8)[0] == 0


def test_nothing_is_refused():
    assert ask('few_lines "$network_line"', "") == (1, "")


@pytest.mark.parametrize(
    ("name", "status"), [("sealed-1", 0), ("a", 0), ("-a", 1), ("A", 1), ("a b", 1), ("a/b", 1)]
)
def test_a_hostname_is_one(name, status):
    assert ask('few_lines "$name_line"', f"{name}\n")[0] == status


def test_a_configuration_yields_its_addresses_and_nothing_else(tmp_path):
    disk = tmp_path / "configuration"
    disk.write_bytes(
        configuration_bytes(
            GuestConfiguration(
                hostname="sealed",
                interfaces=(
                    NetworkInterface(
                        "52:54:00:00:00:01", IPv4Interface("192.0.2.2/24"), IPv4Address("192.0.2.1")
                    ),
                ),
                authorized_keys=("ssh-ed25519 AAAA intruder",),
                host_key=b"key",
            )
        )
    )
    call = 'configured etc/sealift/network "$network_line"; configured etc/hostname "$name_line"'
    assert ask(call, "", configuration=str(disk)) == (0, LINE + "sealed\n")


TABLES = ("APIC", "DSDT", "FACP", "FACS")


@pytest.fixture
def tables(tmp_path):
    for name in ("data", "dynamic"):
        (tmp_path / name).mkdir()
    for name in (*TABLES, "own"):
        (tmp_path / name).write_bytes(b"DSDT's bytes")
    (tmp_path / "own").rename(tmp_path.parent / "own")
    return tmp_path


def has_own_tables(tables):
    return ask(f'own_tables "{tables}" "{tables.parent}/own"', "")[0] == 0


def test_the_images_acpi_tables_are_accepted(tables):
    assert has_own_tables(tables)


@pytest.mark.parametrize("name", ["SSDT", "SSDT1", "PRMT", "MCFG", "DSDT1", "dynamic/SSDT2", "a b"])
def test_any_other_acpi_table_is_refused(tables, name):
    (tables / name).write_bytes(b"other")
    assert not has_own_tables(tables)


def test_another_dsdt_is_refused_and_so_is_none(tables):
    (tables / "DSDT").write_bytes(b"DSDT's Bytes")
    assert not has_own_tables(tables)
    (tables / "DSDT").unlink()
    assert not has_own_tables(tables)


def test_a_kernel_without_acpi_is_refused(tables):
    assert not has_own_tables(tables / "nowhere")
