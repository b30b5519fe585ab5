"""What a process lacks, against a plain table of pages, whatever it does to its mappings."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from sealift_agent.memory.missing import Missing

PAGE, PAGES = 4096, 40


class Table:
    """The same by pages: where each that is missing was in the dump."""

    def __init__(self, ranges: list[tuple[int, int]]) -> None:
        self.origins = {page: page for first, last in ranges for page in range(first, last)}

    def remove(self, first: int, last: int) -> None:
        for page in range(first, last):
            self.origins.pop(page, None)

    def move(self, first: int, to: int, count: int) -> None:
        moving = {
            page: self.origins.pop(page) for page in range(first, first + count) if page in self.origins
        }
        self.remove(to, to + count)
        self.origins |= {page - first + to: origin for page, origin in moving.items()}

    def wanted(self, first: int, count: int) -> set[tuple[int, int]]:
        return {(page, origin) for page, origin in self.origins.items() if first <= origin < first + count}


spans = st.tuples(st.integers(0, PAGES - 1), st.integers(1, 12))
steps = st.one_of(
    st.tuples(st.just("remove"), spans, st.just(0)),
    st.tuples(st.just("move"), spans, st.integers(PAGES, 2 * PAGES)),
    st.tuples(st.just("move"), spans.map(lambda span: (span[0] + PAGES, span[1])), st.integers(0, PAGES)),
)


def agree(missing: Missing, table: Table) -> None:
    assert bool(missing) == bool(table.origins)
    for page in range(2 * PAGES + 12):
        origin = missing.origin(page * PAGE + 5)
        assert origin == (None if page not in table.origins else table.origins[page] * PAGE + 5)
    for first in range(0, PAGES, 7):
        found = {
            (page, (one.origin + page * PAGE - one.start) // PAGE)
            for one in missing.wanted(first * PAGE, 9 * PAGE)
            for page in range(one.start // PAGE, one.end // PAGE)
        }
        assert found == table.wanted(first, 9)


@given(st.lists(st.booleans(), min_size=PAGES, max_size=PAGES), st.lists(steps, max_size=12))
def test_it_knows_of_each_page_whether_it_is_missing_and_where_it_was(there: list[bool], done: list) -> None:
    ranges = [(page, page + 1) for page in range(PAGES) if there[page]]
    missing = Missing((first * PAGE, last * PAGE) for first, last in ranges)
    table = Table(ranges)
    for what, (first, count), to in done:
        if what == "remove":
            missing.remove(first * PAGE, (first + count) * PAGE)
            table.remove(first, first + count)
        else:
            if first < to + count and to < first + count:
                continue  # the kernel refuses to move a mapping onto itself
            missing.move(first * PAGE, to * PAGE, count * PAGE)
            table.move(first, to, count)
    agree(missing, table)
    child = missing.copy()
    missing.clear()
    assert not missing
    agree(child, table)
