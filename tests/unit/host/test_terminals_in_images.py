"""Terminals and pipes in CRIU's images, which become what the destination can open."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift_agent import by_name, left_behind, session_terminals
from sealift_agent.images import HEAD_BYTES, spans
from sealift_agent.protobuf import fields, written
from sealift_agent.terminals import Terminal

if TYPE_CHECKING:
    from pathlib import Path

HEAD = b"h" * HEAD_BYTES
MOUNT = 77
OWNER = written(1, 0) + written(2, 0)
TTY, PIPE, SLAVE = 0x500, 4242, Terminal(0x2A, 300)


def message(*parts: tuple[int, int | bytes]) -> bytes:
    return b"".join(written(number, value) for number, value in parts)


def image(*messages: bytes) -> bytes:
    return HEAD + b"".join(len(one).to_bytes(4, "little") + one for one in messages)


def read(data: bytes) -> list[dict[int, int | bytes]]:
    return [dict(fields(data[begin:end])) for begin, end in spans(data)]


def info(number: int, kind: int, session: int, device: int, system: int = 5) -> bytes:
    settings = [(9, b"t"), (10, b"l"), (11, b"w")]
    return message((1, number), (2, kind), (6, session), (7, session), (8, device), *settings, (13, system))


def terminal(number: int, of: int) -> bytes:
    return message((1, 11), (2, number), (19, message((1, number), (2, of), (3, 2), (4, OWNER))))


def pipe(number: int, of: int) -> bytes:
    return message((1, 2), (2, number), (18, message((1, number), (2, of), (3, 1), (4, OWNER))))


PLAIN = message((1, 1), (2, 9), (3, b"regular"))


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An image directory, of a container all of whose files are in one mount."""
    monkeypatch.setattr("sealift_agent.proc.mount_of", lambda first, path: MOUNT)
    return tmp_path


def named(name: bytes, number: int, flags: int) -> dict[int, int | bytes]:
    regular = message((1, number), (2, flags), (3, (1 << 64) - 1), (5, OWNER), (6, name), (7, MOUNT * 2))
    return {1: 1, 2: number, 3: regular}


def test_the_containers_own_terminal_is_opened_by_its_name(images: Path) -> None:
    (images / "tty-info.img").write_bytes(image(info(2026, 5, 1, TTY), info(0, 1, 1, 0x8800)))
    (images / "files.img").write_bytes(image(terminal(3, 2026), PLAIN, terminal(4, 0)))
    (images / "fdinfo-2.img").write_bytes(
        image(message((1, 3), (2, 0), (3, 11), (4, 7)), message((1, 4), (2, 0), (3, 11), (4, 0)))
    )
    session_terminals.mend(images, 1)
    assert [one[2] for one in read((images / "tty-info.img").read_bytes())] == [4, 1]
    own, plain, other = read((images / "files.img").read_bytes())
    assert own == named(b"/dev/tty", 3, 2)
    assert plain == dict(fields(PLAIN))
    assert other == dict(fields(terminal(4, 0)))
    assert [one[3] for one in read((images / "fdinfo-2.img").read_bytes())] == [1, 11]


def test_one_of_a_session_inside_stays_a_terminal_with_a_name(images: Path) -> None:
    (images / "tty-info.img").write_bytes(image(info(2026, 5, 8, TTY)))
    (images / "files.img").write_bytes(image(terminal(3, 2026), PLAIN))
    session_terminals.mend(images, 1)
    name, tied, _ = read((images / "files.img").read_bytes())
    assert name == named(b"/dev/tty", 10, 2)
    assert by_name.integer(by_name.part(tied, by_name.TERMINAL), by_name.NAMED_BY) == 10


def test_images_without_such_terminals_stay_as_they_are(images: Path) -> None:
    session_terminals.mend(images, 1)
    before = image(info(0, 1, 1, 0x8800))
    (images / "tty-info.img").write_bytes(before)
    session_terminals.mend(images, 1)
    assert (images / "tty-info.img").read_bytes() == before


def test_a_pipe_to_a_session_leads_nowhere(images: Path) -> None:
    (images / "files.img").write_bytes(image(pipe(3, PIPE), pipe(4, PIPE + 1)))
    (images / "fdinfo-2.img").write_bytes(
        image(message((1, 3), (2, 0), (3, 2), (4, 1)), message((1, 4), (2, 0), (3, 2), (4, 2)))
    )
    left_behind.lead_nowhere(images, 1, {f"pipe:[{PIPE}]"})
    changed, other = read((images / "files.img").read_bytes())
    assert changed == named(b"/dev/null", 3, 1)
    assert other == dict(fields(pipe(4, PIPE + 1)))
    assert [one[3] for one in read((images / "fdinfo-2.img").read_bytes())] == [1, 2]


def test_a_sessions_terminal_is_hung_up(images: Path) -> None:
    (images / "tty-info.img").write_bytes(
        image(info(2026, 5, 8, SLAVE.rdev, SLAVE.device), info(0, 1, 1, 0x8800))
    )
    (images / "files.img").write_bytes(image(terminal(3, 2026), terminal(4, 0)))
    left_behind.hang_up(images, 1, {SLAVE})
    hung, own = read((images / "tty-info.img").read_bytes())
    assert hung == {
        1: 2026,
        2: 1,
        6: 0,
        7: 0,
        8: SLAVE.rdev,
        12: message((1, SLAVE.number)),
        13: SLAVE.device,
    }
    assert own[9] == b"t"
    name, tied, other = read((images / "files.img").read_bytes())
    assert name == named(b"/dev/pts/300", 5, 2)
    assert by_name.integer(by_name.part(tied, by_name.TERMINAL), by_name.NAMED_BY) == 5
    assert other == dict(fields(terminal(4, 0)))


def test_only_what_was_left_needs_settings() -> None:
    assert not left_behind.Left({"pipe:[1]"}).settings
    assert not left_behind.Left({"pipe:[1]"}).options
    assert left_behind.Left((), {SLAVE}).settings == f"external tty[{SLAVE.rdev:x}:2a]\n"
    assert left_behind.Left((), {SLAVE}).options == ["--shell-job"]
