"""The agents travel as one archive: the same bytes every time, runnable, and in a Python that old hosts have."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import sealift_agent
from sealift.host import agents

AGENT = Path(sealift_agent.__file__).parent
SOURCES = {str(path.relative_to(AGENT)): path for path in sorted(AGENT.rglob("*.py"))}


def test_the_archive_is_the_same_every_time_and_named_by_its_content() -> None:
    first = agents.archive()
    agents.archive.cache_clear()
    assert agents.archive() == first
    assert first[1].startswith("/run/sealift/agent-")


def test_the_archive_holds_every_module_and_runs(tmp_path: Path) -> None:
    content, _ = agents.archive()
    names = zipfile.ZipFile(BytesIO(content)).namelist()
    assert {
        "__main__.py",
        *(f"sealift_agent/{name}" for name in SOURCES if name != "__main__.py"),
    } == set(names)
    path = tmp_path / "agent.pyz"
    path.write_bytes(content)
    order = b'{"number": 1, "order": "exists", "paths": ["/", "/nowhere"]}\n'
    done = subprocess.run([sys.executable, path, "facts"], input=order, capture_output=True, check=True)
    assert done.stdout == b'{"hello": 1}\n{"number": 1, "result": [true, false]}\n'


@pytest.mark.parametrize("path", SOURCES.values(), ids=list(SOURCES))
def test_agents_are_written_in_python_3_9(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text, feature_version=(3, 9))
    if any(isinstance(node, ast.FunctionDef) for node in tree.body):
        assert "from __future__ import annotations" in text


@pytest.mark.parametrize("path", SOURCES.values(), ids=list(SOURCES))
def test_agents_import_nothing_but_the_standard_library(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module or ""]
        else:
            continue
        for name in names:
            assert name.partition(".")[0] in {*sys.stdlib_module_names, "sealift_agent"}, name
