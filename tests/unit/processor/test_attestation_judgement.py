"""Owner and guest without a network: what the guest answers is what the owner's judgement accepts, and nothing else."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from sealift.attestation import conversation
from sealift.attestation.conversation import Answer, attest_snp, judge, result
from sealift.attestation.demand import Demand
from sealift.errors import CommandFailed, EvidenceRejected, HostUnreachable, UnusableInput
from sealift.evidence.fetch import kds
from sealift.evidence.formats import certificate_table
from sealift.evidence.formats.report_data import Binding
from sealift.evidence.verify.policy import Policy, write_policy
from sealift.inventory import Vm
from sealift_guest import guest

if TYPE_CHECKING:
    from pathlib import Path

    from processor_lab import Lab

SSH_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIA2YT1vL2sdLJZL7Uv2IuiFbAGQianIdrzaq32IeXf4n"
WIREGUARD_KEY = "7p5H/p6Yw5pSazTWaPK4ktBKvwh0cLnGYWz10krfkhw="


@pytest.fixture
def machine_with_keys(lab: Lab) -> guest.Guest:
    """The guest's program with its keys made; its processor has launched the image that the owner expects."""
    places = guest.Places(lab.guest.root)
    for key, public in ((places.ssh_key, SSH_KEY), (places.wireguard_key, WIREGUARD_KEY)):
        key.parent.mkdir(parents=True, exist_ok=True)
        key.with_name(f"{key.name}.pub").write_text(public)
    places.token.write_text("token")
    lab.start_snp()
    return guest.Guest(places)


def answered(machine: guest.Guest, nonce: bytes, **changes: Any) -> Answer:
    order = {"order": "attest", "owner_nonce": base64.b64encode(nonce).decode()}
    said = result(json.dumps(guest.answer(machine, json.dumps(order).encode())).encode(), "vm")
    for name in ("report", "certificate_table", "guest_nonce"):
        said[name] = base64.b64decode(said[name])
    return replace(Answer(**said), **changes)


def demand(lab: Lab, tmp_path: Path) -> Demand:
    (tmp_path / "policy.toml").write_text(write_policy(lab.snp_policy()))
    return Demand.of("vm", Vm(policy=tmp_path / "policy.toml"))


def refused(lab: Lab, tmp_path: Path, nonce: bytes, answer: Answer, **named: Any) -> set[str]:
    with pytest.raises(EvidenceRejected) as raised:
        judge("vm", demand(lab, tmp_path), nonce, answer, **{"shown_key": SSH_KEY, **named})
    return {reason.partition(":")[0] for reason in raised.value.reasons}


def test_guest_and_verifier_bind_the_same_way() -> None:
    nonces = secrets.token_bytes(32), secrets.token_bytes(32)
    here = Binding(*nonces, SSH_KEY.encode(), WIREGUARD_KEY.encode()).digest()
    assert guest.binding_digest(*nonces, SSH_KEY, WIREGUARD_KEY) == here


def test_an_honest_answer_becomes_a_record(lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path) -> None:
    nonce = secrets.token_bytes(32)
    record = judge("vm", demand(lab, tmp_path), nonce, answered(machine_with_keys, nonce), shown_key=SSH_KEY)
    assert (record.ssh_host_key, record.wireguard_key) == (SSH_KEY, WIREGUARD_KEY)
    assert record.emulated
    assert record.answered_by == "emulated"


def test_an_answer_to_another_nonce(lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path) -> None:
    answer = answered(machine_with_keys, secrets.token_bytes(32))
    assert "report_data" in refused(lab, tmp_path, secrets.token_bytes(32), answer)


@pytest.mark.parametrize("changes", [{"wireguard_key": "other="}, {"guest_nonce": bytes(32)}])
def test_a_report_over_something_else(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path, changes: dict[str, Any]
) -> None:
    nonce = secrets.token_bytes(32)
    assert "report_data" in refused(lab, tmp_path, nonce, answered(machine_with_keys, nonce, **changes))


def test_another_key_on_the_connection_than_in_the_report(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path
) -> None:
    nonce = secrets.token_bytes(32)
    answer = answered(machine_with_keys, nonce)
    assert refused(lab, tmp_path, nonce, answer, shown_key="ssh-ed25519 AAAA") == {"ssh_host_key"}


def test_the_keys_of_another_host(lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path) -> None:
    nonce = secrets.token_bytes(32)
    answer = answered(machine_with_keys, nonce)
    known = judge("twin", demand(lab, tmp_path), nonce, answer, shown_key=SSH_KEY)
    assert refused(lab, tmp_path, nonce, answer, others=[known]) == {"other_host"}


class Slow:
    """A host that answers truly, and takes its time."""

    shown_key = SSH_KEY

    def __init__(self, machine: guest.Guest, delay_s: float) -> None:
        self.machine, self.delay_s = machine, delay_s

    def ask(self, _: int, question: bytes, *, timeout_s: float) -> bytes:
        said = json.dumps(guest.answer(self.machine, question)).encode()
        time.sleep(self.delay_s)
        return said

    def accept(self, key: str) -> Slow:
        return self

    def close(self) -> None:
        pass


def test_an_answer_that_comes_after_its_nonces_lifetime_is_rejected(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host: Any = None
    patient = demand(lab, tmp_path)
    strict = replace(patient, policy=patient.policy.model_copy(update={"nonce_lifetime_s": 1}))
    monkeypatch.setattr(conversation, "meet", lambda *_, **__: Slow(machine_with_keys, 1.1))
    with pytest.raises(EvidenceRejected) as raised:
        attest_snp("vm", host, strict)
    assert [reason.partition(":")[0] for reason in raised.value.reasons] == ["nonce"]
    assert "older than 1 s" in str(raised.value)
    assert attest_snp("vm", host, patient)[0].ssh_host_key == SSH_KEY


def test_a_key_server_that_cannot_be_asked_is_no_rejection(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def busy(url: str, *_: Any) -> bytes:
        asked.append(url)
        raise HostUnreachable("the key server answers 429", host="kds")

    monkeypatch.setenv("SEALIFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(kds, "download", busy)
    nonce = secrets.token_bytes(32)
    bare = answered(machine_with_keys, nonce, certificate_table=b"")
    with pytest.raises(HostUnreachable, match="429"):
        judge("vm", demand(lab, tmp_path), nonce, bare, shown_key=SSH_KEY)
    monkeypatch.setattr(conversation, "ask", lambda *_: bare)
    monkeypatch.setattr(conversation, "meet", lambda *_, **__: Slow(machine_with_keys, 0))
    host: Any = None
    asked.clear()
    with pytest.raises(HostUnreachable, match="429"):
        attest_snp("vm", host, demand(lab, tmp_path), patience_s=5)
    assert len(asked) == 1, (
        "a guest that boots is waited for, a server that limits its clients is not asked again"
    )


def test_an_altered_vcek_is_rejected_by_name(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path
) -> None:
    nonce = secrets.token_bytes(32)
    honest = answered(machine_with_keys, nonce)
    found = certificate_table.parse_certificate_table(honest.certificate_table)
    vcek = found[certificate_table.VCEK]
    for offset in (0, 5, len(vcek) - 300, len(vcek) - 1):
        changed = bytearray(vcek)
        changed[offset] ^= 0x20
        table = certificate_table.pack_certificate_table({**found, certificate_table.VCEK: bytes(changed)})
        answer = replace(honest, certificate_table=table)
        assert "vek_signature" in refused(lab, tmp_path, nonce, answer), offset


@pytest.mark.parametrize(
    "changes",
    [
        {"report": b""},
        {"report": bytes(1184)},
        {"certificate_table": b"\1" * 100},
        {"guest_nonce": b"short"},
        {"ssh_host_key": ""},
    ],
)
def test_nonsense_is_rejected_and_not_tripped_over(
    lab: Lab, machine_with_keys: guest.Guest, tmp_path: Path, changes: dict[str, Any]
) -> None:
    nonce = secrets.token_bytes(32)
    assert refused(lab, tmp_path, nonce, answered(machine_with_keys, nonce, **changes))


def test_a_policy_that_names_no_measurement_is_none(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "policy.toml").write_text(write_policy(Policy()))
    with pytest.raises(UnusableInput, match="names no measurement"):
        Demand.of("vm", Vm(policy=tmp_path / "policy.toml"))


@pytest.mark.parametrize(
    "order",
    [b"", b"nonsense", b"[]", b'{"order": "reboot", "token": "token"}', b'{"owner_nonce": 1}', b"\xff"],
)
def test_the_guest_survives_nonsense(machine_with_keys: guest.Guest, order: bytes) -> None:
    assert "error" in guest.answer(machine_with_keys, order)


def test_only_who_has_the_token_changes_anything(machine_with_keys: guest.Guest) -> None:
    for token in ({}, {"token": ""}, {"token": "Token"}):
        said = guest.answer(machine_with_keys, json.dumps({"order": "provision", **token}).encode())
        assert said == {"error": "the token is wrong"}


def test_what_was_wrong_with_an_order_never_shows_the_order(machine_with_keys: guest.Guest) -> None:
    key = secrets.token_hex(32)
    said = guest.answer(
        machine_with_keys, json.dumps({"order": "provision", "token": "token", "disk_key": key}).encode()
    )
    assert key not in json.dumps(said)
    assert "error" in said


def test_a_guest_without_a_processor_says_so(tmp_path: Path, machine_with_keys: guest.Guest) -> None:
    bare = guest.Guest(guest.Places(tmp_path))
    for key, public in ((bare.places.ssh_key, SSH_KEY), (bare.places.wireguard_key, WIREGUARD_KEY)):
        key.parent.mkdir(parents=True, exist_ok=True)
        key.with_name(f"{key.name}.pub").write_text(public)
    order = {"order": "attest", "owner_nonce": base64.b64encode(bytes(32)).decode()}
    with pytest.raises(CommandFailed, match="no secure processor"):
        result(json.dumps(guest.answer(bare, json.dumps(order).encode())).encode(), "vm")
