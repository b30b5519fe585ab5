"""Legacy SEV from the owner's side, against a provider with an emulated processor: nothing is injected unverified."""

from __future__ import annotations

import base64
import io
import json
import shutil
import socket
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sealift.attestation import launch
from sealift.attestation.demand import Demand
from sealift.attestation.keystore import Directory
from sealift.errors import CommandFailed, EvidenceRejected
from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.policy import ExtraRoot, Policy, write_policy
from sealift.inventory import Vm
from sealift.process import Completed
from sealift.processor.interface import SEV_POLICY_DEFAULT, SevLaunch
from sealift.provider import gate
from sealift.provider.client import ProviderClient
from sealift.provider.orders import InjectOrder, Phase
from sealift_guest import guest as guest_program

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from sealift.provider.service import Provider
    from sealift.provider.settings import Settings

DISK, SSH, WIREGUARD = guest_program.DISK_KEY, guest_program.SSH_HOST_KEY, guest_program.WIREGUARD_KEY


class Line:
    """Orders go to the gate, as they do behind `authorized_keys`."""

    name = "provider"

    def __init__(self, provider: Provider) -> None:
        self.provider = provider
        self.orders: list[str] = []

    def run(
        self, argv: Sequence[str], *, timeout_s: float = 0, stdin: bytes = b"", check: bool = True
    ) -> Completed:
        self.orders.append(argv[-1])
        heard = io.BytesIO()
        status = gate.answer(self.provider, gate.admit(" ".join(argv)), io.BytesIO(stdin), heard)
        return Completed(status, heard.getvalue().decode(), "")


class Owner:
    """An owner with a policy, a keystore, and his own copy of the image."""

    def __init__(self, provider: Provider, settings: Settings, folder: Path) -> None:
        self.line = Line(provider)
        self.client = ProviderClient(self.line)
        self.keystore = Directory(folder / "keys")
        self.policy = folder / "policy.toml"
        self.vm = Vm(
            evidence="sev",
            policy=self.policy,
            image_folder=settings.images / "base",
            name="vm",
            image="base",
            tap="tap0",
            mac="52:54:00:00:00:01",
        )
        chain = self.client.evidence(Mode.SEVES).platform.chain()  # type: ignore[union-attr]
        assert chain.ark is not None
        self.root = ExtraRoot(sha256=chain.ark.sha256, name="lab")
        self.demand_that()

    def demand_that(self, **rules: Any) -> None:
        policy = Policy.model_validate({"extra_roots": [self.root.model_dump()], "sev": rules})
        self.policy.write_text(write_policy(policy))

    @property
    def demand(self) -> Demand:
        return Demand.of("vm", self.vm)

    def launch(self) -> launch.Record:
        return launch.launch(self.client, "vm", self.vm, self.demand, self.keystore)

    def refused(self) -> set[str]:
        with pytest.raises(EvidenceRejected) as raised:
            self.launch()
        assert "inject" not in self.line.orders
        assert not any(each.phase is not Phase.ENDED for each in self.client.list())
        return {reason.partition(":")[0] for reason in raised.value.reasons}


@pytest.fixture
def owner(provider: Provider, settings: Settings, tmp_path: Path) -> Owner:
    return Owner(provider, settings, tmp_path)


def injected(settings: Settings) -> dict[str, bytes]:
    """What the VM's processor answers for each secret, over one connection: it ends with the first that is closed."""
    found = {}
    with socket.socket(socket.AF_UNIX) as port, port.makefile("rwb") as line:
        port.connect(str(settings.state / "vm/guest"))
        for guid in (DISK, SSH, WIREGUARD):
            line.write(json.dumps({"id": guid, "call": "secret", "guid": guid}).encode() + b"\n")
            line.flush()
            found[guid] = base64.b64decode(json.loads(line.readline()).get("secret", ""))
    return found


def test_a_verified_launch_gets_its_secrets_and_runs(owner: Owner, settings: Settings) -> None:
    record = owner.launch()
    assert owner.client.list()[0].phase is Phase.RUNNING
    assert owner.client.list()[0].launch_id == record.launch_id
    found = injected(settings)
    assert found[DISK].decode() == owner.keystore.pending("vm"), "settled once its disk was opened with it"
    assert found[SSH].startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert len(found[WIREGUARD]) == 44
    assert (record.kind, record.emulated) == ("sev", True)
    assert record.measurement == owner.demand.digests[0].hex()
    assert record.ssh_host_key.startswith("ssh-ed25519 AAAA")


def test_no_secret_is_known_to_the_provider(owner: Owner, settings: Settings) -> None:
    record = owner.launch()
    kept = [path.read_bytes() for path in settings.state.rglob("*") if path.is_file()]
    secrets = list(injected(settings).values())
    assert kept
    for secret in secrets:
        assert not any(secret in content for content in kept)
    for secret in secrets:
        assert secret.decode().strip() not in record.model_dump_json()


def test_every_launch_has_keys_of_its_own_but_the_disk_keeps_its_key(owner: Owner) -> None:
    first = owner.launch()
    disk = owner.keystore.pending("vm")
    assert disk is not None
    owner.client.stop("vm")
    second = owner.launch()
    assert first.ssh_host_key != second.ssh_host_key
    assert first.wireguard_key != second.wireguard_key
    assert owner.keystore.pending("vm") == disk


@pytest.mark.parametrize("part", ["kernel", "initrd", "firmware"])
def test_another_image_than_the_owners(owner: Owner, settings: Settings, tmp_path: Path, part: str) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(settings.images / "base", mine)
    content = bytearray((mine / part).read_bytes())
    content[100] ^= 1
    (mine / part).write_bytes(content)
    owner.vm = owner.vm.model_copy(update={"image_folder": mine})
    assert "measurement" in owner.refused()


def test_a_root_that_the_policy_does_not_name(owner: Owner) -> None:
    owner.policy.write_text(write_policy(Policy()))
    assert "root" in owner.refused()
    assert "start" not in owner.line.orders


def test_firmware_below_the_policys_floor(owner: Owner) -> None:
    owner.demand_that(min_api="9.0")
    assert "pdh_api" in owner.refused()


def test_a_provider_that_launches_under_another_policy(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session is bound to the launch policy: the processor refuses it, and the owner hears so."""
    real: Callable[..., Any] = owner.client.start.__func__  # type: ignore[attr-defined]

    def start(client: ProviderClient, order: Any) -> Any:
        assert isinstance(order.launch, SevLaunch)
        return real(client, replace(order, launch=replace(order.launch, policy=SEV_POLICY_DEFAULT & ~1)))

    monkeypatch.setattr(ProviderClient, "start", start)
    with pytest.raises(CommandFailed):
        owner.launch()
    assert "inject" not in owner.line.orders


def test_the_secret_of_one_launch_is_of_no_use_to_another(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A provider that keeps the packet and starts the VM again with it: the processor refuses."""
    kept: list[InjectOrder] = []
    real = owner.line.provider.inject

    def keep(order: InjectOrder) -> Any:
        kept.append(order)
        return real(order)

    monkeypatch.setattr(owner.line.provider, "inject", keep)
    owner.launch()
    owner.client.stop("vm")
    monkeypatch.setattr(owner.line.provider, "inject", lambda _: real(kept[0]))
    with pytest.raises((CommandFailed, EvidenceRejected)):
        owner.launch()


def test_a_running_launch_is_attested_anew_over_a_fresh_nonce(owner: Owner) -> None:
    first = owner.launch()
    again = launch.attest_again(owner.client, owner.vm, owner.demand, first)
    assert again.verified_at > first.verified_at
    assert (again.ssh_host_key, again.launch_id) == (first.ssh_host_key, first.launch_id)
    assert again.measurement == first.measurement


def test_a_replayed_report_on_a_running_launch_is_rejected(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner.launch()
    stale = owner.client.evidence(Mode.SEVES, "vm", nonce=bytes(16))
    monkeypatch.setattr(ProviderClient, "evidence", lambda *_, **__: stale)
    with pytest.raises(EvidenceRejected) as raised:
        launch.attest_again(owner.client, owner.vm, owner.demand, first)
    assert {reason.partition(":")[0] for reason in raised.value.reasons} == {"nonce"}


def test_a_report_that_comes_after_its_nonces_lifetime_is_rejected(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = owner.launch()
    real = ProviderClient.evidence

    def late(client: ProviderClient, *given: Any, **named: Any) -> Any:
        found = real(client, *given, **named)
        time.sleep(1.1)
        return found

    monkeypatch.setattr(ProviderClient, "evidence", late)
    demand = owner.demand
    strict = replace(demand, policy=demand.policy.model_copy(update={"nonce_lifetime_s": 1}))
    with pytest.raises(EvidenceRejected) as raised:
        launch.attest_again(owner.client, owner.vm, strict, first)
    assert [reason.partition(":")[0] for reason in raised.value.reasons] == ["nonce"]
    assert launch.attest_again(owner.client, owner.vm, demand, first).launch_id == first.launch_id
