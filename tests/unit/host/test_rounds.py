"""Memory of earlier rounds: what is left out of a restore, and that the pager finds the newest of each page."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from protobuf import field

from sealift_agent.constants import PAGE_BYTES
from sealift_agent.images import HEAD_BYTES, LAZY, PARENT, PRESENT, messages
from sealift_agent.memory.rounds import (
    ANONYMOUS,
    HUGETLB,
    LOCKED,
    PLAIN,
    PRIVATE,
    Rounds,
    leave_out,
)
from sealift_agent.protobuf import fields
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

START = 0x7F00_0000_0000
ANON = PRIVATE | ANONYMOUS
REGULAR_ANON, REGULAR_FILE, VDSO = 1 | 1 << 9, 1 | 1 << 6, 1 | 1 << 3


def message(*body: bytes) -> bytes:
    joined = b"".join(body)
    return struct.pack("<I", len(joined)) + joined


def at(page: int) -> int:
    return START + page * PAGE_BYTES


def mapping(first: int, last: int, flags: int, status: int) -> bytes:
    """A vma_entry, from its first page to before its last; `fd` is -1, as CRIU writes it."""
    body = [(1, at(first)), (2, at(last)), (3, 0), (4, 0), (5, 3), (6, flags), (7, status), (8, 1)]
    return field(14, b"".join(field(number, value) for number, value in body))


def entry(page: int, pages: int, flags: int, *, wide: bool = True) -> bytes:
    """A pagemap entry. Older CRIUs count pages in field 2 only."""
    body = [(1, at(page)), (2, pages), (4, flags), *([(5, pages)] if wide else [])]
    return message(*(field(number, value) for number, value in body))


@pytest.fixture
def images(tmp_path: Path) -> Path:
    mappings = [
        mapping(0, 100, ANON, REGULAR_ANON),
        mapping(100, 200, ANON, PLAIN),  # side by side with the first
        mapping(200, 300, ANON | LOCKED, REGULAR_ANON),
        mapping(300, 400, PRIVATE, REGULAR_FILE),
        mapping(400, 500, ANON, VDSO),
        mapping(500, 600, ANON | HUGETLB, REGULAR_ANON),
        mapping(600, 700, ANON, REGULAR_ANON),
    ]
    last = tmp_path / "final"
    for made in (last, tmp_path / "round-1", tmp_path / "round-2"):
        made.mkdir()
    (last / "parent").symlink_to("../round-2")
    (tmp_path / "round-2" / "parent").symlink_to("../round-1")
    (last / "mm-7.img").write_bytes(
        b"\0" * HEAD_BYTES + message(field(1, 0x400000), field(12, 3), *mappings, field(15, 1))
    )
    return last


def write_pagemap(images: Path, *entries: bytes) -> Path:
    pagemap = images / "pagemap-7.img"
    pagemap.write_bytes(b"\0" * HEAD_BYTES + message(field(1, 5)) + b"".join(entries))
    return pagemap


def flags_after(images: Path, *entries: bytes) -> list[int]:
    pagemap = write_pagemap(images, *entries)
    size = pagemap.stat().st_size
    leave_out(images)
    assert pagemap.stat().st_size == size
    _, *after = messages(pagemap)
    return [int(dict(fields(one))[4]) for one in after]


def test_earlier_pages_of_ordinary_memory_are_left_out(images: Path) -> None:
    entries = [entry(0, 50, PARENT), entry(90, 20, PARENT, wide=False), entry(600, 100, PARENT)]
    assert flags_after(images, *entries) == [LAZY] * 3


def test_what_the_last_dump_has_sent_stays_as_it_is(images: Path) -> None:
    assert flags_after(images, entry(0, 9, PRESENT | LAZY), entry(300, 9, PRESENT)) == [
        PRESENT | LAZY,
        PRESENT,
    ]
    assert not leave_out(images)


@pytest.mark.parametrize("page", [200, 300, 400, 500])
def test_what_nobody_would_bring_is_read_beforehand(images: Path, page: int) -> None:
    assert flags_after(images, entry(page, 100, PARENT)) == [PARENT]


@pytest.mark.parametrize(("page", "pages"), [(190, 20), (590, 20), (690, 20), (800, 1)])
def test_an_entry_that_lies_only_partly_in_such_a_mapping_stays(images: Path, page: int, pages: int) -> None:
    assert flags_after(images, entry(page, pages, PARENT)) == [PARENT]


def test_shared_memory_is_never_lazy(images: Path) -> None:
    shared = images / "pagemap-shmem-7.img"
    content = b"\0" * HEAD_BYTES + message(field(1, 5)) + entry(0, 50, PARENT)
    shared.write_bytes(content)
    assert not leave_out(images)
    assert shared.read_bytes() == content


def content(*pages: tuple[int, int]) -> bytes:
    """Pages that say which they are, and of which round."""
    return b"".join(struct.pack("<QQ", page, made) * (PAGE_BYTES // 16) for page, made in pages)


def brought(rounds: Rounds, page: int, pages: int) -> bytes:
    return bytes(rounds.read(7, at(page), pages))


def test_the_newest_of_each_page_is_found(images: Path) -> None:
    first, second = images.parent / "round-1", images.parent / "round-2"
    write_pagemap(first, entry(0, 700, PRESENT | LAZY))
    (first / "pages-5.img").write_bytes(content(*((page, 1) for page in range(700))))
    write_pagemap(
        second,
        entry(0, 10, PARENT),
        entry(10, 20, PRESENT | LAZY),
        entry(30, 570, PARENT),
        entry(600, 2, PRESENT | LAZY),
    )
    (second / "pages-5.img").write_bytes(content(*((page, 2) for page in (*range(10, 30), 600, 601))))
    write_pagemap(images, entry(0, 15, PARENT), entry(15, 2, PRESENT | LAZY), entry(17, 585, PARENT))
    (images / "pages-5.img").write_bytes(content((15, 3), (16, 3)))
    assert leave_out(images)
    rounds = Rounds(images)
    newest = dict.fromkeys(range(602), 1)
    newest |= dict.fromkeys((*range(10, 30), 600, 601), 2) | dict.fromkeys((15, 16), 3)
    assert brought(rounds, 0, 602) == content(*newest.items())
    for page in (0, 9, 10, 15, 16, 17, 29, 30, 601):
        assert brought(rounds, page, 1) == content((page, newest[page]))
    with pytest.raises(AgentError, match="no round has the page"):
        brought(rounds, 601, 2)


def test_an_image_that_was_cut_off_is_not_filled_up(images: Path) -> None:
    write_pagemap(images, entry(0, 4, PRESENT | LAZY))
    (images / "pages-5.img").write_bytes(content((0, 1), (1, 1)))
    with pytest.raises(AgentError, match="ends before its pages do"):
        brought(Rounds(images), 0, 4)
