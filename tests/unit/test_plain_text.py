"""No text of others moves a cursor, sets a title, turns the writing round or marks a page up."""

from __future__ import annotations

import json
import pickle
import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift import errors
from sealift.migration.checks.finding import Answer, Finding, Resource
from sealift.migration.checks.verdict import verdict_lines
from sealift.model import Step, StepRecord
from sealift.plain_text import in_markdown, json_text, one_line, printable

HOSTILE = "\x1b]0;owned\x07\x9b31m\x08\x7f\r\u202eevil\u2066\ud800\U000e0041"
HARMLESS = {"\n", "\t"}


def is_harmless(text: str) -> bool:
    return all(each in HARMLESS or unicodedata.category(each) not in {"Cc", "Cf", "Cs"} for each in text)


@given(st.text(st.characters(codec=None)))
def test_whatever_comes_in_only_text_comes_out(text: str) -> None:
    shown = printable(text)
    assert is_harmless(shown)
    assert printable(shown) == shown
    shown.encode()
    assert "\n" not in one_line(text)
    assert json.loads(json_text({"a": text})) == {"a": text}
    assert json_text(text).isprintable()


def test_text_stays_as_it_is() -> None:
    for text in ("a b\n\tc", "größer → 10 µs", "名前\u3000東京", "\u00a0"):
        assert printable(text) == text
    assert printable("\x1b[2J\x7f") == "\\x1b[2J\\x7f"
    assert one_line("a\nsealift: accepted") == "a\\x0asealift: accepted"


def test_a_page_shows_markup_instead_of_obeying_it() -> None:
    shown = in_markdown("a|b ![x](http://h/p.png) <img src=x> `c`\n# d")
    assert shown == r"a\|b !\[x\](http://h/p.png) \<img src=x\> \`c\`\\x0a# d"


@pytest.mark.parametrize("kind", [errors.HostUnreachable, errors.CommandFailed, errors.Refused])
def test_no_error_carries_it(kind: type[errors.SealiftError]) -> None:
    error = kind(f"a{HOSTILE}", remedy=f"b{HOSTILE}", host=f"c{HOSTILE}", step=f"d{HOSTILE}")
    assert is_harmless(str(error))
    assert "\n" not in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert is_harmless("".join(errors.Refused("x", reasons=(HOSTILE,)).reasons))
    assert is_harmless(errors.CommandFailed("x", output=HOSTILE + "\n").output)


def test_no_finding_and_no_report_carries_it() -> None:
    found = Finding(Resource.FILES, Answer.NO, "source", f"open: /{HOSTILE}\n", f"close {HOSTILE}")
    assert is_harmless("".join(verdict_lines("box", "source", "destination", [found])))
    record = StepRecord(step=Step.SYNC, started="2026-01-01T00:00:00Z", duration_ms=1, note=HOSTILE)
    assert is_harmless(record.note)
    assert StepRecord.model_validate_json(record.model_dump_json()) == record


def test_a_traceback_does_not_either(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.main import say_unexpected

    try:
        raise ValueError(HOSTILE)
    except ValueError as error:
        say_unexpected(type(error), error, sys.exc_info()[2])
    said = capsys.readouterr().err
    assert "ValueError: \\x1b]0;owned" in said
    assert is_harmless(said)


def test_a_table_interprets_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    from cli.output import print_table

    print_table(
        ("name", "host"), [("[red]r[/red]", f"h{HOSTILE}"), ("[/nonsense]", "[link=http://h]l[/link]")]
    )
    said = capsys.readouterr().out
    assert "[red]r[/red]" in said
    assert "[/nonsense]" in said
    assert is_harmless(said)


def test_a_verdict_and_a_table_of_evidence_do_not_carry_it(capsys: pytest.CaptureFixture[str]) -> None:
    from sealift.evidence.cli.output import print_object, print_rows, print_verdict
    from sealift.evidence.verify.verdict import Reason, Verdict

    reason = Reason("chain", f"issued by [red]{HOSTILE}")
    verdict = Verdict("report", genuine=False, accepted=False, reasons=(reason,), checked=(), unchecked=())
    for as_json in (False, True):
        print_verdict(verdict, as_json=as_json)
        print_rows([(f"a[/x]{HOSTILE}", [("name", f"[b]{HOSTILE}")])], as_json=as_json)
        print_object({"name": HOSTILE}, plain=HOSTILE, as_json=as_json)
    said = capsys.readouterr().out
    assert is_harmless(said)
    assert "[red]" in said
