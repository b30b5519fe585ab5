"""The agents travel as one archive: the same bytes every time, runnable, and in a Python that old hosts have."""

from __future__ import annotations

import ast
import importlib
import os
import shutil
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import pytest

import sealift_agent
from sealift.host import agents
from sealift_agent.protocol import VERSION

AGENT = Path(sealift_agent.__file__).parent
FLOOR = "3.9"
"""What RHEL 9 has. Ubuntu 22.04 has 3.10, Debian 12 has 3.11."""

ORDER = b'{"number": 1, "order": "paths", "paths": ["/", "/nowhere"]}\n'
FOUND = (b'{"kind": "%s", "empty": false, "digest": null}' % kind for kind in (b"directory", b"missing"))
ANSWER = b'{"hello": %d}\n{"number": 1, "result": [%s]}\n' % (VERSION, b", ".join(FOUND))
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
        "sealift_agent/interposed.c",
        *(f"sealift_agent/{name}" for name in SOURCES if name != "__main__.py"),
    } == set(names)
    path = tmp_path / "agent.pyz"
    path.write_bytes(content)
    done = subprocess.run([sys.executable, path, "facts"], input=ORDER, capture_output=True, check=True)
    assert done.stdout == ANSWER


def test_every_role_is_a_function_that_is_there() -> None:
    """`__main__` imports a role's module when it is asked for, so a wrong name would be found on a host only."""
    tree = ast.parse((AGENT / "__main__.py").read_text())
    roles = ast.literal_eval(next(node.value for node in tree.body if isinstance(node, ast.Assign)))
    for module, function in roles.values():
        assert callable(getattr(importlib.import_module(f"sealift_agent.{module}"), function))
    assert {"source", "destination", "gateway", "facts", "pager"} <= roles.keys()


def installed(path: Path, content: bytes) -> dict[str, bytes]:
    """The archive as a host has it: what is in it, by names."""
    subprocess.run([sys.executable, AGENT / "compiling.py", path], input=content, check=True)
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def test_on_a_host_the_modules_are_compiled_once(tmp_path: Path) -> None:
    """Were the sources read, none of them would be found."""
    entries = installed(tmp_path / "new" / "agent.pyz", agents.archive()[0])
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["agent.pyz"]
    without_sources = {
        name: b"this is no Python" if name.endswith(".py") else content for name, content in entries.items()
    }
    path = packed(tmp_path / "compiled.pyz", without_sources)
    done = subprocess.run([sys.executable, path, "facts"], input=ORDER, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (ANSWER, b"")


def test_another_python_takes_the_sources(tmp_path: Path) -> None:
    entries = installed(tmp_path / "agent.pyz", agents.archive()[0])
    of_another = {
        name: b"????" + content[4:] if name.endswith(".pyc") else content for name, content in entries.items()
    }
    path = packed(tmp_path / "another.pyz", of_another)
    done = subprocess.run([sys.executable, path, "facts"], input=ORDER, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (ANSWER, b"")


@pytest.mark.parametrize("path", SOURCES.values(), ids=list(SOURCES))
def test_agents_are_written_in_python_3_9(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text, feature_version=(3, 9))
    if any(isinstance(node, ast.FunctionDef) for node in tree.body):
        assert "from __future__ import annotations" in text


def test_agents_use_nothing_of_the_standard_library_that_python_3_9_lacks() -> None:
    vermin = [sys.executable, "-c", "import vermin; vermin.main()", "--no-tips", "--violations"]
    command = [*vermin, f"--target={FLOOR}-", str(AGENT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def oldest_python() -> str:
    """A Python of the floor's version on this machine."""
    places = [shutil.which(f"python{FLOOR}"), f"/usr/bin/python{FLOOR}", f"/usr/local/bin/python{FLOOR}"]
    places += sorted(map(str, Path.home().glob(f".pyenv/versions/{FLOOR}.*/bin/python{FLOOR}")))
    for place in filter(None, places):
        # What stands in PATH may be a stand-in for a Python that is not installed.
        if os.access(place, os.X_OK) and subprocess.run([place, "-c", ""], check=False).returncode == 0:
            return place
    pytest.skip(f"this machine has no Python {FLOOR}")


def test_python_3_9_imports_every_module(oldest_python: str) -> None:
    modules = [f"sealift_agent/{name}".removesuffix(".py").replace("/", ".") for name in SOURCES]
    wanted = [name for name in modules if not name.endswith("__main__")]
    program = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]"
    command = [oldest_python, "-W", "error", "-c", program, *wanted]
    done = subprocess.run(command, cwd=AGENT.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_python_3_9_carries_out_an_order(oldest_python: str, tmp_path: Path) -> None:
    path = tmp_path / "agent.pyz"
    path.write_bytes(agents.archive()[0])
    done = subprocess.run([oldest_python, path, "facts"], input=ORDER, capture_output=True, check=False)
    assert (done.stdout, done.stderr) == (ANSWER, b"")


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
