"""A destination that does not prove what it is: refused with the reason named, and not one byte has left the source."""

from __future__ import annotations

import base64
import json
import secrets
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from attack import (
    GUEST_PORT,
    IMPOSTOR_PORT,
    chip,
    configured,
    counting_at_source,
    impostor,
    other_ssh_key,
    relaunched,
    until_shown,
)
from hosts import arrive, untouched

from sealift import inventory as inventories
from sealift.attestation.attest import attest, keystore_of
from sealift.attestation.provision import provision
from sealift.attestation.record import Records, pinned
from sealift.errors import EvidenceRejected, HostUnreachable, Refused, SealiftError
from sealift.evidence.formats.snp_report import PolicyBit
from sealift.evidence.formats.tcb import Tcb
from sealift.evidence.verify.policy import parse_policy, write_policy
from sealift.host import ssh, stranger
from sealift.keys import make_wireguard_key
from sealift.lab import lab
from sealift.migration import steps
from sealift.migration.request import Options, Request
from sealift.migration.session import Session
from sealift.model import Evidence, Step
from sealift.processor.interface import SNP_POLICY_DEFAULT, SnpLaunch
from sealift.processor.measured import MeasuredTree

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]

PLACES = ("198.18.0.20", "10.78.0.20", "198.18.0.4")
"""The destination, bare and through the tunnel, and the provider."""

ATTESTATION_S = 1.0


def changed(inventory: Inventory, host: str, **fields: Any) -> Inventory:
    entry = inventory.hosts[host].model_copy(update=fields)
    return inventory.model_copy(update={"hosts": {**inventory.hosts, host: entry}})


def rejection(hosts: Hosts, inventory: Inventory | None = None) -> EvidenceRejected:
    """Migrate by the flow, from its first step; the rejection that it must end in, with nothing sent."""
    address = hosts.redis("redis", memory_mb=5)
    with (
        untouched(hosts, "redis", address),
        counting_at_source(hosts, *PLACES) as sent,
        pytest.raises(EvidenceRejected) as raised,
    ):
        go(hosts, inventory)
    assert sent == dict.fromkeys(PLACES, 0)
    assert hosts.owner(address) == "source"
    assert raised.value.step == Step.ATTEST
    assert raised.value.host == "destination"
    return raised.value


def go(hosts: Hosts, inventory: Inventory | None) -> None:
    """A migration by the flow: its evidence is asked for as the inventory says."""
    from flows.migrate import migrate

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sealift.toml"
        inventories.save(inventory or hosts.inventory, path)
        migrate("redis", "source", "destination", inventory=path)


def names(error: EvidenceRejected, *checks: str) -> None:
    """These checks are among the reasons, and the sentence names them too."""
    found = {reason.partition(":")[0] for reason in error.reasons}
    assert set(checks) <= found, f"{checks} are not all in {found}"
    for check in checks:
        assert check in str(error)


def asked(hosts: Hosts, host: str, nonce: bytes) -> str:
    """A host's honest answer to somebody's nonce."""
    question = {"order": "attest", "owner_nonce": base64.b64encode(nonce).decode()}
    return ssh.ask(hosts[host], GUEST_PORT, json.dumps(question).encode(), timeout_s=20).decode()


def test_another_measurement(hosts: Hosts) -> None:
    with relaunched("destination", tree=MeasuredTree(b"something else")):
        names(rejection(hosts), "measurement")


def test_a_policy_that_allows_debugging(hosts: Hosts) -> None:
    with relaunched("destination", SnpLaunch(policy=SNP_POLICY_DEFAULT | PolicyBit.DEBUG)):
        names(rejection(hosts), "guest_policy.debug")


def test_an_old_tcb(hosts: Hosts) -> None:
    old = {"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 0x73, "fmc": None}
    assert Tcb(**old)
    with configured("destination", current_tcb=old):
        error = rejection(hosts)
    assert any("tcb" in reason.partition(":")[0] for reason in error.reasons), error.reasons


def test_a_replayed_answer(hosts: Hosts) -> None:
    earlier = asked(hosts, "destination", secrets.token_bytes(32))
    with impostor(hosts, "destination", replay=earlier):
        names(rejection(hosts), "report_data")


def test_a_report_over_another_wireguard_key(hosts: Hosts) -> None:
    with impostor(hosts, "destination", alter={"wireguard_key": make_wireguard_key().public}):
        names(rejection(hosts), "report_data")


def test_a_report_over_another_ssh_host_key(hosts: Hosts) -> None:
    with other_ssh_key(hosts, "destination"):
        shown = stranger.meet("destination", hosts.inventory.host("destination"))
        shown.close()
        with impostor(hosts, "destination", alter={"ssh_host_key": shown.shown_key}):
            names(rejection(hosts), "report_data")


def test_a_man_in_the_middle_with_an_ssh_host_key_of_his_own(hosts: Hosts) -> None:
    with other_ssh_key(hosts, "destination"):
        names(rejection(hosts), "ssh_host_key")


def test_evidence_swapped_between_two_hosts(hosts: Hosts) -> None:
    source = hosts.inventory.host("source").address
    with (
        impostor(hosts, "source", redirect=False),
        impostor(hosts, "destination", forward=f"{source}:{IMPOSTOR_PORT}"),
    ):
        names(rejection(hosts), "ssh_host_key", "other_host")


def test_a_provider_that_shows_the_evidence_of_an_honest_vm_and_routes_to_another(hosts: Hosts) -> None:
    """The address leads to the provider's own machine, which lets the honest one answer."""
    honest = hosts.inventory.host("destination").address
    provider = hosts.inventory.provider
    assert provider is not None
    elsewhere = changed(hosts.inventory, "destination", address=provider.address)
    with ssh.connected("provider", lab.machine(hosts.inventory, "provider")) as connection:
        hosts.connections["provider"] = connection
        with (
            impostor(hosts, "destination", redirect=False),
            impostor(hosts, "provider", forward=f"{honest}:{IMPOSTOR_PORT}"),
        ):
            names(rejection(hosts, elsewhere), "ssh_host_key")
        del hosts.connections["provider"]


@pytest.mark.whole
def test_an_address_that_leads_to_another_attested_host(hosts: Hosts) -> None:
    source = hosts.inventory.host("source").address
    with pytest.raises(EvidenceRejected) as raised:
        attest(changed(hosts.inventory, "destination", address=source), "destination")
    names(raised.value, "other_host")


@pytest.mark.whole
def test_a_root_that_the_policy_does_not_name(hosts: Hosts, tmp_path: Path) -> None:
    vm = hosts.inventory.host("destination").vm
    assert vm is not None
    policy = parse_policy(vm.policy.read_text()).model_copy(update={"extra_roots": ()})
    (tmp_path / "policy.toml").write_text(write_policy(policy))
    strict = changed(
        hosts.inventory, "destination", vm=vm.model_copy(update={"policy": tmp_path / "policy.toml"})
    )
    names(rejection(hosts, strict), "root")


def test_no_processor_at_all(hosts: Hosts) -> None:
    hosts.sh("destination", "mount --bind /dev/null /run/sealift/sev-guest")
    try:
        error = rejection(hosts)
    finally:
        hosts.sh("destination", "umount /run/sealift/sev-guest")
    names(error, "answer")


def test_a_man_in_the_middle_at_wireguard(hosts: Hosts) -> None:
    """Who stands at the endpoint without the attested key completes no handshake, and gets no byte of the container."""
    address = hosts.redis("redis", memory_mb=5)
    with (
        untouched(hosts, "redis", address),
        Session.open(hosts.inventory, hosts.request("redis")) as session,
    ):
        destination = arrive(session)
        plan = steps.preflight(session, destination).plan
        with counting_at_source(hosts, *PLACES[:1]) as sent, other_wireguard_key(hosts):
            with pytest.raises(SealiftError):
                steps.sync(session, destination, plan)
            assert handshakes(hosts) == "0"
        assert sent[PLACES[0]] == 0


def handshakes(hosts: Hosts) -> str:
    """When the source last agreed on keys with the destination."""
    key = hosts.inventory.host("destination").wireguard_key
    shown = hosts["source"].run(["wg", "show", "sealift-wg", "latest-handshakes"]).stdout
    return next(line.split()[1] for line in shown.splitlines() if line.split()[0] == key)


@contextmanager
def other_wireguard_key(hosts: Hosts) -> Iterator[None]:
    """Another key at the destination's endpoint, and the session from before gone, as with another machine there."""
    change = "wg set sealift-wg private-key /dev/stdin"
    hosts["destination"].run(["sh", "-c", change], stdin=make_wireguard_key().private.encode())
    key = hosts.inventory.host("destination").wireguard_key
    endpoint = f"{hosts.inventory.host('destination').address}:51820"
    tunnel = f"{hosts.inventory.host('destination').tunnel_address}/32"
    hosts["source"].run(["wg", "set", "sealift-wg", "peer", str(key), "remove"])
    hosts["source"].run(
        ["wg", "set", "sealift-wg", "peer", str(key), "endpoint", endpoint, "allowed-ips", tunnel]
    )
    try:
        yield
    finally:
        hosts.sh("destination", "wg set sealift-wg private-key /run/sealift/keys/wireguard")


def test_a_destination_without_evidence_is_accepted_only_when_it_is_named(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    plain = changed(hosts.inventory, "destination", vm=None)
    plainly = Request("redis", "source", "destination")
    with untouched(hosts, "redis", address):
        with pytest.raises(Refused, match="--evidence none") as raised, Session.open(plain, plainly):
            pass
        assert not isinstance(raised.value, EvidenceRejected)
        otherwise = Request("redis", "source", "destination", Options(evidence="sev"))
        with pytest.raises(Refused, match="sev is asked for"), Session.open(hosts.inventory, otherwise):
            pass


def test_a_migration_without_evidence_says_so(hosts: Hosts) -> None:
    from flows.migrate import migrate

    hosts.redis("redis")
    report = migrate("redis", "source", "destination", Options(evidence="none"), hosts.path)
    assert report.evidence is Evidence.ABSENT
    assert report.verified == []


def test_a_migration_with_evidence_says_what_was_verified_and_that_it_is_emulated(hosts: Hosts) -> None:
    hosts.redis("redis")
    there = hosts.migrate("redis")
    assert there.evidence is Evidence.EMULATED
    assert [record.step for record in there.steps][:2] == [Step.ATTEST, Step.PROVISION_KEYS]
    assert "EMULATED" in there.verified[0]
    assert any("no disk encryption" in sentence for sentence in there.verified)
    back = hosts.migrate("redis", "destination", "source")
    assert (back.outcome, back.evidence) == ("committed", Evidence.EMULATED)


def test_attestation_costs_at_most_a_second(hosts: Hosts) -> None:
    took = []
    for _ in range(3):
        started = time.monotonic()
        attest(hosts.inventory, "destination")[1].close()
        took.append(time.monotonic() - started)
    print(f"attested in {min(took):.3f} to {max(took):.3f} s")
    assert min(took) <= ATTESTATION_S


def patient(hosts: Hosts, folder: Path, lifetime_s: int) -> Inventory:
    """The inventory with evidence of the destination's that may be used again for that long."""
    vm = hosts.inventory.host("destination").vm
    assert vm is not None
    policy = parse_policy(vm.policy.read_text()).model_copy(update={"evidence_lifetime_s": lifetime_s})
    (folder / "policy.toml").write_text(write_policy(policy))
    lasting = vm.model_copy(update={"policy": folder / "policy.toml"})
    return changed(hosts.inventory, "destination", vm=lasting)


def test_evidence_is_used_again_only_within_the_age_that_the_policy_sets(
    hosts: Hosts, tmp_path: Path
) -> None:
    inventory = patient(hosts, tmp_path, 2)

    def verified() -> Any:
        record, connection = attest(inventory, "destination")
        connection.close()
        return record.verified_at

    first = verified()
    assert verified() == first
    time.sleep(2.1)
    assert verified() > first


def test_evidence_from_before_the_last_start_is_fetched_anew(hosts: Hosts, tmp_path: Path) -> None:
    """A VM that was started again has other keys: nobody answers to those on record, however young that is."""
    inventory = patient(hosts, tmp_path, 3600)
    first, connection = attest(inventory, "destination")
    connection.close()
    again = "cd /etc/ssh; cp -a ssh_host_ed25519_key ssh_host_ed25519_key.pub /run/; rm ssh_host_ed25519_key"
    hosts.sh("destination", f"{again}; /usr/libexec/sealift/guest boot snp; kill -HUP $(cat /run/sshd.pid)")
    until_shown(hosts, "destination", hosts.sh("destination", "cat /etc/ssh/ssh_host_ed25519_key.pub"))
    try:
        second, connection = attest(inventory, "destination")
        connection.close()
        assert second.verified_at > first.verified_at
        assert second.ssh_host_key != first.ssh_host_key
    finally:
        hosts.sh("destination", "mv /run/ssh_host_ed25519_key* /etc/ssh/; kill -HUP $(cat /run/sshd.pid)")
        until_shown(hosts, "destination", first.ssh_host_key)
        attest(hosts.inventory, "destination")[1].close()
    assert Records.of(hosts.inventory).read("destination").ssh_host_key == first.ssh_host_key


def kill_guest_program(hosts: Hosts) -> None:
    """The guest's program ends as by SIGKILL; the lab's init starts it again a second later."""
    hosts.sh(
        "destination",
        'kill -9 $(ss -Hltnp "sport = :$1" | sed -n "s/.*pid=\\([0-9]*\\).*/\\1/p")',
        str(GUEST_PORT),
        check=False,
    )


@pytest.mark.parametrize(
    "after_s",
    [0.0, 0.05, 0.2, *(pytest.param(more, marks=pytest.mark.whole) for more in (0.02, 0.1, 0.4))],
)
def test_provisioning_that_is_killed_succeeds_the_next_time(hosts: Hosts, after_s: float) -> None:
    record, connection = attest(hosts.inventory, "destination", patience_s=20)
    known, store = pinned(hosts.inventory), keystore_of(hosts.inventory)
    hosts.sh("destination", "ip link delete sealift-wg")
    with connection, ThreadPoolExecutor(1) as pool:
        first = pool.submit(provision, known, record, connection, store)
        time.sleep(after_s)
        kill_guest_program(hosts)
        assert first.exception() is None or isinstance(first.exception(), HostUnreachable)
        deadline = time.monotonic() + 20
        while True:
            try:
                provision(known, record, connection, store)
                break
            except HostUnreachable:
                assert time.monotonic() < deadline
                time.sleep(0.3)
    # From here: the gateway would go on for a while in the session that went with the interface.
    hosts.sh("destination", "for _ in 1 2 3 4 5; do ping -c 1 -W 2 10.78.0.1 && exit; done; exit 1")


def test_the_command_line_prints_the_verdict_alone(hosts: Hosts) -> None:
    import sys

    def sealift(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    said = sealift("attest", "destination")
    assert said.returncode == 0, said.stderr
    assert "accepted" in said.stdout
    assert "EMULATED" in said.stdout
    found = json.loads(sealift("attest", "destination", "--json").stdout)
    assert (found["accepted"], found["emulated"]) == (True, True)
    chip("destination").configure(
        current_tcb={"boot_loader": 3, "tee": 0, "snp": 8, "microcode": 1, "fmc": None}
    )
    try:
        refused = sealift("attest", "destination", "--json")
    finally:
        from sealift.processor.emulated.profile import Profile
        from sealift.processor.wire import to_json

        chip("destination").configure(**to_json(Profile()))
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["accepted"] is False


CANARY = """
import os, sys, time
secret = os.environ["CANARY"]
kept = secret.encode() * 3
open("/home/written", "w").write(secret)
open("/data/kept", "w").write(secret)
while True:
    time.sleep(1)
"""


LISTEN = """
import socket
listener = socket.create_server(("0.0.0.0", 9999))
print("ready", flush=True)
listener.accept()[0].recv(1000)
"""
SEND = """
import socket, sys
with socket.create_connection(("198.18.0.20", 9999), timeout=10) as peer:
    peer.sendall(sys.argv[1].encode())
"""


def test_nothing_of_the_container_is_on_the_wire_in_the_clear(hosts: Hosts) -> None:
    """A canary in memory, environment, writable layer and volume; the same search finds a copy sent in the clear."""
    from sealift.lab import images

    canary = secrets.token_hex(32)
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    network = ["--network", hosts.network, "--ip", hosts.address()]
    options = [*network, "--env", f"CANARY={canary}", "--volume", "kept:/data"]
    hosts.docker("source", "run", "-d", "--name", "bird", *options, tag, "python3", "-c", CANARY)
    hosts.sh("source", "until docker exec bird cat /data/kept >/dev/null 2>&1; do sleep 0.1; done")
    with captured(hosts, canary) as found:
        report = hosts.migrate("bird")
    assert report.outcome == "committed"
    assert hosts.docker("destination", "exec", "bird", "cat", "/data/kept", "/home/written") == canary * 2
    assert found == {"packets": True, "canary": False}
    with captured(hosts, canary) as found:
        listener = hosts["destination"].open(["python3", "-c", LISTEN])
        assert listener.makefile("rb").readline() == b"ready\n"
        hosts["source"].run(["python3", "-c", SEND, canary])
        listener.close()
    assert found == {"packets": True, "canary": True}


@contextmanager
def captured(hosts: Hosts, canary: str) -> Iterator[dict[str, bool]]:
    """Whether the canary was in what the source sent and got on the underlay while the block ran."""
    file = "/run/capture"
    # Without the immediate mode a packet stays in the kernel's ring for up to a second, and is lost with tcpdump.
    command = ["tcpdump", "-i", "eth0", "--immediate-mode", "-U", "-s", "0", "-B", "65536", "-w", file]
    channel = hosts["source"].open(command)
    assert b"listening on" in channel.makefile_stderr("rb").readline()
    found: dict[str, bool] = {}
    yield found
    time.sleep(1.5)
    script = (
        'kill $(pgrep -x tcpdump); sleep 0.3; test "$(stat -c %s "$1")" -gt 200 && echo packets; '
        'grep -a -c "$2" "$1"; rm "$1"'
    )
    said = hosts.sh("source", script, file, canary, check=False).split()
    channel.close()
    found.update(packets="packets" in said, canary=said[-1] != "0")
