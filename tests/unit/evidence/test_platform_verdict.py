"""A legacy platform is accepted only with six true certificates under a trusted root."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from evidence_lab import LegacyLab, checks, flip, lab_ark

from sealift.evidence.formats.loading import load_platform
from sealift.evidence.formats.sev_certificate import parse_sev_certificate
from sealift.evidence.verify.policy import Policy, SevRules
from sealift.evidence.verify.roots import LEGACY_ROOTS, find_root
from sealift.evidence.verify.sev_platform import verify_platform

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.evidence.formats.platform_chain import PlatformChain

ROLES = ["pdh", "pek", "oca", "cek", "ask", "ark"]


@pytest.fixture(scope="module")
def rome(vectors: Path) -> PlatformChain:
    return load_platform((vectors / f"legacy/rome/{role}.cert").read_bytes() for role in ROLES)


def test_the_real_rome_platform_is_accepted_and_says_that_memory_has_no_integrity(
    rome: PlatformChain,
) -> None:
    verdict = verify_platform(rome, Policy())
    assert verdict.genuine
    assert verdict.accepted
    assert verdict.reasons == ()
    assert verdict.generation == "rome"
    assert verdict.labels == ("no integrity protection",)
    assert not verdict.extra_root
    assert {"oca_sha256", "cek_sha256"} <= set(verdict.unchecked)


@pytest.mark.parametrize("role", ROLES)
def test_a_missing_certificate_is_a_reason(rome: PlatformChain, role: str) -> None:
    verdict = verify_platform(replace(rome, **{role: None}), Policy())
    assert not verdict.genuine
    assert any(role.upper() in reason.detail for reason in verdict.reasons)


@pytest.mark.parametrize("role", ROLES)
def test_flipped_bits_in_any_certificate_reject_the_platform(vectors: Path, role: str) -> None:
    for offset in (0, 4, 5, 9, 13, 17, 21, 40, 100, 300, 600, 1000):
        files = [(vectors / f"legacy/rome/{each}.cert").read_bytes() for each in ROLES]
        files[ROLES.index(role)] = flip(files[ROLES.index(role)], offset, 0x10)
        verdict = verify_platform(load_platform(files), Policy())
        assert not verdict.genuine, offset
        assert verdict.reasons


def test_all_reasons_are_given_at_once(rome: PlatformChain) -> None:
    assert rome.pek is not None
    bad = parse_sev_certificate(flip(rome.pek.raw, 5, 0xFF))
    verdict = verify_platform(replace(rome, pek=bad, ark=None), Policy())
    assert {"root", "ark_by_ark", "ask_by_ark", "pek_by_cek", "pek_by_oca"} <= checks(verdict)


def test_certificates_of_another_generation_are_rejected(rome: PlatformChain, vectors: Path) -> None:
    milan = load_platform((vectors / f"legacy/milan/{each}.cert").read_bytes() for each in ("ark", "ask"))
    verdict = verify_platform(replace(rome, ark=milan.ark, ask=milan.ask), Policy())
    assert "cek_by_ask" in checks(verdict)
    assert not verdict.genuine


def test_a_forged_root_with_a_copied_key_id_is_rejected(rome: PlatformChain, legacy_lab: LegacyLab) -> None:
    assert rome.ark is not None
    forged = lab_ark(2048, rome.ark.key_id)
    verdict = verify_platform(replace(legacy_lab.chain, ark=forged), Policy())
    assert not verdict.genuine
    assert "root" in checks(verdict)


@pytest.mark.parametrize("bits", [2048, 4096])
def test_a_lab_root_counts_only_if_the_policy_names_it_and_the_verdict_says_so(bits: int) -> None:
    lab = LegacyLab.create(bits)
    stranger = verify_platform(lab.chain, Policy())
    assert not stranger.genuine
    assert checks(stranger) == {"root"}
    known = verify_platform(lab.chain, lab.policy())
    assert known.accepted
    assert known.extra_root
    assert known.emulated
    assert "emulated" in known.labels


@pytest.fixture(scope="module")
def naples(vectors: Path) -> PlatformChain:
    folder = vectors / "legacy/naples"
    if not folder.is_dir():
        pytest.skip(f"the vectors have no platform of Naples: {folder} is not there")
    return load_platform((folder / f"{role}.cert").read_bytes() for role in ROLES)


def test_the_root_of_naples_is_pinned_by_the_one_that_signs_itself() -> None:
    pin = "dedabca561e1dece8cc00b7bda864cf5f20b95017864408cfe18eaee0dce24b9"
    found = find_root(pin, LEGACY_ROOTS, ())
    assert found is not None
    assert (found.generation, found.extra, found.emulated) == ("naples", False, False)


def test_a_genuine_naples_platform_is_genuine_and_accepted_only_if_the_policy_says_so(
    naples: PlatformChain,
) -> None:
    denied = verify_platform(naples, Policy(sev=SevRules(min_api="0.0")))
    assert denied.genuine
    assert not denied.accepted
    assert checks(denied) == {"generation"}
    assert denied.generation == "naples"
    allowed = verify_platform(naples, Policy(sev=SevRules(min_api="0.0", deny_generations=())))
    assert allowed.accepted
    assert not allowed.extra_root


def test_a_naples_root_of_another_hand_is_not_genuine(naples: PlatformChain) -> None:
    assert naples.ark is not None
    forged = lab_ark(2048, naples.ark.key_id)
    verdict = verify_platform(replace(naples, ark=forged), Policy(sev=SevRules(deny_generations=())))
    assert not verdict.genuine
    assert {"root", "ask_by_ark"} <= checks(verdict)


def test_a_denied_generation_is_rejected(rome: PlatformChain, legacy_lab: LegacyLab) -> None:
    denied = verify_platform(rome, Policy(sev=SevRules(deny_generations=("rome",))))
    assert denied.genuine
    assert checks(denied) == {"generation"}
    assert checks(verify_platform(legacy_lab.chain, legacy_lab.policy("naples"))) == {"generation"}
    allowed = legacy_lab.policy("naples", deny_generations=[])
    assert verify_platform(legacy_lab.chain, allowed).accepted


def test_firmware_below_api_0_17_is_rejected() -> None:
    old = LegacyLab.create(2048, api=(0, 16))
    verdict = verify_platform(old.chain, old.policy())
    assert verdict.genuine
    assert checks(verdict) == {"pek_api", "pdh_api"}
    assert verify_platform(old.chain, old.policy(min_api="0.16")).accepted


def test_the_owner_can_demand_his_own_oca_and_a_certain_chip(legacy_lab: LegacyLab) -> None:
    verdict = verify_platform(
        legacy_lab.chain, legacy_lab.policy(oca_sha256=["00" * 32], cek_sha256=["11" * 32])
    )
    assert checks(verdict) == {"oca_sha256", "cek_sha256"}
    assert not {"oca_sha256", "cek_sha256"} & set(verdict.unchecked)


def test_a_certificate_of_no_role_is_a_reason(rome: PlatformChain) -> None:
    assert rome.pdh is not None
    stray = flip(rome.pdh.raw, 8, 0x40)
    chain = load_platform([stray, *(each.raw for each in rome.certificates())])
    verdict = verify_platform(chain, Policy())
    assert "stray" in checks(verdict)
    assert not verdict.accepted
