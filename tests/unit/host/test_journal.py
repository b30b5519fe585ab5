"""The journal of migrations: what it says after a crash at any byte, and in whose hands a migration is."""

from __future__ import annotations

import json
import multiprocessing
import multiprocessing.synchronize
import tempfile
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift_agent import codec
from sealift_agent.journal import PHASES, Journal
from sealift_agent.protocol import Noted, Unfinished
from sealift_agent.wire import AgentError

WAY = ("opened", "copied", "armed")
NOTED = {
    "opened": Noted(
        source="here",
        destination="there",
        address="10.77.0.9",
        container="c",
        name="redis",
        image="i",
        missing=["data"],
    ),
    "copied": Noted(copy="d", volumes={"data": "now"}),
    "armed": Noted(restart_policy={"Name": "always", "MaximumRetryCount": 0}),
}
words = st.sampled_from([phase for phase in PHASES if phase is not None])


def noted(facts: Noted) -> dict[str, Any]:
    return {name: fact for name, fact in codec.encode(facts).items() if fact is not None}


@settings(deadline=None)
@given(said=st.lists(words, max_size=6))
def test_only_what_may_follow_is_written(said: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        journal = Journal(Path(folder))
        now: str | None = None
        for phase in said:
            if phase in PHASES[now]:
                journal.note("m", phase, NOTED.get(phase, Noted()))
                now = None if phase == "closed" else phase
            else:
                with pytest.raises(AgentError):
                    journal.note("m", phase)
            found = journal.unfinished()
            assert [one.phase for one in found] == ([now] if now else [])
            if now:
                reached = WAY[: WAY.index(now) + 1]
                facts = {name: fact for p in reached for name, fact in noted(NOTED[p]).items()}
                assert found == [Unfinished("m", held=True, phase=now, **facts)]


@settings(deadline=None)  # the disk is somebody else's, too
@given(data=st.data(), steps=st.integers(1, 3))
def test_after_a_crash_at_any_byte_the_last_whole_transition_holds(data: st.DataObject, steps: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder)
        dying = Journal(state)
        for phase in WAY[:steps]:
            dying.note("m", phase, NOTED[phase])
        dying.let_go()
        file = state / "m.jsonl"
        content = file.read_bytes()
        kept = data.draw(st.integers(0, len(content)))
        file.write_bytes(content[:kept])
        whole = content[:kept].count(b"\n")
        following = Journal(state)
        found = following.unfinished()
        assert [(one.phase, one.held) for one in found] == ([(WAY[whole - 1], False)] if whole else [])
        if not whole:
            assert not following.take("m")
            return
        assert following.take("m")
        # It goes on from there, whatever was half written.
        for phase in WAY[whole:]:
            following.note("m", phase)
        assert [json.loads(line)["phase"] for line in file.read_bytes().splitlines()] == list(WAY)
        following.note("m", "closed")
        assert not file.exists()


def _holds(state: str, ready: multiprocessing.synchronize.Event) -> None:
    journal = Journal(Path(state))
    journal.note("m", "opened", NOTED["opened"])
    ready.set()
    multiprocessing.Event().wait()


def test_a_migration_is_taken_over_only_from_the_dead(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    holder = context.Process(target=_holds, args=(str(tmp_path), ready))
    holder.start()
    try:
        assert ready.wait(30)
        journal = Journal(tmp_path)
        assert journal.unfinished()[0].held
        assert not journal.take("m")
        with pytest.raises(AgentError, match="in the hands of somebody else"):
            journal.note("m", "copied")
    finally:
        holder.kill()
        holder.join()
    assert not journal.unfinished()[0].held
    assert journal.take("m")
    assert journal.unfinished()[0].held


@pytest.mark.parametrize("name", ["../m", "", "a/b", "m\n", "m" * 65])
def test_no_name_leads_anywhere_else(tmp_path: Path, name: str) -> None:
    with pytest.raises(AgentError, match="no migration's name"):
        Journal(tmp_path).note(name, "opened")


def test_the_record_of_another_version_is_readable(tmp_path: Path) -> None:
    """The first lines that were ever written had no restart policy; one to come may have more."""
    first = {"phase": "opened", **noted(NOTED["opened"]), "unheard-of": 1}
    then = {"phase": "armed", "copy": "d", "volumes": {}}
    (tmp_path / "m.jsonl").write_text(f"{json.dumps(first)}\n{json.dumps(then)}\n")
    [found] = Journal(tmp_path).unfinished()
    assert (found.phase, found.held, found.copy, found.restart_policy) == ("armed", False, "d", None)


def test_what_is_noted_is_what_whoever_recovers_reads() -> None:
    record = {each.name: str(each.type) for each in fields(Unfinished)}
    for each in fields(Noted):
        assert str(each.type) in {record[each.name], f"Optional[{record[each.name]}]"}
