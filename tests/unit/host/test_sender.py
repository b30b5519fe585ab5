"""The final pass of files sends what has changed by name, without looking at the rest, or all where names don't do."""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from pathlib import Path

import pytest

from sealift_agent.files import opened
from sealift_agent.files.changes import TICK_NS
from sealift_agent.files.rsync import LAYER, Sender, View

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")]

RSYNC = """#!/bin/sh
{ printf '%s\\n' "$*"; tr '\\0' '\\n'; echo; } >>"$RSYNC_CALLS.$$"
mv "$RSYNC_CALLS.$$" "$RSYNC_CALLS/$$"
echo "Total bytes sent: 7"
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each call of rsync is a file here: its arguments, then what it was given to read."""
    programs, made = tmp_path / "programs", tmp_path / "calls"
    programs.mkdir()
    made.mkdir()
    (programs / "rsync").write_text(RSYNC)
    (programs / "rsync").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("RSYNC_CALLS", str(made))
    return made


@pytest.fixture
def trees(tmp_path: Path) -> dict[str, str]:
    found = {LAYER: str(tmp_path / "layer"), "volume-0": str(tmp_path / "volume")}
    for root in found.values():
        for name in ("one", "two"):
            (Path(root) / "folder").mkdir(parents=True, exist_ok=True)
            (Path(root) / "folder" / name).write_text(name)
    return found


def said(calls: Path) -> list[list[str]]:
    found = sorted(path.read_text().splitlines() for path in calls.iterdir())
    for path in calls.iterdir():
        path.unlink()
    return found


def sender(trees: dict[str, str], *processes: int) -> Sender:
    directory = Path(tempfile.mkdtemp(dir=Path(trees[LAYER]).parent))
    return Sender(
        "192.0.2.1", 1, "secret", trees, directory, view=lambda: View(Path(trees[LAYER]), processes)
    )


def test_what_has_not_changed_starts_nothing(calls: Path, trees: dict[str, str]) -> None:
    sending = sender(trees)
    sending.live_pass()
    assert len(said(calls)) == 2
    assert sending.catch_up() == sending.final_pass([]) == 0
    assert not said(calls)
    sending.close()


def test_what_has_changed_is_sent_by_name(calls: Path, trees: dict[str, str]) -> None:
    sending = sender(trees)
    sending.live_pass()
    said(calls)
    (Path(trees["volume-0"]) / "folder/one").write_text("again")
    (Path(trees["volume-0"]) / "folder/two").unlink()
    assert sending.final_pass([]) == 7
    ((arguments, *names),) = said(calls)
    assert arguments.endswith("/volume-0/")
    assert {"--files-from=-", "--delete-missing-args", "--ignore-times"} <= set(arguments.split())
    assert [name for name in names if name] == ["./folder/one", "./folder/two"]
    sending.close()


def test_a_change_before_the_freeze_is_sent_before_it(calls: Path, trees: dict[str, str]) -> None:
    sending = sender(trees)
    sending.live_pass()
    (Path(trees[LAYER]) / "folder/one").write_text("again")
    assert sending.catch_up() == 14
    said(calls)
    assert sending.final_pass([]) == 0
    assert not said(calls)
    sending.close()


def test_what_is_open_and_was_written_through_a_mapping_is_sent(
    calls: Path, trees: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = Path(trees[LAYER])
    monkeypatch.setattr(opened, "mounts", lambda _: {str(tree): {str(tree)}})
    with (tree / "folder/one").open("r+b") as file, (tree / "folder/two").open("r+b"):
        time.sleep(TICK_NS * 2 / 1e9)
        sending = sender(trees)
        sending.live_pass()
        said(calls)
        with mmap.mmap(file.fileno(), 0) as mapped:
            mapped[:1] = b"w"
        assert sending.final_pass([os.getpid()]) == 7
    ((_, *names),) = said(calls)
    assert [name for name in names if name] == ["./folder/one"]
    sending.close()


@pytest.mark.parametrize("lost_before", [False, True])
def test_where_names_do_not_do_whole_trees_are_compared(
    calls: Path, trees: dict[str, str], lost_before: bool
) -> None:
    file = Path(trees[LAYER]) / "folder/one"
    if lost_before:
        os.link(file, file.with_name("other"))
    with file.open("a") as held:
        if lost_before:
            file.unlink()
        sending = sender(trees, os.getpid())
        sending.live_pass()
        said(calls)
        held.write("more")
        held.flush()
        (Path(trees[LAYER]) / "new").mkdir()
        sending.final_pass([])
    assert any("--delete " in f"{arguments} " for arguments, *_ in said(calls))
    sending.close()


def test_without_a_view_trees_are_walked(tmp_path: Path, calls: Path, trees: dict[str, str]) -> None:
    sending = Sender("192.0.2.1", 1, "secret", trees, tmp_path)
    sending.live_pass()
    said(calls)
    (Path(trees[LAYER]) / "folder/one").write_text("again")
    assert sending.final_pass([]) > 0
    assert len(said(calls)) >= 2
    sending.close()
