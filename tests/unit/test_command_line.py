"""The command line answers at once, and an error is one sentence and an exit status."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.alone

HELP_S = 0.5
ROOT = Path(__file__).parents[2]


def cli(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli", *words]
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=60, check=False)


def test_help_comes_within_half_a_second() -> None:
    cli("--help")  # the first one compiles

    def took_s() -> float:
        started = time.monotonic()
        assert cli("--help").returncode == 0
        return time.monotonic() - started

    assert min(took_s() for _ in range(5)) <= HELP_S


def test_help_imports_neither_prefect_nor_docker_nor_paramiko() -> None:
    script = "import sys\nfrom cli import main\ntry:\n main.app(['--help'])\nexcept SystemExit: pass\n"
    script += "sys.stderr.write(' '.join({name.partition('.')[0] for name in sys.modules}))"
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=True)
    assert not {"prefect", "docker", "paramiko", "matplotlib", "pydantic"} & set(done.stderr.split())


def test_no_commands_summary_is_cut() -> None:
    # Each cut line ends in three dots; only what the usage line repeats does, too.
    for group in ("", "lab", "network", "host", "keys", "evidence", "image", "provider", "bench"):
        shown = cli(*group.split(), "--help").stdout.splitlines()
        assert len(shown) > 5
        assert not [line for line in shown if line.endswith("...") and not line.startswith("Usage:")]


def test_help_names_every_command() -> None:
    shown = cli("--help").stdout
    for command in ("migrate", "check", "demo", "lab", "network", "host"):
        assert command in shown


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ("migrate", "box", "--from", "a", "--to", "b", "--inventory", "/nowhere"),
            "there is no inventory /nowhere",
        ),
        (("network", "show", "--inventory", "/nowhere"), "there is no inventory /nowhere"),
        (("lab", "up", "--kind", "cloud"), "there is no lab of the kind 'cloud'. Take vm or netns"),
        (("lab", "status"), "no lab is up. `sealift lab up` brings one up"),
    ],
)
def test_unusable_input_is_one_sentence_and_exit_status_1(
    words: tuple[str, ...], sentence: str, tmp_path: Path
) -> None:
    done = cli(*words, SEALIFT_RUN=str(tmp_path / "run"))
    assert done.returncode == 1
    assert done.stdout == ""
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give it up")
def test_a_lab_without_root_is_one_sentence_and_exit_status_2(tmp_path: Path) -> None:
    script = "import os,sys; os.setuid(65534); sys.argv=['sealift','lab','up','--kind','netns']\n"
    script += "from cli.main import main; main()"
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SEALIFT_RUN": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    load = f"import cli.main, sealift.lab.lab\n{script}"
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip() == (
        "sealift: a lab needs root, for namespaces and mounts. Run this as root, for example with sudo"
    )


@pytest.mark.parametrize("set_up", ["pass", "logging.basicConfig()"])
def test_paramiko_says_nothing_in_between(set_up: str) -> None:
    """Its errors are raised as ours. A program that wants its log sets the logger's level."""
    program = f"import logging; {set_up}; from sealift.host import ssh; "
    program += "logging.getLogger('paramiko.transport').error('no')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")
    wanted = "import logging; logging.basicConfig(); logging.getLogger('paramiko').setLevel(10); "
    done = subprocess.run(
        [sys.executable, "-c", wanted + program], capture_output=True, text=True, check=True
    )
    assert "no" in done.stderr
