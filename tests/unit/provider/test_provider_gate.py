"""The gate: an owner's SSH key may give orders and nothing else; over a real sshd where there is one."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import sealift
from sealift.errors import CommandFailed, HostUnreachable, UnusableInput
from sealift.evidence.launch.digest import Mode
from sealift.host import ssh
from sealift.inventory import Host
from sealift.keys import make_ssh_key
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path
from sealift.process import Completed
from sealift.processor.interface import SnpLaunch
from sealift.processor.wire import to_json
from sealift.provider import gate
from sealift.provider.client import ProviderClient
from sealift.provider.orders import StartOrder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sealift.provider.service import Provider

ORDER = StartOrder("one", "base", SnpLaunch(), "tap0", "52:54:00:00:00:01", data_disk_mib=4)


@pytest.mark.parametrize(
    "asked", ["list", "sealift provider list", "start", "serve", "sealift provider stop"]
)
def test_orders_are_admitted(asked: str) -> None:
    assert gate.admit(asked) == asked.rsplit(maxsplit=1)[-1]


@pytest.mark.parametrize(
    "asked",
    [
        None,
        "",
        "sh",
        "list; sh",
        "list\nsh",
        "list --settings /tmp/x",
        "sealift provider",
        "sealift provider gate",
        "sealift lab down",
        "$(sh)",
        "start && sh",
        " list",
        "list ",
        "internal-sftp",
        "scp -t /",
        "LIST",
    ],
)
def test_anything_else_is_not(asked: str | None) -> None:
    with pytest.raises(UnusableInput, match="accepts only"):
        gate.admit(asked)


def test_an_account_gets_one_line_without_a_way_around_it() -> None:
    key = "ssh-ed25519 AAAAC3Nz owner@example"
    line = gate.authorized_line(f"{key}\n", ["/usr/bin/python3", "-P", "-m", "sealift.provider", "gate"])
    assert line == f'restrict,command="/usr/bin/python3 -P -m sealift.provider gate" {key}'
    for wrong in ("no key", f"{key}\n{key}", f'command="sh" {key}'):
        with pytest.raises(UnusableInput):
            gate.authorized_line(wrong, ["x"])
    with pytest.raises(UnusableInput):
        gate.authorized_line(key, ['a"b'])


def test_orders_come_as_lines_and_each_has_its_answer(provider: Provider) -> None:
    lines = [
        {"order": "start", **to_json(ORDER)},
        {"order": "list"},
        {"order": "gate"},
        {"order": "evidence", "mode": "snp", "vm": "one"},
        {"order": "stop", "vm": "one"},
    ]
    said = b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b"no json\n"
    heard = io.BytesIO()
    assert gate.serve(provider, io.BytesIO(said), heard) == 0
    start, listed, unknown, evidence, stopped, broken = (
        json.loads(line) for line in heard.getvalue().splitlines()
    )
    assert start["result"]["phase"] == "running"
    assert [vm["vm"] for vm in listed["result"]["vms"]] == ["one"]
    assert unknown["kind"] == broken["kind"] == "UnusableInput"
    assert evidence["result"]["backend"] == "emulated"
    assert stopped["result"]["vms"] == []


def test_an_order_without_end_is_not_read_to_its_end(provider: Provider) -> None:
    heard = io.BytesIO()
    assert gate.answer(provider, "start", io.BytesIO(b"x" * (gate.INPUT_LIMIT + 9)), heard)
    assert "too long" in json.loads(heard.getvalue())["error"]


class Direct:
    """A line to the provider without SSH."""

    name = "provider"

    def __init__(self, provider: Provider | None) -> None:
        self.provider = provider

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 0, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        if self.provider is None:
            return Completed(2, "", "sealift provider: this account accepts only the provider's orders")
        heard = io.BytesIO()
        status = gate.answer(self.provider, gate.admit(" ".join(argv)), io.BytesIO(stdin), heard)
        return Completed(status, heard.getvalue().decode(), "")


def test_the_owners_client_speaks_the_same_orders(provider: Provider) -> None:
    client = ProviderClient(Direct(provider))
    state = client.start(ORDER)
    assert client.list() == (state,)
    assert client.evidence(Mode.SNP, "one").launch_id == state.launch_id
    assert client.resume("one") == state
    with pytest.raises(CommandFailed, match="Stop it first") as told:
        client.start(StartOrder("one", "base", None, "tap0", ORDER.mac))
    assert told.value.host == "provider"
    client.stop("one")
    with pytest.raises(UnusableInput, match="no VM"):
        client.evidence(Mode.SNP, "one")
    with pytest.raises(HostUnreachable, match="accepts only"):
        ProviderClient(Direct(None)).list()


@pytest.fixture
def sshd(provider: Provider, short_path: Path) -> Iterator[Host]:
    """An unprivileged sshd of this machine on loopback, or the Debian tree's in its root."""
    tree = tree_path(RECIPE)
    own = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
    if own is None and not (os.geteuid() == 0 and (tree / "usr/sbin/sshd").exists()):
        pytest.skip("there is no sshd, neither on this machine nor in a built Debian tree")
    settings = provider.settings
    (short_path / "provider.toml").write_text(
        f'processor = "emulated"\nstate = "{settings.state}"\nimages = "{settings.images}"\n'
        f'disks = "{settings.disks}"\nchip = "{settings.chip}"\nauthority = "{settings.authority}"\n'
    )
    host_key, login = make_ssh_key(), make_ssh_key()
    for name, content in (("host", host_key.private), ("login", login.private)):
        (short_path / name).write_text(content)
        (short_path / name).chmod(0o600)
    python = sys.executable if own else "/usr/bin/python3"
    package = str(Path(sealift.__file__).parents[1])
    words = ["env", f"PYTHONPATH={package}", python, "-P", "-m", "sealift.provider"]
    words += ["--settings", str(short_path / "provider.toml"), "gate"]
    (short_path / "keys").write_text(gate.authorized_line(login.public, words) + "\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = {
        "ListenAddress": "127.0.0.1",
        "Port": port,
        "HostKey": short_path / "host",
        "AuthorizedKeysFile": short_path / "keys",
        "PidFile": "none",
        "StrictModes": "no",
        "UsePAM": "no",
        "PasswordAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
        "Subsystem": "sftp internal-sftp",
    }
    (short_path / "config").write_text("".join(f"{name} {value}\n" for name, value in config.items()))
    command = ["/usr/sbin/sshd" if own is None else own, "-D", "-e", "-f", str(short_path / "config")]
    if own is None:
        script = (
            'mount -t tmpfs none "$1/run" && mkdir -p "$1/run/sshd" && mount --rbind /tmp "$1/tmp" && '
            'mkdir -p "$1/run/p" && mount --rbind /proc "$1/proc" && mount --rbind /dev "$1/dev" && '
            'mount -t tmpfs none "$1/mnt" && mkdir -p "$1/mnt/s" && mount --bind "$2" "$1/mnt/s" && '
            'shift 2 && exec chroot "$@"'
        )
        (short_path / "keys").write_text((short_path / "keys").read_text().replace(package, "/mnt/s"))
        command = ["unshare", "--mount", "sh", "-c", script, "sshd", str(tree), package, str(tree), *command]
    log = (short_path / "sshd.log").open("w")
    with log, subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=log) as server:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and "listening" not in (short_path / "sshd.log").read_text():
            time.sleep(0.02)
        user = "root" if own is None else os.environ.get("USER") or "root"
        yield Host(
            address="127.0.0.1", port=port, user=user, host_key=host_key.public, key_file=short_path / "login"
        )
        server.terminate()


def test_over_ssh_the_key_gives_orders_and_opens_nothing_else(sshd: Host, short_path: Path) -> None:
    with ssh.connected("provider", sshd) as line:
        done = line.run(["sealift", "provider", "list"], check=False)
        if "No module named 'cryptography'" in done.stderr:
            assert "Traceback" in done.stderr  # the gate ran; the tree lacks python3-cryptography
        else:
            assert ProviderClient(line).list() == (), done.stderr
        for other in (["sh", "-c", f"touch {short_path}/got-in"], ["cat", "/etc/passwd"], ["sftp"]):
            refused = line.run(other, check=False)
            assert refused.status
            assert "root:" not in refused.stdout
        assert not (short_path / "got-in").exists()
        transport = line.client.get_transport()
        assert transport is not None
        with pytest.raises(Exception, match=r"(?i)prohibited|refused|denied|open"):
            transport.open_channel("direct-tcpip", ("127.0.0.1", 22), ("127.0.0.1", 1), timeout=5)
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever paramiko calls it: there is no sftp
            line.client.open_sftp().listdir("/")
