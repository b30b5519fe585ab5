"""The compatibility table: its programs, its clients, its file of rows and its page."""

from __future__ import annotations

import inspect
import itertools
import re
import socket
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import kept
from benchmarks.compat import matrix, page
from benchmarks.compat import row as rows
from benchmarks.compat.images import IMAGES
from benchmarks.compat.programs import PROGRAMS
from benchmarks.compat.row import Row
from sealift.errors import Refused, UnusableInput
from sealift.model import Strategy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from benchmarks.compat.program import Program

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/compat.json"
CLIENTS = (ROOT / "benchmarks/compat/clients", ROOT / "benchmarks/workloads/clients")

MOVED = Row(
    program="redis",
    kind="cache",
    version="1",
    strategy="auto",
    docker="26",
    outcome=rows.MOVED,
    check="yes",
    moves=3,
    predicted_ms=(100.0, 200.0, 100.0),
    frozen_ms=(50.0, 200.0, 150.0),
    longest_gap_ms=210.0,
    operations=900,
    code="abc",
)


@pytest.fixture
def conversations(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for folder in CLIENTS:
        monkeypatch.syspath_prepend(folder)
    known = set(sys.modules)
    import conversations as loaded

    yield loaded
    for name in set(sys.modules) - known:
        if (getattr(sys.modules[name], "__file__", None) or "").startswith(str(CLIENTS[0])):
            del sys.modules[name]


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on the loopback interface that answers one connection."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                answer(connection)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listening.getsockname()[1]
        thread.join(5)


def test_the_table_has_forty_programs_of_all_kinds() -> None:
    assert len(PROGRAMS) >= 40
    kinds = " ".join(program.kind.lower() for program in PROGRAMS.values())
    for kind in (
        *(
            "database",
            "cache",
            "broker",
            "web server",
            "java",
            "go",
            "node",
            "php",
            "erlang",
            "python with workers",
        ),
        *("mail", "dns", "directory", "monitoring", "sessions", "jobs"),
    ):
        assert kind in kinds, kind


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_program_has_an_image_and_a_client_that_takes_what_it_is_given(
    program: Program, conversations: Any
) -> None:
    assert program.image in IMAGES
    assert all(Strategy(strategy) for strategy in program.strategies)
    assert "exec " in program.start
    settings = dict(program.talk)
    kind = conversations.KINDS[settings.pop("talk")]
    inspect.signature(kind).bind(address="127.0.0.1", port=program.port, **settings)


def test_a_dialogue_notices_an_answer_of_another_turn(conversations: Any) -> None:
    def count(connection: socket.socket) -> None:
        lines = connection.makefile("rb")
        for number in (1, 2, 2):
            lines.readline()
            connection.sendall(f":{number}\r\n".encode())

    with server(count) as port:
        talk = conversations.Dialogue("127.0.0.1", port, each=[["INCR n", "^:{n}$"]], refused="^:")
        talk.begin()
        assert [talk.turn(1), talk.turn(2)] == [None, None]
        assert ":2" in talk.turn(3)
        talk.close()


def test_a_dialogue_notices_a_lost_connection(conversations: Any) -> None:
    with server(lambda connection: connection.sendall(b"hello\r\n")) as port:
        talk = conversations.Dialogue("127.0.0.1", port, each=[["x", "^:"]], greeting="^hello")
        talk.begin()
        with pytest.raises(OSError, match=r"closed|reset|pipe"):
            talk.turn(1)
        talk.close()


def test_a_web_client_notices_a_repeated_request_and_a_closed_connection(conversations: Any) -> None:
    def serve(connection: socket.socket) -> None:
        for number, close in ((1, False), (2, False), (4, False), (5, True)):
            while b"\r\n\r\n" not in connection.recv(4096):
                pass
            more = "Connection: close\r\n" if close else ""
            connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n{more}\r\n{number}".encode())

    with server(serve) as port:
        talk = conversations.Web("127.0.0.1", port, path="/{n}", expected="^(?P<count>[0-9])$")
        talk.begin()
        assert [talk.turn(1), talk.turn(2)] == [None, None]
        assert talk.turn(3) == "expected the count 3, got 4"
        with pytest.raises(OSError, match="closed the connection"):
            talk.turn(4)
        talk.close()


def test_a_name_that_is_no_program_is_answered_with_those_that_are() -> None:
    with pytest.raises(UnusableInput, match="postgresql"):
        matrix.chosen(["redsi"])


def test_programs_that_share_an_image_come_one_after_the_other() -> None:
    images = [program.image for program in matrix.chosen([])]
    assert len(images) == len(PROGRAMS)
    assert sum(one != other for one, other in itertools.pairwise(images)) == len(set(images)) - 1


def test_rows_are_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    assert matrix.stored(path) == {}
    kept.store([MOVED], path)
    assert matrix.stored(path) == {"redis@auto@26": MOVED}
    path.write_text('[{"program": 1}]')
    with pytest.raises(UnusableInput, match="not a file of rows"):
        matrix.stored(path)


def test_each_row_is_in_the_file_before_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "rows.json"
    seen = []

    def run(*_: Any) -> Iterator[Row]:
        for strategy in ("auto", "post-copy"):
            yield replace(MOVED, strategy=strategy)
            seen.append(set(matrix.stored(path)))

    monkeypatch.setattr(matrix, "run", run)
    tried = matrix.keep(matrix.chosen(["redis"]), ["26"], found={}, results=path, say=print)
    assert seen == [{"redis@auto@26"}, {"redis@auto@26", "redis@post-copy@26"}]
    assert [row.strategy for row in tried] == ["auto", "post-copy"]
    with pytest.raises(UnusableInput, match="27"):
        matrix.keep(matrix.chosen(["redis"]), ["27"], found={}, results=path, say=print)


def test_only_rows_that_are_right_with_this_code_are_settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "code", lambda: "abc")
    assert matrix.settled(MOVED)
    assert not matrix.settled(None)
    assert not matrix.settled(replace(MOVED, code="other"))
    assert not matrix.settled(replace(MOVED, outcome=rows.FAILED))
    monkeypatch.setattr(matrix, "code", lambda: "abc+")
    assert not matrix.settled(replace(MOVED, code="abc+"))


def test_what_is_wrong_with_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert matrix.wrong(MOVED) == ""
    assert "it went" in matrix.wrong(replace(MOVED, check="no"))
    failed = replace(MOVED, outcome=rows.FAILED, reason="CRIU said so")
    assert matrix.wrong(failed) == "failed; `check` said yes: CRIU said so"
    refused = replace(MOVED, outcome=rows.REFUSED, check="no", reason="a terminal")
    assert "refused" in matrix.wrong(refused)
    monkeypatch.setitem(PROGRAMS, "redis", replace(PROGRAMS["redis"], limit="It has a terminal."))
    assert matrix.wrong(refused) == ""
    assert matrix.wrong(failed), "a `yes` that failed is wrong, known or not"
    assert matrix.wrong(replace(MOVED, outcome=rows.CLIENT_ERROR))


def test_predictions_are_held_against_each_move() -> None:
    assert page.ratios([MOVED, replace(MOVED, predicted_ms=(0.0,), frozen_ms=(7.0,))]) == [0.5, 1.0, 1.5]


def test_the_page_shows_what_is_in_the_rows() -> None:
    failed = replace(
        MOVED, strategy="post-copy", outcome=rows.FAILED, reason="a|b", frozen_ms=(), predicted_ms=()
    )
    text = page.markdown([MOVED, failed])
    assert "| 26 | auto | 1 | 1 | 1 |" in text
    assert "| 26 | post-copy | 1 | 0 | 0 |" in text
    assert "| auto | 3 | 1.00 |" in text
    assert r"a\|b" in text


def test_the_nightly_flow_writes_a_dated_file_and_fails_with_a_row_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.flows import compat as flows

    outcomes = [rows.MOVED, rows.FAILED]
    monkeypatch.setattr(matrix, "run", lambda *_: iter([replace(MOVED, outcome=outcomes.pop(0))]))
    shown = []
    monkeypatch.setattr(flows, "create_markdown_artifact", lambda **artifact: shown.append(artifact))
    monkeypatch.setattr(flows, "admit_without_inventory", lambda: None)
    made = flows.compat.fn(tmp_path / "compat.json", ["redis"], ["26"], dated=True)
    assert re.fullmatch(r"compat-\d{4}-\d\d-\d\d\.json", made.name)
    assert matrix.stored(made)["redis@auto@26"].outcome == rows.MOVED
    with pytest.raises(Refused, match="redis@auto@26: failed"):
        flows.compat.fn(tmp_path / "compat.json", ["redis"], ["26"])
    assert [artifact["key"] for artifact in shown] == ["compat", "compat"]


@pytest.mark.parametrize("strategy", ["auto", "post-copy"])
def test_forty_programs_moved_by_each_strategy_and_check_was_right(strategy: str) -> None:
    tried = [row for row in matrix.stored(RESULTS).values() if row.strategy == strategy]
    moved = {
        row.program for row in tried if row.docker == "26" and row.outcome == rows.MOVED and row.moves == 3
    }
    assert len(moved) >= 40, sorted(moved)
    assert not [row.key for row in tried if row.outcome != rows.UNTRIED and matrix.wrong(row)]


def test_the_committed_page_is_made_from_the_committed_rows() -> None:
    found = matrix.stored(RESULTS)
    assert found
    assert (ROOT / "docs/compatibility.md").read_text() == page.markdown(found.values())
