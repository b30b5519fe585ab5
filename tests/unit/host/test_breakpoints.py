"""An event that is held, so that CRIU's need not wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift_agent import breakpoints


def events() -> int:
    held = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    return held.count("anon_inode:[perf_event]")


@pytest.mark.root
def test_an_event_is_held_until_it_is_closed() -> None:
    before = events()
    ready = breakpoints.Ready()
    assert events() == before + 1
    ready.close()
    ready.close()
    assert events() == before


def test_a_kernel_that_refuses_one_is_no_reason_to_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(breakpoints, "SOFTWARE", 77)  # no such type of event
    before = events()
    breakpoints.Ready().close()
    assert events() == before
