"""Sessions, measurements, secrets and ATTESTATION reports of legacy SEV: both sides, byte for byte."""

from __future__ import annotations

import hashlib
import json
from base64 import b64decode
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from evidence_lab import LegacyLab, checks, flip, load

from sealift.errors import EvidenceRejected, UnusableInput
from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.launch_measurement import Firmware, parse_measurement
from sealift.evidence.formats.launch_secret import (
    DISK_KEY_GUID,
    pack_secret_table,
    parse_secret_packet,
    parse_secret_table,
)
from sealift.evidence.formats.launch_session import Session, TransportKeys, parse_session
from sealift.evidence.formats.sev_attestation_report import build_attestation_report, parse_attestation_report
from sealift.evidence.launch.digest import legacy_digest
from sealift.evidence.launch.kernel_hashes import hash_boot
from sealift.evidence.launch.measurement import measure, measurement_holds
from sealift.evidence.launch.secret import package_secret, unpack_secret
from sealift.evidence.launch.session import (
    create_session,
    derive_key,
    derive_wrapping_keys,
    open_session,
    policy_mac,
    wrap_session,
)
from sealift.evidence.verify.freshness import Nonce, key_fingerprints, nonce_reasons, transport_key_reasons
from sealift.evidence.verify.policy import Policy, SevRules
from sealift.evidence.verify.sev_launch import LaunchEvidence, verify_attestation, verify_launch
from sealift.evidence.verify.signatures import attestation_report_signed_by

if TYPE_CHECKING:
    from pathlib import Path

STRICT = 0xF  # no debugging, no key sharing, encrypted registers, no sending
KEYS = TransportKeys(tek=bytes(range(16)), tik=bytes(range(16, 32)))
FIRMWARE = Firmware(0, 24, 15)
DIGEST = hashlib.sha256(b"guest").digest()
NONCE = b"measurement nonc"


def test_keys_derive_with_little_endian_counters(vectors: Path) -> None:
    cases = load(vectors / "session/session.json")
    for case in [*cases["kdf"], *cases["kdf_negative"]]:
        key = derive_key(
            bytes.fromhex(case["key_hex"]),
            case["label_ascii"].encode(),
            bytes.fromhex(case["context_hex"]),
            case["size_bytes"],
        ).hex()
        assert key == case.get("expected_hex", key)
        assert key != case.get("big_endian_gives_hex")


def test_sessions_are_byte_for_byte_those_of_the_vectors(vectors: Path) -> None:
    cases = load(vectors / "session/session.json")
    for case in cases["policy_mac"]:
        mac = policy_mac(
            bytes.fromhex(case["tik_hex"]), int.from_bytes(bytes.fromhex(case["policy_le_hex"]), "little")
        )
        assert mac.hex() == case["expected_hex"]
    for case in cases["session"]:
        secret, nonce, iv, tek, tik = (
            bytes.fromhex(case[f"{name}_hex"])
            for name in ("shared_secret_z", "nonce", "wrap_iv", "tek", "tik")
        )
        kek, kik = derive_wrapping_keys(secret, nonce)
        assert (kek.hex(), kik.hex()) == (case["recomputed_kek_hex"], case["recomputed_kik_hex"])
        session = wrap_session(secret, TransportKeys(tek, tik), case["policy_u32"], nonce, iv)
        assert session.wrapped_keys.hex() == case["expected_wrap_tk_hex"]
        assert session.wrap_mac.hex() == case["expected_wrap_mac_hex"]
        assert session.policy_mac.hex() == case["expected_policy_mac_hex"]
        assert parse_session(session.pack()) == session


def test_the_platform_unwraps_what_the_owner_wrapped(legacy_lab: LegacyLab) -> None:
    assert legacy_lab.chain.pdh is not None
    launch = create_session(legacy_lab.chain.pdh, STRICT)
    session = parse_session(launch.session.pack())
    assert open_session(legacy_lab.pdh, launch.owner_certificate, session, STRICT) == launch.keys
    other = create_session(legacy_lab.chain.pdh, STRICT)
    assert other.keys != launch.keys
    assert other.session.nonce != launch.session.nonce


def test_each_flipped_bit_of_a_session_is_rejected(legacy_lab: LegacyLab) -> None:
    assert legacy_lab.chain.pdh is not None
    launch = create_session(legacy_lab.chain.pdh, STRICT)
    for offset in range(128):
        changed = parse_session(flip(launch.session.pack(), offset, 1 << offset % 8))
        with pytest.raises(EvidenceRejected):
            open_session(legacy_lab.pdh, launch.owner_certificate, changed, STRICT)


def test_another_platform_or_policy_opens_nothing(legacy_lab: LegacyLab) -> None:
    assert legacy_lab.chain.pdh is not None
    launch = create_session(legacy_lab.chain.pdh, STRICT)
    with pytest.raises(EvidenceRejected, match="policy"):
        open_session(legacy_lab.pdh, launch.owner_certificate, launch.session, 0)
    with pytest.raises(EvidenceRejected, match="platform"):
        open_session(legacy_lab.pek, launch.owner_certificate, launch.session, STRICT)


def test_a_session_is_made_for_a_pdh_only(legacy_lab: LegacyLab) -> None:
    assert legacy_lab.chain.pek is not None
    with pytest.raises(UnusableInput, match="PDH"):
        create_session(legacy_lab.chain.pek, STRICT)


def test_measurements_are_those_of_the_vectors(vectors: Path) -> None:
    for case in load(vectors / "session/session.json")["launch_measure"]:
        firmware = Firmware(case["api_major"], case["api_minor"], case["build_id"])
        made = measure(
            bytes.fromhex(case["tik_hex"]),
            firmware,
            case["policy_u32"],
            bytes.fromhex(case["launch_digest_hex"]),
            bytes.fromhex(case["nonce_hex"]),
        )
        assert made.mac.hex() == case["expected_measure_hex"]
    folder = vectors / "measurement"
    for case in load(folder / "launch-measure.json")["cases"]:
        if "launch_digest_base64" in case:
            digest = b64decode(case["launch_digest_base64"])
        else:
            firmware_image = parse_firmware((folder / case["firmware_file"]).read_bytes())
            hashes = None
            if "kernel_file" in case:
                hashes = hash_boot(
                    (folder / case["kernel_file"]).read_bytes(),
                    (folder / case["initrd_file"]).read_bytes(),
                    case["cmdline_utf8"],
                )
            vmsas = [(folder / name).read_bytes() for name in case.get("vmsa_files", [])]
            digest = legacy_digest(firmware_image, hashes, vmsas)
        tik = (folder / case["tik_file"]).read_bytes()
        firmware = Firmware(case["api_major"], case["api_minor"], case["build_id"])
        nonce = b64decode(case["nonce_base64"])
        made = measure(tik, firmware, case["policy_u32"], digest, nonce)
        assert made.pack() == b64decode(case["expected_blob_base64"])
        assert measurement_holds(parse_measurement(made.pack()), tik, firmware, case["policy_u32"], digest)


def launch_evidence(policy: int = STRICT, **changes: object) -> LaunchEvidence:
    evidence = LaunchEvidence(
        measurement=measure(KEYS.tik, FIRMWARE, policy, DIGEST, NONCE),
        firmware=FIRMWARE,
        policy=policy,
        digests=(DIGEST,),
        tik=KEYS.tik,
    )
    return replace(evidence, **changes)  # type: ignore[arg-type]


def test_a_measured_launch_under_a_strict_policy_is_accepted() -> None:
    verdict = verify_launch(launch_evidence(), Policy())
    assert verdict.accepted
    assert verdict.labels == ("no integrity protection",)
    assert {"launch_policy.same_domain", "launch_policy.sev_only", "build"} <= set(verdict.unchecked)


def test_each_flipped_bit_of_a_measurement_is_rejected() -> None:
    whole = launch_evidence().measurement.pack()
    for offset in range(48):
        changed = launch_evidence(measurement=parse_measurement(flip(whole, offset, 1 << offset % 8)))
        assert checks(verify_launch(changed, Policy())) == {"measurement"}


@pytest.mark.parametrize(
    ("changes", "check"),
    [
        ({"firmware": Firmware(0, 24, 14)}, "measurement"),
        ({"policy": STRICT | 0x10}, "measurement"),
        ({"digests": (bytes(32),)}, "measurement"),
        ({"tik": bytes(16)}, "measurement"),
        ({"digests": ()}, "measurement"),
        ({"has_kernel_hashes": False}, "kernel_hashes"),
    ],
)
def test_a_launch_of_anything_else_is_rejected(changes: dict[str, object], check: str) -> None:
    verdict = verify_launch(replace(launch_evidence(), **changes), Policy())  # type: ignore[arg-type]
    assert check in checks(verdict)
    assert not verdict.accepted


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        (STRICT & ~0x1, "launch_policy.no_debug"),
        (STRICT & ~0x2, "launch_policy.no_key_sharing"),
        (STRICT & ~0x4, "launch_policy.es"),
        (STRICT & ~0x8, "launch_policy.no_send"),
        (STRICT | 0x40, "launch_policy.unknown_bits"),
    ],
)
def test_a_lax_launch_policy_is_rejected_though_genuine(policy: int, check: str) -> None:
    verdict = verify_launch(launch_evidence(policy), Policy())
    assert verdict.genuine
    assert checks(verdict) == {check}


def test_a_policy_can_allow_what_is_refused_and_the_verdict_says_so() -> None:
    lax = Policy.model_validate(
        {"sev": {"launch_policy": {"no_send": "allow", "no_key_sharing": "allow"}, "min_build": 15}}
    )
    verdict = verify_launch(launch_evidence(0x5), lax)
    assert verdict.accepted
    assert {"launch_policy.no_send", "launch_policy.no_key_sharing"} <= set(verdict.unchecked)


def test_old_firmware_is_rejected() -> None:
    old = Firmware(0, 16, 1)
    made = measure(KEYS.tik, old, STRICT, DIGEST, NONCE)
    verdict = verify_launch(launch_evidence(firmware=old, measurement=made), Policy())
    assert checks(verdict) == {"api"}
    demanding = Policy(sev=SevRules(min_build=16, launch_digests=(DIGEST.hex(),)))
    assert checks(verify_launch(launch_evidence(digests=()), demanding)) == {"build"}


def test_what_the_caller_expects_and_what_the_policy_allows_must_both_hold(legacy_lab: LegacyLab) -> None:
    other = Policy(sev=SevRules(launch_digests=("00" * 32,)))
    verdict = verify_launch(launch_evidence(), other)
    assert verdict.genuine
    assert checks(verdict) == {"launch_digest"}
    assert verify_launch(launch_evidence(), Policy(sev=SevRules(launch_digests=(DIGEST.hex(),)))).accepted
    pek = legacy_lab.chain.pek
    assert pek is not None
    report = build_attestation_report(legacy_lab.pek, nonce=NONCE, digest=DIGEST, policy=STRICT)
    assert checks(verify_attestation(report, pek, other, nonce=NONCE, digests=(DIGEST,))) == {"launch_digest"}


def test_reasons_of_freshness_turn_a_verdict() -> None:
    verdict = verify_launch(launch_evidence(), Policy())
    assert verdict.also(()) is verdict
    spent = verdict.also(transport_key_reasons(KEYS, used=key_fingerprints(KEYS)))
    assert spent.genuine
    assert not spent.accepted
    assert checks(spent) == {"transport_keys"}
    assert len(spent.reasons) == 2


def test_secrets_are_byte_for_byte_those_of_the_vectors(vectors: Path) -> None:
    folder = vectors / "secret"
    for case in load(folder / "secret.json")["cases"]:
        keys = TransportKeys(
            tek=(folder / case["tek_file"]).read_bytes(), tik=(folder / case["tik_file"]).read_bytes()
        )
        mac = parse_measurement(b64decode(case["launch_measure_blob_base64"])).mac
        entries = {UUID(each["guid"]): (folder / each["value_file"]).read_bytes() for each in case["secrets"]}
        packet = package_secret(keys, mac, pack_secret_table(entries), iv=b64decode(case["iv_base64"]))
        assert packet.header() == b64decode(case["expected_header_base64"])
        assert packet.payload == b64decode(case["expected_payload_base64"])
        received = parse_secret_packet(packet.header(), packet.payload)
        assert parse_secret_table(unpack_secret(keys, mac, received)) == entries


def test_each_flipped_bit_of_a_secret_is_rejected() -> None:
    mac = bytes(range(32))
    packet = package_secret(KEYS, mac, pack_secret_table({DISK_KEY_GUID: b"a key of the disk"}))
    header, payload = packet.header(), packet.payload
    for offset in range(4, len(header)):
        with pytest.raises(EvidenceRejected):
            unpack_secret(KEYS, mac, parse_secret_packet(flip(header, offset, 1 << offset % 8), payload))
    for offset in range(len(payload)):
        with pytest.raises(EvidenceRejected):
            unpack_secret(KEYS, mac, parse_secret_packet(header, flip(payload, offset, 1 << offset % 8)))
    for offset in range(4):
        with pytest.raises(UnusableInput):
            parse_secret_packet(flip(header, offset, 1), payload)


def test_a_secret_for_another_launch_is_rejected() -> None:
    packet = package_secret(KEYS, bytes(32), pack_secret_table({DISK_KEY_GUID: b"key"}))
    with pytest.raises(EvidenceRejected):
        unpack_secret(KEYS, b"\1" + bytes(31), packet)
    with pytest.raises(EvidenceRejected):
        unpack_secret(TransportKeys(tek=KEYS.tek, tik=bytes(16)), bytes(32), packet)


def test_a_compressed_secret_is_refused() -> None:
    packet = package_secret(KEYS, bytes(32), pack_secret_table({DISK_KEY_GUID: b"key"}))
    with pytest.raises(UnusableInput, match="compressed"):
        parse_secret_packet(flip(packet.header(), 0, 1), packet.payload)


def test_a_table_that_a_peer_padded_by_a_block_more_reads_the_same() -> None:
    entries = {DISK_KEY_GUID: b"x" * 8}
    table = pack_secret_table(entries)
    assert parse_secret_table(table + bytes(16)) == entries
    with pytest.raises(UnusableInput):
        parse_secret_table(table + bytes(15) + b"\1")


def test_attestation_reports_verify_under_the_platforms_pek(legacy_lab: LegacyLab) -> None:
    pek = legacy_lab.chain.pek
    assert pek is not None
    report = build_attestation_report(legacy_lab.pek, nonce=NONCE, digest=DIGEST, policy=STRICT)
    assert attestation_report_signed_by(parse_attestation_report(report.raw), pek)
    verdict = verify_attestation(report, pek, Policy(), nonce=NONCE, digests=(DIGEST,))
    assert verdict.accepted
    for offset in [*range(64), *range(64, 208, 11)]:
        changed = parse_attestation_report(flip(report.raw, offset, 1))
        # The reserved word (3Ch) is neither signed nor used; r and s have zeros above 48 bytes.
        if not 60 <= offset < 64:
            assert not attestation_report_signed_by(changed, pek), offset


def test_an_attestation_report_of_another_nonce_digest_or_policy_is_rejected(legacy_lab: LegacyLab) -> None:
    pek = legacy_lab.chain.pek
    assert pek is not None
    report = build_attestation_report(legacy_lab.pek, nonce=NONCE, digest=DIGEST, policy=0)
    verdict = verify_attestation(report, pek, Policy(), nonce=bytes(16), digests=(bytes(32),))
    assert verdict.genuine
    assert {"nonce", "launch_digest", "launch_policy.es", "launch_policy.no_debug"} <= checks(verdict)
    open_digest = verify_attestation(report, pek, Policy(), nonce=NONCE)
    assert "launch_digest" in open_digest.unchecked


def test_a_nonce_counts_once_and_for_its_lifetime() -> None:
    issued = datetime(2026, 4, 1, tzinfo=UTC)
    nonce = Nonce(b"n" * 32, issued)
    lifetime = timedelta(seconds=300)
    soon, late, early = (issued + timedelta(seconds=s) for s in (10, 301, -1))
    assert nonce_reasons(nonce, at=soon, lifetime=lifetime, used=()) == ()
    assert "before" in nonce_reasons(nonce, at=soon, lifetime=lifetime, used={nonce.fingerprint})[0].detail
    assert "older" in nonce_reasons(nonce, at=late, lifetime=lifetime, used=())[0].detail
    assert "after" in nonce_reasons(nonce, at=early, lifetime=lifetime, used=())[0].detail


def test_a_transport_key_counts_once_even_beside_a_new_one() -> None:
    assert transport_key_reasons(KEYS, used=()) == ()
    tek, tik = key_fingerprints(KEYS)
    for used, name in ((tek, "TEK"), (tik, "TIK")):
        (reason,) = transport_key_reasons(KEYS, used={used})
        assert name in reason.detail


def test_keys_never_show(legacy_lab: LegacyLab) -> None:
    assert legacy_lab.chain.pdh is not None
    launch = create_session(legacy_lab.chain.pdh, STRICT)
    evidence = launch_evidence(tik=launch.keys.tik)
    shown = repr(launch) + repr(launch.keys) + repr(evidence)
    shown += json.dumps(verify_launch(evidence, Policy()).to_json())
    for key in (launch.keys.tek, launch.keys.tik):
        assert key.hex() not in shown
        assert repr(key) not in shown
    with pytest.raises(UnusableInput) as caught:
        TransportKeys(tek=launch.keys.tek + b"!", tik=launch.keys.tik)
    assert launch.keys.tek.hex() not in repr(caught.value)
    with pytest.raises(EvidenceRejected) as rejected:
        open_session(legacy_lab.pdh, launch.owner_certificate, launch.session, 0)
    assert launch.keys.tik.hex() not in repr(rejected.value)


@pytest.mark.parametrize("size", [0, 127, 129])
def test_sessions_of_another_size_are_unusable(size: int) -> None:
    with pytest.raises(UnusableInput):
        parse_session(bytes(size))
    assert isinstance(parse_session(bytes(128)), Session)
