"""CRIU's statistics and logs, as the agents read them."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from protobuf import field

from sealift_agent import criu
from sealift_agent.images import dump_stats, restore_stats

if TYPE_CHECKING:
    from pathlib import Path


def statistics(entry: int, fields: dict[int, int]) -> bytes:
    body = field(entry, b"".join(field(number, value) for number, value in fields.items()))
    return struct.pack("<III", 0x57093306, 0x62560909, len(body)) + body


def test_a_dumps_statistics_are_read(tmp_path: Path) -> None:
    (tmp_path / "stats-dump").write_bytes(
        statistics(1, {1: 300, 2: 90_000, 5: 40_000, 6: 12, 7: 1 << 33, 15: 9})
    )
    assert dump_stats(tmp_path) == {
        "freezing_us": 300,
        "frozen_us": 90_000,
        "pages_scanned": 40_000,
        "pages_skipped": 12,
        "pages_written": 1 << 33,
    }


def test_a_restores_statistics_are_read(tmp_path: Path) -> None:
    (tmp_path / "stats-restore").write_bytes(statistics(2, {1: 5, 3: 100, 4: 200_000}))
    assert restore_stats(tmp_path) == {"forking_us": 100, "restore_us": 200_000}


def test_missing_statistics_are_empty(tmp_path: Path) -> None:
    assert dump_stats(tmp_path) == {}


def test_the_reason_is_criu_s_own_without_the_harmless_line(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.1) Error (criu/util.c:1): Can't setup RLIMIT_NOFILE for self\n(00.2) fine\n"
        "(00.3) Error (criu/tty.c:2): tty: no peer\n(00.4) Error (criu/cr-dump.c:3): Dumping FAILED.\n"
    )
    assert criu.reason(log) == "(criu/tty.c:2): tty: no peer; (criu/cr-dump.c:3): Dumping FAILED."
    assert criu.reason(tmp_path / "none") == ""


def test_a_page_server_that_is_gone_is_the_reason_and_not_what_follows_from_it(tmp_path: Path) -> None:
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.001202) Connecting to server 10.78.0.20:42311\n"
        "(00.010004) Can't connect to server 10.78.0.20:42311\n"
        "(00.010051) \tUnseizing 338 into 1\n"
        "(00.010058) Error (compel/src/lib/infect.c:417): Unable to detach from 338: No such process\n"
        "(00.010065) Error (criu/cr-dump.c:1975): Dumping FAILED.\n"
    )
    assert criu.reason(log) == (
        "Can't connect to server 10.78.0.20:42311; (criu/cr-dump.c:1975): Dumping FAILED."
    )


def test_an_image_that_is_missing_is_named(tmp_path: Path) -> None:
    log = tmp_path / "restore.log"
    log.write_text(
        "(00.000846) No memfd.img image\n(00.000900) No inventory.img image\n"
        "(00.000901) Error (criu/protobuf.c:72): Unexpected EOF on (empty-image)\n"
    )
    assert criu.reason(log) == "(criu/protobuf.c:72): Unexpected EOF on inventory.img"
