"""Timers that expired in the freeze start again: CRIU's image is put right, byte for byte otherwise the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from protobuf import field

from sealift_agent import timerfd

if TYPE_CHECKING:
    from pathlib import Path

MAGICS = bytes(8)


def timer(ticks: int, left_ns: int, interval_ns: int, left_s: int = 0, interval_s: int = 0) -> bytes:
    """One entry of `files.img` for a timerfd (images/fdinfo.proto, images/timerfd.proto)."""
    numbers = {1: 300, 2: 2, 4: 1, 5: ticks, 6: 0, 7: left_s, 8: left_ns, 9: interval_s, 10: interval_ns}
    owner = field(3, field(1, 0) + field(2, 0))
    inner = b"".join(field(n, v) + (owner if n == 2 else b"") for n, v in numbers.items())
    return entry(field(1, 17) + field(2, 300) + field(12, inner))


def entry(message: bytes) -> bytes:
    return len(message).to_bytes(4, "little") + message


OTHER = entry(field(1, 1) + field(2, 9) + field(3, b"a regular file"))


@pytest.mark.parametrize(
    ("ticks", "left_ns", "interval_ns", "stopped"),
    [
        (1, 0, 50_000_000, True),
        (7, 0, 1, True),
        (1, 20, 50_000_000, False),  # it runs
        (1, 0, 0, False),  # it was to expire once
        (0, 0, 50_000_000, False),  # it is not armed
    ],
)
def test_only_a_periodic_timer_that_expired_unread_is_changed(
    tmp_path: Path, ticks: int, left_ns: int, interval_ns: int, stopped: bool
) -> None:
    image = tmp_path / "files.img"
    image.write_bytes(MAGICS + OTHER + timer(ticks, left_ns, interval_ns) + OTHER)
    assert timerfd.start_again(tmp_path) == (1 if stopped else 0)
    now = 1 if stopped else left_ns
    assert image.read_bytes() == MAGICS + OTHER + timer(ticks, now, interval_ns) + OTHER


def test_whole_seconds_count_too(tmp_path: Path) -> None:
    image = tmp_path / "files.img"
    image.write_bytes(MAGICS + timer(1, 0, 0, interval_s=5) + timer(1, 0, 0, left_s=2, interval_s=5))
    assert timerfd.start_again(tmp_path) == 1


def test_a_dump_without_files_or_timers_stays_as_it_is(tmp_path: Path) -> None:
    assert timerfd.start_again(tmp_path) == 0
    (tmp_path / "files.img").write_bytes(MAGICS + OTHER)
    assert timerfd.start_again(tmp_path) == 0
    assert (tmp_path / "files.img").read_bytes() == MAGICS + OTHER
