"""What of earlier rounds may follow a restored process: only what CRIU has brought by userfaultfd."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest
from protobuf import field

from sealift.host.agent.criu import IMAGE_HEAD, PAGE_BYTES, fields, messages
from sealift.host.agent.lazy import (
    ANONYMOUS,
    HUGETLB,
    LAZY,
    LOCKED,
    PARENT,
    PLAIN,
    PRIVATE,
    mark_earlier,
)

if TYPE_CHECKING:
    from pathlib import Path

PRESENT = 4
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
    (tmp_path / "mm-7.img").write_bytes(
        b"\0" * IMAGE_HEAD + message(field(1, 0x400000), field(12, 3), *mappings, field(15, 1))
    )
    return tmp_path


def flags_after(images: Path, *entries: bytes) -> list[int]:
    pagemap = images / "pagemap-7.img"
    pagemap.write_bytes(b"\0" * IMAGE_HEAD + message(field(1, 5)) + b"".join(entries))
    size = pagemap.stat().st_size
    mark_earlier(images)
    assert pagemap.stat().st_size == size
    _, *after = messages(pagemap)
    return [int(dict(fields(one))[4]) for one in after]


def test_earlier_pages_of_ordinary_memory_follow(images: Path) -> None:
    entries = [entry(0, 50, PARENT), entry(90, 20, PARENT, wide=False), entry(600, 100, PARENT)]
    assert flags_after(images, *entries) == [PARENT | LAZY] * 3


def test_what_the_last_dump_has_sent_stays_as_it_is(images: Path) -> None:
    assert flags_after(images, entry(0, 9, PRESENT | LAZY), entry(300, 9, PRESENT)) == [
        PRESENT | LAZY,
        PRESENT,
    ]


@pytest.mark.parametrize("page", [200, 300, 400, 500])
def test_what_nobody_would_bring_is_read_beforehand(images: Path, page: int) -> None:
    assert flags_after(images, entry(page, 100, PARENT)) == [PARENT]


@pytest.mark.parametrize(("page", "pages"), [(190, 20), (590, 20), (690, 20), (800, 1)])
def test_an_entry_that_lies_only_partly_in_such_a_mapping_stays(images: Path, page: int, pages: int) -> None:
    assert flags_after(images, entry(page, pages, PARENT)) == [PARENT]


def test_shared_memory_is_never_lazy(images: Path) -> None:
    shared = images / "pagemap-shmem-7.img"
    content = b"\0" * IMAGE_HEAD + message(field(1, 5)) + entry(0, 50, PARENT)
    shared.write_bytes(content)
    mark_earlier(images)
    assert shared.read_bytes() == content
