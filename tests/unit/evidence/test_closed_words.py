"""Words of closed sets: one that is none of them is an error that names the nearest, never a demand that is dropped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from evidence_lab import SnpLab, checks
from test_evidence_cli import run

from sealift import inventory
from sealift.errors import UnusableInput
from sealift.evidence.formats.tcb import Generation, Tcb, encode_tcb
from sealift.evidence.verify.policy import Policy, SnpPolicy, parse_policy, write_policy
from sealift.evidence.verify.tcb_floors import AMD_SB_3019
from sealift.processor.interface import Backend
from sealift.provider.settings import read_settings

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENTED = "[snp.tcb_floor.turin]\nsnp = 4\n"
"""What docs/evidence.md tells an owner of Turin machines to write."""


def test_a_floor_for_one_part_leaves_the_others_where_they_were() -> None:
    floors = parse_policy(DOCUMENTED).snp.tcb_floor
    assert floors["turin"].snp == 4
    for part, levels in AMD_SB_3019.items():
        assert {name: getattr(floors[part], name) for name in levels} == levels


def test_a_milan_of_snp_8_is_refused_under_a_policy_that_says_something_of_turin(snp_lab: SnpLab) -> None:
    old = encode_tcb(Tcb(boot_loader=4, snp=8, microcode=0xDB), Generation.MILAN)
    levels = dict.fromkeys(("current_tcb", "reported_tcb", "committed_tcb", "launch_tcb"), old)
    evidence = snp_lab.evidence(
        endorsement={"tcb": Tcb(boot_loader=4, snp=8, microcode=0xDB)},
        **levels,  # type: ignore[arg-type] # the lab takes any field of a report
    )
    floors = parse_policy(DOCUMENTED).snp.tcb_floor
    verdict = snp_lab.verdict(evidence, tcb_floor=floors)
    assert not verdict.accepted
    assert checks(verdict) == {
        f"tcb_floor.{name}_tcb" for name in ("reported", "current", "committed", "launch")
    }


def test_a_floor_is_merged_level_by_level_and_lowered_by_name_only() -> None:
    raised = parse_policy("[snp.tcb_floor.milan]\nboot_loader = 4\n").snp.tcb_floor["milan"]
    assert (raised.boot_loader, raised.snp, raised.microcode) == (4, 0x18, 0xDB)
    lowered = parse_policy("[snp.tcb_floor.milan]\nmicrocode = 0\n").snp.tcb_floor["milan"]
    assert (lowered.snp, lowered.microcode) == (0x18, 0)
    assert SnpPolicy(tcb_floor={}).tcb_floor == Policy().snp.tcb_floor
    again = parse_policy(write_policy(parse_policy("[snp.tcb_floor.genoa]\nsnp = 0\n")))
    assert (again.snp.tcb_floor["genoa"].snp, again.snp.tcb_floor["genoa"].microcode) == (0, 0x54)


def test_a_level_that_a_part_does_not_have_is_no_floor_for_it() -> None:
    with pytest.raises(UnusableInput, match="FMC"):
        parse_policy("[snp.tcb_floor.milan]\nfmc = 3\n")


@pytest.mark.parametrize(
    ("text", "where", "word", "nearest"),
    [
        ("[snp]\ngenerations = ['mlian']", "snp.generations.0", "mlian", "milan"),
        ("[snp]\ndeny_generations = ['Milan']", "snp.deny_generations.0", "Milan", "milan"),
        ("[sev]\ndeny_generations = ['Rome']", "sev.deny_generations.0", "Rome", "rome"),
        ("[sev]\ngenerations = ['napels']", "sev.generations.0", "napels", "naples"),
        ("[snp.tcb_floor.turinn]\nsnp = 4", "snp.tcb_floor", "turinn", "turin"),
        ("[snp.tcb_floor.Milan-X]\nsnp = 4", "snp.tcb_floor", "Milan-X", "milan-x"),
        (
            "[snp.tcb_floor.turin]\nbootloader = 4",
            "snp.tcb_floor.turin.bootloader",
            "bootloader",
            "boot_loader",
        ),
        ("[snp.tcb_floor.turin]\nmicrocod = 4", "snp.tcb_floor.turin.microcod", "microcod", "microcode"),
        ("[snp.guest_policy]\ndebugg = 'forbid'", "snp.guest_policy.debugg", "debugg", "debug"),
        ("[snp.guest_policy]\ndebug = 'Forbid'", "snp.guest_policy.debug", "Forbid", "forbid"),
        (
            "[snp.platform_info]\nalias_chek = 'require'",
            "snp.platform_info.alias_chek",
            "alias_chek",
            "alias_check",
        ),
        ("[snp]\nsigner = 'vcekk'", "snp.signer", "vcekk", "vcek"),
        ("[snp]\nvmpl = 'anny'", "snp.vmpl", "anny", "any"),
        ("[snp]\nunknown_policy_bits = 'refused'", "snp.unknown_policy_bits", "refused", "refuse"),
        ("[snp]\nmeasurement = []", "snp.measurement", "measurement", "measurements"),
        ("[sev.launch_policy]\nno_sned = 'require'", "sev.launch_policy.no_sned", "no_sned", "no_send"),
        ("[svn]\n", "svn", "svn", "snp"),
        ("nonce_lifetime = 5", "nonce_lifetime", "nonce_lifetime", "nonce_lifetime_s"),
        (
            f"[[extra_roots]]\nsha256 = '{'ab' * 32}'\ngeneration = 'Milann'",
            "extra_roots.0.generation",
            "Milann",
            "milan",
        ),
    ],
    ids=lambda text: str(text)[:40],
)
def test_a_word_that_is_none_of_the_policys_names_the_nearest(
    text: str, where: str, word: str, nearest: str
) -> None:
    with pytest.raises(UnusableInput) as raised:
        parse_policy(text)
    said = str(raised.value)
    assert where in said
    assert repr(word) in said
    assert f"the nearest word is {nearest!r}" in said
    assert "\n" not in said


def test_a_report_version_that_there_is_not_is_no_demand() -> None:
    with pytest.raises(UnusableInput, match="report_versions"):
        parse_policy("[snp]\nreport_versions = [6]")


def test_a_word_like_none_lists_those_that_there_are() -> None:
    with pytest.raises(UnusableInput, match="known are genoa, milan, turin"):
        parse_policy("[snp]\ngenerations = ['xyzzy']")


def test_a_word_cannot_speak_to_the_terminal() -> None:
    with pytest.raises(UnusableInput) as raised:
        parse_policy('[snp]\n"measure\\u001b[2Jment" = []\nsigner = "\\u001b]0;x"')
    assert str(raised.value).isprintable()


HOST = '[gateway]\naddress = "10.0.0.1"\nhost_key = "ssh-ed25519 AAAA"\nkey_file = "/k"\n'
VM = '[hosts.vm]\naddress = "10.0.0.2"\nkey_file = "/k"\n[hosts.vm.vm]\npolicy = "/p"\n'


@pytest.mark.parametrize(
    ("text", "where", "nearest"),
    [
        (HOST + VM + 'evidence = "sevsnp"\n', "hosts.vm.vm.evidence", "snp"),
        (HOST + VM + 'evidense = "snp"\n', "hosts.vm.vm.evidense", "evidence"),
        (HOST + VM + "vcpu = 2\n", "hosts.vm.vm.vcpu", "vcpus"),
        (HOST + '[hosts]\n[lab]\nkind = "nets"\naccelerator = "none"\n', "lab.kind", "netns"),
        (HOST + "[hosts]\n[limits]\nper_hosts = 3\n", "limits.per_hosts", "per_host"),
        (HOST + "[hosts]\n[netwerk]\n", "netwerk", "network"),
        (HOST.replace("host_key", "hostkey") + "[hosts]\n", "gateway.hostkey", "host_key"),
    ],
    ids=lambda text: str(text)[-30:],
)
def test_the_inventory_names_the_nearest_word(tmp_path: Path, text: str, where: str, nearest: str) -> None:
    file = tmp_path / "sealift.toml"
    file.write_text(text)
    with pytest.raises(UnusableInput) as raised:
        inventory.load(file)
    assert where in str(raised.value)
    assert f"the nearest word is {nearest!r}" in str(raised.value)


@pytest.mark.parametrize(
    ("text", "nearest"),
    [('processor = "emulator"', "emulated"), ('procesor = "qemu"', "processor"), ("tapz = []", "taps")],
)
def test_the_providers_settings_name_the_nearest_word(tmp_path: Path, text: str, nearest: str) -> None:
    file = tmp_path / "provider.toml"
    file.write_text(text)
    with pytest.raises(UnusableInput) as raised:
        read_settings(file)
    assert f"the nearest word is {nearest!r}" in str(raised.value)
    assert set(Backend) == {"qemu", "emulated"}


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        (["--mode", "spn", "--vcpu-type", "EPYC"], "snp"),
        (["--mode", "snp", "--vcpu-type", "EPYC-Milann"], "EPYC-Milan"),
        (["--mode", "snp", "--vcpu-type", "EPYC", "--vmm", "qem"], "qemu"),
    ],
    ids=str,
)
def test_the_command_line_names_the_nearest_word(tmp_path: Path, arguments: list[str], nearest: str) -> None:
    (tmp_path / "firmware").write_bytes(bytes(4096))
    status, said = run("digest", "--firmware", tmp_path / "firmware", *arguments)
    assert status == 2
    assert f"the nearest word is {nearest!r}" in said
    status, said = run("policy", "init", "--digest", "00" * 48, "--signer", "vleck")
    assert (status, "the nearest word is 'vlek'" in said) == (2, True)
