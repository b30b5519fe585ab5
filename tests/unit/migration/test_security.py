"""What confines a container, judged: by what both Dockers say of themselves, and by what both kernels have."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from test_findings import HERE, QUIET, WHO

from sealift.migration.checks import security
from sealift.migration.checks.finding import Answer, Finding, Resource

PLAIN: dict[str, Any] = {"UsernsMode": "", "SecurityOpt": None}
BUILTIN = "name=seccomp,profile=builtin"
SHIFTED = {"SecurityOptions": [BUILTIN, "name=userns"], "DockerRootDir": "/var/lib/docker/100000.100000"}
NOT_SHIFTED = {"SecurityOptions": [BUILTIN], "DockerRootDir": "/var/lib/docker"}
ENFORCED = "site (enforce)"


def container(**own: Any) -> dict[str, Any]:
    return {"HostConfig": {**PLAIN, **own}}


@pytest.mark.parametrize(
    ("option", "own", "word"),
    [
        ("name=rootless", {}, "root has started"),
        ("name=rootless", {"UsernsMode": "host"}, "root has started"),
        ("name=selinux", {}, "label=disable"),
        ("name=selinux", {"SecurityOpt": ["label=disable"]}, None),
        (BUILTIN, {}, None),
        ("name=apparmor", {}, None),
        ("name=cgroupns", {}, None),
    ],
)
def test_what_docker_does_to_all_containers(option: str, own: dict[str, Any], word: str | None) -> None:
    found = security.of_docker("source", {"SecurityOptions": [option]}, container(**own))
    assert [finding.answer for finding in found] == ([Answer.NO] if word else [])
    assert all(word in finding.remedy for finding in found if word)


def test_a_user_namespace_of_dockers_is_refused_with_the_shift_and_a_way_out() -> None:
    assert security.users("source", NOT_SHIFTED, container()) == []
    assert security.users("source", SHIFTED, container(UsernsMode="host")) == []
    (against,) = security.users("source", SHIFTED, container())
    assert against.answer is Answer.NO
    assert "--userns=host" in against.remedy
    assert "100000" in against.remedy


@pytest.mark.parametrize(
    ("here", "there", "said"),
    [
        (NOT_SHIFTED, NOT_SHIFTED, None),
        (SHIFTED, SHIFTED, None),
        (SHIFTED, NOT_SHIFTED, "not shifted there, and shifted by 100000.100000 at the source"),
        (NOT_SHIFTED, SHIFTED, "shifted by 100000.100000 there, and not shifted at the source"),
        (SHIFTED, {**SHIFTED, "DockerRootDir": "/d/200000.100000"}, "shifted by 200000.100000 there"),
    ],
)
def test_files_belong_to_the_same_users_on_both_hosts(
    here: dict[str, Any], there: dict[str, Any], said: str | None
) -> None:
    found = security.owners("destination", here, there)
    assert [finding.answer for finding in found] == ([Answer.NO] if said else [])
    assert all(said in finding.what for finding in found if said)


def judged(
    used: str | None = ENFORCED,
    here: dict[str, str] | None = None,
    there: dict[str, str] | None = None,
) -> list[Finding]:
    """The findings of a container under a profile, given the profiles of both hosts."""
    uses = replace(QUIET, profiles={used: WHO} if used else {})
    ours, theirs = replace(HERE, profiles=here), replace(HERE, profiles=there)
    return security.of_processes(uses, ("source", ours), ("destination", theirs))


def of(resource: Resource, found: list[Finding]) -> Finding:
    (finding,) = [one for one in found if one.resource is resource]
    return finding


@pytest.mark.parametrize(
    ("used", "here", "there", "expected", "word"),
    [
        (None, None, None, Answer.YES, "no profile"),
        (None, {}, None, Answer.YES, "no profile"),
        (None, None, {}, Answer.YES, "no profile"),
        (ENFORCED, {"site": "a"}, {"site": "a"}, Answer.YES, "both hosts have the same site"),
        (ENFORCED, {"site": "a"}, None, Answer.NO, "has no AppArmor"),
        (ENFORCED, {"site": "a"}, {"other": "a"}, Answer.NO, "apparmor_parser --replace FILE"),
        (ENFORCED, {"site": "a"}, {"site": "b"}, Answer.NO, "raw_data"),
        (ENFORCED, {"site": ""}, {"site": ""}, Answer.NO, "raw_data"),
        ("site//worker (complain)", {"site": "a"}, {"site": "a"}, Answer.YES, "the same site"),
        ("site//&web (mixed)", {"site": "a", "web": "b"}, {"site": "a"}, Answer.NO, "profile web"),
        ("docker-default (enforce)", {"docker-default": "a"}, {"docker-default": "a"}, Answer.YES, "both"),
        ("docker-default (enforce)", {"docker-default": "a"}, {"docker-default": "b"}, Answer.UNKNOWN, "own"),
        ("docker-default (enforce)", {"docker-default": "a"}, {}, Answer.NO, "has not loaded"),
    ],
)
def test_a_profile_is_the_same_at_the_destination_or_it_is_said(
    used: str | None,
    here: dict[str, str] | None,
    there: dict[str, str] | None,
    expected: Answer,
    word: str,
) -> None:
    finding = of(Resource.APPARMOR, judged(used, here, there))
    assert finding.answer is expected
    assert word in f"{finding.what} {finding.remedy}"
    assert finding.remedy or expected is Answer.YES


@pytest.mark.parametrize(
    ("here", "there", "expected"),
    [
        ("", "", Answer.YES),
        ("enforcing", "", Answer.NO),
        ("permissive", "", Answer.NO),
        ("", "enforcing", Answer.UNKNOWN),
        ("enforcing", "enforcing", Answer.UNKNOWN),
    ],
)
def test_selinux_is_never_a_yes_where_it_is_on(here: str, there: str, expected: Answer) -> None:
    ours, theirs = replace(HERE, selinux=here), replace(HERE, selinux=there)
    finding = of(Resource.SELINUX, security.of_processes(QUIET, ("source", ours), ("destination", theirs)))
    assert finding.answer is expected


def test_what_is_not_known_of_the_destination_is_no_yes() -> None:
    uses = replace(QUIET, profiles={ENFORCED: WHO})
    found = security.of_processes(
        uses, ("source", replace(HERE, profiles={"site": "a"})), ("destination", None)
    )
    assert of(Resource.APPARMOR, found).answer is Answer.UNKNOWN
    assert of(Resource.SECCOMP, found).answer is Answer.YES


def test_who_has_asked_the_processor_to_speculate_less_is_named() -> None:
    uses = replace(QUIET, states={"speculation": WHO})
    finding = of(Resource.PROCESSES, security.of_processes(uses, ("source", HERE), ("destination", HERE)))
    assert finding.answer is Answer.UNKNOWN
    assert WHO[0] in finding.what
    assert finding.remedy
