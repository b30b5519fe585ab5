"""docs/architecture.md names the files and functions from a report's bytes to the verdict, and they are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
EVIDENCE = ROOT / "sealift" / "evidence"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
SECTION = PAGE.split("## From a report's bytes to the verdict\n", 1)[1].split("\n## ", 1)[0]
STEPS = re.findall(r"^\|[^|]*\| `([a-z_/0-9]+\.py)` \| `([A-Za-z_.]+)` \|", SECTION, re.MULTILINE)
FILES = sorted(set(re.findall(r"`([a-z_]+/[a-z_/0-9]+\.py)`", SECTION)))


def defined(file: Path) -> set[str]:
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}.{each.name}" for each in node.body if isinstance(each, ast.FunctionDef)}
    return names


@pytest.mark.parametrize(("file", "function"), STEPS)
def test_each_function_of_the_walk_is_in_the_file_that_is_named(file: str, function: str) -> None:
    assert function in defined(EVIDENCE / file)


@pytest.mark.parametrize("file", FILES)
def test_each_file_that_the_walk_names_is_there(file: str) -> None:
    assert (ROOT / file).is_file() or (EVIDENCE / file).is_file()


def test_the_walk_goes_through_three_rooms_and_ends_with_the_verdict() -> None:
    rooms = list(dict.fromkeys(file.split("/", 1)[0] for file, _ in STEPS))
    assert rooms == ["formats", "fetch", "verify"]
    assert STEPS[0] == ("formats/snp_report.py", "parse_snp_report")
    assert STEPS[-1] == ("verify/verdict.py", "Findings.verdict")


def test_each_step_of_the_third_room_is_called_by_the_one_that_gives_the_verdict() -> None:
    called = {
        getattr(node.func, "attr", getattr(node.func, "id", ""))
        for file in ("verify/snp.py", "verify/snp_appraisal.py")
        for node in ast.walk(ast.parse((EVIDENCE / file).read_text()))
        if isinstance(node, ast.Call)
    }
    third = STEPS[[file for file, _ in STEPS].index("verify/snp.py") + 1 :]
    assert {function.rsplit(".", 1)[-1] for _, function in third} <= called
