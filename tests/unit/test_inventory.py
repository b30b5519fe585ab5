"""The inventory is read strictly, and what is wrong in it is said with the file's name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift import inventory as inventories
from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from pathlib import Path

HOST = """address = "192.0.2.1"
host_key = "ssh-ed25519 AAAA"
key_file = "/etc/key"
"""
GOOD = f"[hosts.a]\n{HOST}tunnel_address = '10.78.0.1'\n[hosts.b]\n{HOST}[gateway]\n{HOST}"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sealift.toml"
    path.write_text(text)
    return path


def test_a_good_one_has_its_defaults(tmp_path: Path) -> None:
    inventory = inventories.load(written(tmp_path, GOOD))
    assert inventory.host("a").port == 22
    assert str(inventory.network.workloads) == "10.77.0.0/16"
    assert inventory.machine("gateway") == inventory.gateway
    assert inventory.lab is None


def test_it_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    inventory = inventories.load(written(tmp_path, GOOD))
    again = tmp_path / "again.toml"
    inventories.save(inventory, again)
    assert inventories.load(again) == inventory
    assert again.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hosts =", "is not readable as TOML"),
        ("[hosts]\n", "gateway: Field required"),
        (GOOD.replace("10.78.0.1", "10.79.0.1"), "a's tunnel_address 10.79.0.1 is outside of the tunnel"),
        (
            f"{GOOD}[network]\ntunnel = '10.77.3.0/24'\n",
            "network: tunnel 10.77.3.0/24 and workloads",
        ),
        (
            GOOD.replace("host_key", "hostkey"),
            "hosts.a.hostkey: 'hostkey' is not known here, the nearest word is 'host_key'",
        ),
        (GOOD.replace('host_key = "ssh-ed25519 AAAA"\n', ""), "neither a host_key nor a table vm"),
        (GOOD.replace("'10.78.0.1'", "'somewhere'"), "hosts.a.tunnel_address"),
        (GOOD + "port = 99999\n", "gateway.port"),
        (GOOD + "\xff", "sealift.toml"),
    ],
)
def test_what_is_wrong_is_said_with_the_name_of_the_file(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "sealift.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(UnusableInput) as raised:
        inventories.load(path)
    assert said in str(raised.value)
    assert "sealift.toml" in str(raised.value)


def test_an_unknown_host_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    inventory = inventories.load(written(tmp_path, GOOD))
    with pytest.raises(UnusableInput, match=r"no host 'c'.*Hosts are: a, b"):
        inventory.host("c")


def test_the_environment_names_one_unless_one_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, GOOD)
    monkeypatch.setenv("SEALIFT_INVENTORY", str(path))
    assert inventories.find() == path
    with pytest.raises(UnusableInput, match="there is no inventory"):
        inventories.find(tmp_path / "other.toml")
