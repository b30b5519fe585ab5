"""The table of CRIU's own test suite: what a built suite is read as, verdicts, division, rows and the page."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from benchmarks.zdtm import matrix, page, suite, trials
from benchmarks.zdtm.row import Outcome, Row, Way, from_fields, lines
from benchmarks.zdtm.runners import Stuck
from benchmarks.zdtm.trials import Verdict
from sealift.errors import CommandFailed, UnusableInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A folder as a built suite is: two programs with descriptions, one without, one that was not built."""
    for folder in ("static", "transition", "lib"):
        (tmp_path / folder).mkdir()
    (tmp_path / "static/Makefile").touch()
    (tmp_path / "lib/libzdtmtst.a").touch()
    for name, text in (
        ("static/one", "{'flavor': 'ns uns', 'flags': 'suid'}\n"),
        ("static/two", "os.getenv('HERE') and {'flags': 'suid'}"),
        ("static/three", "{'arch': 's390x'}"),
        ("transition/four", None),
    ):
        (tmp_path / f"{name}.c").touch()
        (tmp_path / name).touch(mode=0o755)
        if text is not None:
            (tmp_path / f"{name}.desc").write_text(text)
    (tmp_path / "static/unbuilt.c").touch()
    return tmp_path


def test_a_suite_is_its_built_programs_with_their_descriptions(built: Path) -> None:
    found = {program.name: program for program in suite.programs(built)}
    assert list(found) == ["static/one", "static/three", "static/two", "transition/four"]
    assert found["static/one"].alone
    assert found["static/one"].flags == {"suid"}
    assert not found["transition/four"].alone
    assert "computed" in found["static/two"].left_out
    assert found["static/three"].left_out == "for s390x only"
    assert [program.name for program in suite.chosen(built, [])] == ["static/one", "transition/four"]
    assert [program.name for program in suite.chosen(built, ["two", "transition/four"])] == [
        "static/two",
        "transition/four",
    ]
    with pytest.raises(UnusableInput, match="no program 'five'"):
        suite.chosen(built, ["five"])


@pytest.mark.parametrize("text", ["", "[]", "{1: 2}", "__import__('os').getpid()", "{" * 500])
def test_what_is_no_description_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="no description"):
        suite.description(text)


def test_without_a_suite_a_sentence_says_how_to_get_one(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(suite.VARIABLE, str(built))
    assert suite.folder() == built
    (built / "lib/libzdtmtst.a").unlink()
    with pytest.raises(UnusableInput, match="is no built suite") as unbuilt:
        suite.folder()
    assert "make -k -C test/zdtm" in str(unbuilt.value)
    monkeypatch.delenv(suite.VARIABLE)
    with pytest.raises(UnusableInput, match=r"\$ZDTM names no built suite"):
        suite.folder()


PROGRAM = """
trap 'echo "$VERDICT" >$0.out; rm $0.pid; exit' TERM
echo -n $$ >$0.pid
while :; do sleep 0.05; done
"""


def test_programs_are_asked_for_their_verdicts_by_a_signal(tmp_path: Path) -> None:
    script = trials.VERDICT.replace("cd /zdtm", f"cd {tmp_path}")
    running = []
    for name, verdict in (("good", "12:00: 7: PASS"), ("bad", "12:00: 7: FAIL: file.c:1: no\tmore")):
        (tmp_path / name).write_text(PROGRAM)
        running.append(
            subprocess.Popen(["sh", name], cwd=tmp_path, env={"VERDICT": verdict, "PATH": "/bin:/usr/bin"})
        )
    try:
        while not all((tmp_path / f"{name}.pid").exists() for name in ("good", "bad")):
            pass
        (tmp_path / "never.out.inprogress").write_text("12:00: 7: ERR: file.c:2: no mount\n")
        done = subprocess.run(
            ["sh", "-c", script, "sh", "good", "bad", "never"], capture_output=True, text=True, check=True
        )
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert trials.verdicts(done.stdout) == {
        "good": Verdict(Outcome.PASSED),
        "bad": Verdict(Outcome.FAILED, "12:00: 7: FAIL: file.c:1: no more"),
        "never": Verdict(Outcome.UNSTARTED, "12:00: 7: ERR: file.c:2: no mount"),
    }


class Container:
    """A runner without a container: some programs are refused by name, some break it, some fail beside others."""

    tried: list[list[str]]

    def __init__(self, tried: list[list[str]]) -> None:
        self.tried = tried

    def start(self, names: Sequence[str]) -> None:
        self.tried.append(list(names))

    def move(self) -> None:
        (*_, names) = self.tried
        if "static/refused-by-name" in names:
            raise Stuck("open: refused-by-name, pid 7 (a thing)")
        if "static/breaks" in names:
            raise CommandFailed("CRIU failed")

    def execute(self, argv: Sequence[str], timeout_s: float = 60) -> str:
        del timeout_s
        names = argv[4:]
        return "".join(
            f"{name}\t{'failed' if name == 'static/crowded' and len(names) > 1 else 'passed'}\t\n"
            for name in names
        )

    def remove(self) -> None:
        self.tried[-1].append("removed")


def test_each_program_gets_its_verdict_whatever_others_in_its_container_do() -> None:
    tried: list[list[str]] = []
    names = [f"static/{name}" for name in ("a", "refused-by-name", "crowded", "breaks", "b")]
    found = dict(trials.every(lambda: Container(tried), names, together=5))
    passed = Verdict(Outcome.PASSED)
    assert found == {
        "static/a": passed,
        "static/b": passed,
        "static/crowded": passed,
        "static/refused-by-name": Verdict(Outcome.REFUSED, "open: refused-by-name, pid 7 (a thing)"),
        "static/breaks": Verdict(Outcome.BROKEN, "CRIU failed"),
    }
    assert all(each[-1] == "removed" for each in tried)
    assert tried[1] == ["static/refused-by-name", "removed"]


def row(way: Way, outcome: Outcome, reason: str = "", program: str = "static/a") -> Row:
    return Row(program, "default", way, "26", outcome, reason, "abc")


def test_an_exception_is_what_plain_criu_brings_and_sealift_does_not(tmp_path: Path) -> None:
    stays, plain = row(Way.STAYS, Outcome.PASSED), row(Way.PLAIN, Outcome.PASSED)
    refused, moved = row(Way.AUTO, Outcome.REFUSED, "no | way"), row(Way.POST_COPY, Outcome.PASSED)
    (line,) = lines([stays, plain, refused, moved])
    assert line.check == "no"
    assert line.exception == "plain CRIU brings it; auto: refused: no | way"
    assert lines([stays, plain, row(Way.AUTO, Outcome.PASSED), moved])[0].exception == ""
    lost = row(Way.PLAIN, Outcome.BROKEN, "CRIU can't")
    assert lines([stays, lost, refused])[0].exception == ""
    assert "`check` said yes" in lines([stays, lost, row(Way.AUTO, Outcome.BROKEN)])[0].exception
    assert lines([row(Way.STAYS, Outcome.FAILED), plain, refused])[0].exception == ""

    text = page.markdown([stays, plain, refused, moved])
    assert "| default | 26 | 1 | 1 | 0 | 1 | 1 |" in text
    assert r"no \| way" in text
    heads, told, notes = page.table([stays, plain, refused, moved])
    assert [len(heads)] == [len(each) for each in told]
    assert "0 programs pass in every way" in notes[-1]

    path = tmp_path / "rows.json"
    from benchmarks import kept

    kept.store([stays, refused], path)
    assert matrix.stored(path) == {stays.key: stays, refused.key: refused}
    path.write_text('[{"way": "by air"}]')
    with pytest.raises(UnusableInput, match="sealift bench zdtm"):
        matrix.stored(path)
    with pytest.raises(ValueError, match="by air"):
        from_fields({"way": "by air"})
