"""A lab's life: up within ten seconds, and down without a trace, whatever happened to it."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.lab import namespaced
from sealift.lab.layout import INTERFACE
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import build_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.netns]

UP_S = 10


class OwnLab:
    """A lab beside the session's: in a network namespace and a run directory of its own, by the real command line."""

    def __init__(self, run: Path, neighbour: OwnLab | None = None) -> None:
        self.run = run
        self.mark = str(run / "lab")
        self.holder = neighbour.holder if neighbour else _network_namespace()

    def command(self, *words: str) -> list[str]:
        """The command line of `sealift lab …` in there."""
        enter = ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "env", f"SEALIFT_RUN={self.run}"]
        return [*enter, sys.executable, "-m", "cli", "lab", *words]

    def sealift(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `sealift lab …` to its end."""
        return subprocess.run(self.command(*words), capture_output=True, text=True, timeout=60, check=False)

    def traces(self) -> dict[str, list[str]]:
        """What is left of it, by kind."""
        shown = subprocess.run(
            ["nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "ip", "-brief", "link"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        interfaces = [line.split()[0].partition("@")[0] for line in shown.splitlines()]
        found = {
            "processes": [
                str(pid) for pid, mark in namespaced.marked_processes().items() if mark == self.mark
            ],
            "control groups": [str(group) for group in namespaced.cgroups(self.mark)],
            "mounts": [
                line for line in Path("/proc/self/mountinfo").read_text().splitlines() if self.mark in line
            ],
            "files": [str(path) for path in self.run.rglob("*")],
            "interfaces": [name for name in interfaces if name == INTERFACE],
        }
        return {kind: left for kind, left in found.items() if left}


def _network_namespace() -> subprocess.Popen[bytes]:
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL)
    mine = Path("/proc/self/ns/net").readlink()
    while Path(f"/proc/{holder.pid}/ns/net").readlink() == mine:
        time.sleep(0.01)
    return holder


@pytest.fixture
def own_lab(tmp_path: Path) -> Iterator[OwnLab]:
    if os.geteuid() != 0:
        pytest.skip("a lab needs root")
    build_tree(RECIPE, say=print)
    lab = OwnLab(tmp_path / "run")
    try:
        yield lab
    finally:
        lab.sealift("down")
        lab.holder.kill()
        lab.holder.wait()


def test_up_takes_at_most_ten_seconds_and_down_leaves_nothing(own_lab: OwnLab) -> None:
    started = time.monotonic()
    up = own_lab.sealift("up", "--kind", "netns")
    took_s = time.monotonic() - started
    assert up.returncode == 0, up.stderr
    print(f"up after {took_s:.1f} s")
    assert took_s <= UP_S
    status = own_lab.sealift("status", "--json")
    assert status.returncode == 0, status.stderr
    hosts = json.loads(status.stdout)
    assert {host["name"] for host in hosts} == {"source", "destination", "gateway", "client", "provider"}
    assert all(host["up"] for host in hosts)
    inside = own_lab.sealift("exec", "source", "--", "sh", "-c", "echo $((6*7)); exit 3")
    assert (inside.stdout, inside.returncode) == ("42\n", 3)
    check_that_exec_carries_input_and_output(own_lab)
    again = own_lab.sealift("up", "--kind", "netns")
    assert again.returncode == 1
    assert "a lab is up already" in again.stderr
    assert set(own_lab.traces()) >= {"processes", "control groups", "files", "interfaces"}
    down = own_lab.sealift("down")
    assert down.returncode == 0, down.stderr
    assert own_lab.traces() == {}
    assert "there was no lab" in own_lab.sealift("down").stderr


def check_that_exec_carries_input_and_output(own_lab: OwnLab) -> None:
    """Standard input goes to the command, and what it says comes while it runs. With -t it has a terminal."""
    counted = subprocess.run(
        own_lab.command("exec", "source", "--", "wc", "-c"),
        input=b"x" * 300_000,
        capture_output=True,
        check=True,
    )
    assert int(counted.stdout) == 300_000
    command = own_lab.command("exec", "source", "--", "sh", "-c", "echo at once; read word; echo $word")
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        assert running.stdin is not None
        assert running.stdout.readline() == "at once\n"
        running.stdin.write("then\n")
        running.stdin.close()
        assert running.stdout.read() == "then\n"
    on_terminal = own_lab.command("exec", "-t", "source", "--", "tty")
    shown = subprocess.run(
        ["script", "-qec", shlex.join(on_terminal), "/dev/null"], capture_output=True, check=True
    )
    assert b"/dev/pts/" in shown.stdout


@pytest.mark.parametrize("after_s", [0.4, 0.8, 1.2, 2.0, 3.0])
def test_down_leaves_nothing_of_a_lab_that_was_killed_while_it_came_up(
    own_lab: OwnLab, after_s: float
) -> None:
    process = subprocess.Popen(own_lab.command("up", "--kind", "netns"), stderr=subprocess.DEVNULL)
    time.sleep(after_s)
    process.kill()
    process.wait()
    down = own_lab.sealift("down")
    assert down.returncode == 0, down.stderr
    assert own_lab.traces() == {}


@pytest.mark.parametrize(
    ("word", "after_s"), [(signal.SIGINT, 0.6), (signal.SIGINT, 1.5), (signal.SIGTERM, 1.0)]
)
def test_an_interrupted_lab_leaves_nothing(own_lab: OwnLab, word: signal.Signals, after_s: float) -> None:
    process = subprocess.Popen(
        own_lab.command("up", "--kind", "netns"), stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    time.sleep(after_s)
    if word == signal.SIGINT:
        os.killpg(process.pid, word)  # as a terminal does; whoever says `kill` means the one process
    else:
        process.send_signal(word)
    _, said = process.communicate(timeout=30)
    if process.returncode != 0:  # else it was up before
        assert process.returncode in {130, -word, -signal.SIGINT}, (
            said
        )  # the last: Python had not begun, or was done
        assert "Traceback" not in said
        assert own_lab.traces() == {}


def test_a_frozen_container_does_not_keep_a_lab_from_going_down(own_lab: OwnLab) -> None:
    assert own_lab.sealift("up", "--kind", "netns").returncode == 0
    group = next(group for group in namespaced.cgroups(own_lab.mark) if re.search(r"-source$", str(group)))
    for name, word in (("freezer.state", "FROZEN"), ("cgroup.freeze", "1")):
        for candidate in namespaced.cgroups(own_lab.mark):
            if str(candidate).endswith("-source") and (candidate / name).exists():
                (candidate / name).write_text(word)
    assert group.exists()
    assert own_lab.sealift("down").returncode == 0
    assert own_lab.traces() == {}


def test_a_second_lab_is_refused_and_leaves_the_first_alone(own_lab: OwnLab, tmp_path: Path) -> None:
    assert own_lab.sealift("up", "--kind", "netns").returncode == 0
    other = OwnLab(tmp_path / "other", own_lab)
    refused = other.sealift("up", "--kind", "netns")
    assert refused.returncode == 1
    assert f"another lab is up in this network namespace: {own_lab.mark}" in refused.stderr
    assert "there was no lab" in other.sealift("down").stderr
    assert own_lab.sealift("status").returncode == 0
