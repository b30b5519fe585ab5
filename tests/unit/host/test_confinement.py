"""What an agent says of AppArmor and SELinux on its host."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from sealift_agent import confinement, processes

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the kernel's files, in which nothing is on."""
    monkeypatch.setattr(confinement, "APPARMOR", tmp_path / "enabled")
    monkeypatch.setattr(confinement, "PROFILES", tmp_path / "profiles")
    monkeypatch.setattr(confinement, "SELINUX", tmp_path / "enforce")
    return tmp_path


def loaded(kernel: Path, name: str, number: int, policy: bytes | None) -> None:
    folder = kernel / "profiles" / f"{name.replace('/', '.')}.{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    if policy is not None:
        (folder / "raw_data").write_bytes(policy)


def test_a_kernel_without_apparmor_has_no_profiles(kernel: Path) -> None:
    assert confinement.profiles() is None
    (kernel / "enabled").write_text("N\n")
    assert confinement.profiles() is None


def test_profiles_are_told_with_what_they_are_made_of(kernel: Path) -> None:
    (kernel / "enabled").write_text("Y\n")
    assert confinement.profiles() == {}
    loaded(kernel, "docker-default", 0, b"policy")
    loaded(kernel, "/usr/bin/man", 3, None)
    assert confinement.profiles() == {
        "docker-default": hashlib.sha256(b"policy").hexdigest(),
        "/usr/bin/man": "",
    }


@pytest.mark.parametrize(("content", "expected"), [(None, ""), ("0", "permissive"), ("1", "enforcing")])
def test_selinux_is_off_permissive_or_enforcing(kernel: Path, content: str | None, expected: str) -> None:
    if content is not None:
        (kernel / "enforce").write_text(content)
    assert confinement.selinux() == expected


def test_memory_that_may_be_dropped_is_told_from_other() -> None:
    flags = "VmFlags: rd wr mr mw me ac dp nr wf\n"
    assert processes.DROPPED.search(f"Size: 4 kB\n{flags}")
    assert not processes.DROPPED.search(f"Size: 4 kB\n{flags.replace(' dp', '')}")
