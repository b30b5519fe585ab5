"""A policy is strict by default, is read from TOML and written to it, and takes nothing it does not know."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from sealift.errors import UnusableInput
from sealift.evidence.verify.policy import Policy, SnpPolicy, parse_policy, write_policy


def test_an_empty_file_is_the_strict_default() -> None:
    assert parse_policy("") == Policy()
    assert Policy().snp.guest_policy.debug == "forbid"
    assert Policy().snp.guest_policy.migration_agent == "forbid"
    assert Policy().snp.vmpl == 0
    assert Policy().sev.min_api == "0.17"


def test_a_policy_written_is_the_policy_read() -> None:
    policy = Policy.model_validate(
        {
            "extra_roots": [{"sha256": "ab" * 32, "name": "lab", "generation": "milan"}],
            "snp": {"measurements": ["cd" * 48], "tcb_floor": {"turin": {"fmc": 1}}, "vmpl": "any"},
            "sev": {"launch_policy": {"no_send": "allow"}},
        }
    )
    assert parse_policy(write_policy(policy)) == policy
    assert parse_policy(write_policy(Policy()).encode()) == Policy()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[snp]\nmeasurement = ['00']", "measurement"),
        ("[snp]\nmeasurements = ['00']", "48 bytes"),
        ("[snp]\nvmpl = 4", "vmpl"),
        ("[snp.guest_policy]\ndebug = 'maybe'", "debug"),
        ("[snp]\nmin_current_version = '1.55'", "3 numbers"),
        ("[[extra_roots]]\nsha256 = 'key id'", "32 bytes"),
        ("[sev]\nmin_api = 'x'", "2 numbers"),
        ("version = 2", "version"),
        ("nonce_lifetime_s = 0", "nonce_lifetime_s"),
        ("nonce_lifetime_s = 1000000000000000000", "nonce_lifetime_s"),
        ("evidence_lifetime_s = 1000000000000000000", "evidence_lifetime_s"),
        ("this is not TOML", "as TOML"),
        ("a = " + "[" * 5000, "as TOML"),
        ("#" * 17000, "16 KiB"),
        ("a." * 8000 + "a = 1", "dots"),
        (b"\xff\xfe", "as TOML"),
    ],
)
def test_a_policy_that_means_nothing_is_unusable(text: str | bytes, said: str) -> None:
    with pytest.raises(UnusableInput, match=said):
        parse_policy(text)


def test_a_policy_does_not_change() -> None:
    with pytest.raises(ValidationError):
        Policy().snp.vmpl = 3  # type: ignore[misc]


def test_digests_compare_in_any_case() -> None:
    assert SnpPolicy(measurements=("AB" * 48,)).measurements == ("ab" * 48,)
