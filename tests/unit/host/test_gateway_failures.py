"""Every system call and every program of the gateway's agent fails once in a switch, or is the last thing that it does.

Whatever is answered is what the record says, and everybody is told the same ever after. The agent's own code runs in a
process of its own, on a real disk; strace(1) makes its kernel fail, or kills it there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import codec
from sealift_agent.gateway import decider, keeper
from sealift_agent.network import allowed
from sealift_agent.protocol import Move
from sealift_agent.routes import Routes
from sealift_agent.wire import Controller

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

WG = """#!/bin/sh
# One line for each peer, with its allowed IPs. FAILS names the number of the call that fails.
echo x >>"$FAKE_WG.calls"
[ "$(wc -l <"$FAKE_WG.calls")" = "${FAKE_WG_FAILS:-0}" ] && echo 'out of order' >&2 && exit 1
[ "$1" = show ] && exec cat "$FAKE_WG"
shift 2
while [ $# -gt 0 ]; do
	awk -v peer="$2" -v ips="$4" 'BEGIN { n = split(ips, mine, ","); for (i = 1; i <= n; i++) gone[mine[i]] = 1 }
		$1 == peer { gsub(",", " ", ips); print peer, ips; next }
		{ line = $1; for (i = 2; i <= NF; i++) if (!($i in gone)) line = line " " $i; print line }
	' "$FAKE_WG" >"$FAKE_WG.new"
	mv "$FAKE_WG.new" "$FAKE_WG"
	shift 4
done
"""
TUNNELS = "a= 10.78.0.10/32 10.77.0.8/32 10.77.0.9/32\nb= 10.78.0.20/32\n"
MOVED = {"a=": {"10.78.0.10/32", "10.77.0.8/32"}, "b=": {"10.78.0.20/32", "10.77.0.9/32"}}
BOTH_MOVED = {"a=": {"10.78.0.10/32"}, "b=": {"10.78.0.20/32", "10.77.0.8/32", "10.77.0.9/32"}}
MOVES = {"m": "10.77.0.9", "n": "10.77.0.8"}
OUTCOMES = {"committed", "rolled back"}
ATTACHED_S, ENDED_S = 10, 10


class GatewaySetup:
    """A gateway's state and its fake WireGuard, as they are before each trial."""

    def __init__(self, place: Path) -> None:
        self.state, self.table = place / "state", place / "table"
        self.calls = place / "table.calls"
        self.log = place / "strace"

    def lay(self, group: bool) -> None:
        shutil.rmtree(self.state, ignore_errors=True)
        self.state.mkdir()
        self.table.write_text(TUNNELS)
        record: dict[str, Any] = {"decisions": {}}
        record["routes"] = {address: {"peer": "a=", "host": "here"} for address in MOVES.values()}
        record["groups"] = {key: list(MOVES) for key in MOVES} if group else {}
        (self.state / "routes.json").write_text(json.dumps(record))
        self.calls.unlink(missing_ok=True)

    def wait_for_wg(self) -> None:
        """One that an agent which was killed had started comes to its end."""
        mark = os.fsencode(self.table.parent / "bin" / "wg")
        while any(mark in running(path) for path in Path("/proc").glob("[0-9]*/cmdline")):
            time.sleep(0.005)

    def peers(self) -> dict[str, set[str]]:
        return {line.split()[0]: set(line.split()[1:]) for line in self.table.read_text().splitlines()}


def running(cmdline: Path) -> bytes:
    try:
        return cmdline.read_bytes()
    except OSError:
        return b""


@pytest.fixture
def gateway_setup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GatewaySetup:
    program = tmp_path / "bin" / "wg"
    program.parent.mkdir()
    program.write_text(WG)
    program.chmod(0o755)
    made = GatewaySetup(tmp_path)
    network = tmp_path / "network.env"
    network.write_text("ROLE=gateway\nWORKLOADS=10.77.0.0/16\n")
    monkeypatch.setattr(allowed, "NETWORK", network)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAKE_WG", str(made.table))
    return made


Answers = list[tuple[str, dict[str, Any]]]
SWITCH = {False: [("m", "switch")], True: [("m", "switch"), ("n", "switch")]}
AFTERWARDS = [("m", "call_off"), ("m", "switch")]


def ask(gateway_setup: GatewaySetup, questions: list[tuple[str, str]], tell: Callable[[str], object]) -> None:
    """What the hosts ask, in the agent's process; each answer as it is given."""
    routes = Routes(gateway_setup.state)
    decider.WAIT_FOR_OTHERS_S = 0
    for migration, question in questions:
        move = Move(migration, MOVES[migration], "a=", "b=", "there")
        one = decider.Decider.__new__(decider.Decider)  # it listens nowhere
        one.routes, one.move, one.hold = routes, move, None
        one.questions = {"switch": one._switch, "call_off": one._call_off}
        tell(json.dumps([migration, one.say(question)]) + "\n")


def trial(gateway_setup: GatewaySetup, questions: list[tuple[str, str]], inject: str | None) -> Answers:
    """The answers of an agent to which that happens. What it called is in the log."""
    gateway_setup.lay(len({migration for migration, _ in questions}) > 1)
    gateway_setup.log.unlink(missing_ok=True)
    go_read, go_write = os.pipe()
    told_read, told_write = os.pipe()
    ready_read, ready_write = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.close(told_read)
            os.write(ready_write, b"x")
            os.read(go_read, 1)

            def tell(line: str) -> None:
                with suppress(OSError):  # an answer that gets lost
                    os.write(told_write, line.encode())

            ask(gateway_setup, questions, tell)
        os._exit(0)
    for mine in (told_write, go_read, ready_write):
        os.close(mine)
    os.read(ready_read, 1)  # attached any earlier, the fault would hit what it does before the switch
    os.close(ready_read)
    fault = ["-e", f"inject={inject}"] if inject else []
    command = ["strace", "-q", "-o", str(gateway_setup.log), *fault, "-p", str(child)]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    late = threading.Timer(ENDED_S, os.kill, (child, signal.SIGKILL))
    late.start()
    try:
        wait_until_traced(child, tracer)
        os.write(go_write, b"x")
        with os.fdopen(told_read, "rb") as said:
            lines = said.read().splitlines()
    finally:
        late.cancel()
        os.close(go_write)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        tracer.wait()
    gateway_setup.wait_for_wg()
    return [(migration, answer) for migration, answer in map(json.loads, lines)]


def calls(gateway_setup: GatewaySetup, questions: list[tuple[str, str]]) -> Iterator[tuple[str, int]]:
    """Every system call between the first and the last of these, by its name and its number among those."""
    trial(gateway_setup, questions, None)
    names = re.findall(r"^(\w+)\(", gateway_setup.log.read_text(), re.MULTILINE)
    counted = Counter(names[names.index("read") + 1 :]) - Counter(["exit_group"])
    skipped = Counter(names[: names.index("read") + 1])
    for name, count in counted.items():
        yield from ((name, skipped[name] + number) for number in range(1, count + 1))


def wait_until_traced(child: int, tracer: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + ATTACHED_S
    while "TracerPid:\t0" in Path(f"/proc/{child}/status").read_text():
        if tracer.poll() is not None or time.monotonic() > deadline:
            pytest.skip(f"strace can't attach here: {tracer.communicate()[1].strip()}")
        time.sleep(0.002)


def judge(gateway_setup: GatewaySetup, group: bool, answers: Answers) -> str | None:
    """The outcome, by the record and by all who were told or ask now, once it is sure that they agree."""
    members = list(MOVES) if group else ["m"]
    decisions = codec.encode(Routes(gateway_setup.state).show())["decisions"]
    recorded = {decisions.get(member) for member in members}
    assert len(recorded) == 1, f"one decision for all: {recorded}"
    (outcome,) = recorded
    told = {answer.get("outcome") for _, answer in answers} & OUTCOMES
    assert told <= {outcome}, f"on record is {outcome}, and the hosts were told {answers}"
    later = {Routes(gateway_setup.state).call_off(member) for member in members}
    later |= {Routes(gateway_setup.state).switch(Move(m, MOVES[m], "a=", "b=", "there")) for m in members}
    assert len(later) == 1, later
    assert outcome in {*later, None}, f"on record was {outcome}, and now it is {later}"
    assert Routes(gateway_setup.state).restore() == {}
    committed = later == {"committed"}
    before = {line.split()[0]: set(line.split()[1:]) for line in TUNNELS.splitlines()}
    assert gateway_setup.peers() == ((BOTH_MOVED if group else MOVED) if committed else before)
    return outcome


@pytest.fixture(scope="session")
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not here (`make judges` installs it)")


DISK = {"openat", "write", "rename", "fsync", "flock"}
"""For what a disk has no room for; and what a group's switch does otherwise than one's alone."""


@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
@pytest.mark.parametrize("fault", ["error=EIO", "error=ENOSPC", "signal=KILL"])
def test_whatever_system_call_of_a_switch_fails_the_record_is_the_only_answer(
    gateway_setup: GatewaySetup, strace: None, fault: str, group: bool
) -> None:
    outcomes: Counter[str | None] = Counter()
    tried: Counter[str] = Counter()
    for name, number in calls(gateway_setup, SWITCH[group]):
        if (group or fault == "error=ENOSPC") and name not in DISK:
            continue
        answers = trial(gateway_setup, [*SWITCH[group], *AFTERWARDS], f"{name}:{fault}:when={number}")
        log = gateway_setup.log.read_text()
        if "(INJECTED)" not in log and "killed by SIGKILL" not in log:
            continue  # of these there are not always as many: how often it waits for `wg`, for one
        tried[name] += 1
        try:
            outcomes[judge(gateway_setup, group, answers)] += 1
            assert "KILL" in fault or len(answers) > len(SWITCH[group]), "it hung"
        except AssertionError as wrong:
            raise AssertionError(f"{name} {number}: {wrong}; {answers}\n{log[-3000:]}") from wrong
    print(f"{tried.total()} calls: {outcomes}")
    assert set(tried) >= DISK - {"flock"}, "all that writes the record was failed"
    # Of one switch alone ten calls go to the disk, and ENOSPC is for those only.
    assert tried.total() > (9 if fault == "error=ENOSPC" and not group else 10), "what fails is in the switch"
    assert set(outcomes) == {"committed", None if "KILL" in fault else "rolled back"}


@pytest.mark.parametrize("group", [False, True], ids=["alone", "group"])
def test_whatever_program_of_a_switch_fails_the_record_is_the_only_answer(
    gateway_setup: GatewaySetup, monkeypatch: pytest.MonkeyPatch, group: bool
) -> None:
    for number in range(1, 5):
        gateway_setup.lay(group)
        monkeypatch.setenv("FAKE_WG_FAILS", str(number))
        told: list[str] = []
        ask(gateway_setup, [*SWITCH[group], *AFTERWARDS], told.append)
        monkeypatch.delenv("FAKE_WG_FAILS")
        answers: Answers = [(migration, answer) for migration, answer in map(json.loads, told)]
        assert judge(gateway_setup, group, answers) == "committed"
        failed = any("routes" in answer for _, answer in answers)
        assert failed == (number <= 2), "a switch calls `wg` twice"


def test_without_any_wireguard_the_outcome_is_the_record_s(
    gateway_setup: GatewaySetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_setup.lay(group=False)
    told: list[str] = []
    with monkeypatch.context() as patch:
        patch.setenv("PATH", "/nowhere")
        ask(gateway_setup, [("m", "switch"), ("m", "call_off")], told.append)
    answers = [answer for _, answer in map(json.loads, told)]
    assert [answer["outcome"] for answer in answers] == ["committed", "committed"]
    assert "could not be started" in answers[0]["routes"]
    assert judge(gateway_setup, False, []) == "committed"


def test_what_wireguard_did_not_do_is_done_as_soon_as_it_can(
    gateway_setup: GatewaySetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_setup.lay(group=False)
    monkeypatch.setattr(keeper, "APPLY_AGAIN_S", 0.05)
    monkeypatch.setenv("FAKE_WG_FAILS", "2")
    routes = Routes(gateway_setup.state)
    assert routes.switch(Move("m", "10.77.0.9", "a=", "b=", "there")) == "committed"
    assert "10.77.0.9/32" in gateway_setup.peers()["a="]
    keeper.Keeper(routes).start()
    deadline = time.monotonic() + 5
    while gateway_setup.peers() != MOVED:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_what_wireguard_did_not_do_is_done_though_the_controller_has_gone(
    gateway_setup: GatewaySetup, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway_setup.lay(group=False)
    monkeypatch.setattr(keeper, "STATE", gateway_setup.state)
    monkeypatch.setattr(keeper, "KEEP_ON_PAUSE_S", 0.01)
    monkeypatch.setattr(keeper, "Routes", lambda: Routes(gateway_setup.state))
    keeper.Routes().switch(Move("m", "10.77.0.9", "a=", "b=", "there"))
    gateway_setup.table.write_text(TUNNELS)
    monkeypatch.setenv("FAKE_WG_FAILS", "4")
    keeper.keep_on(Controller())
    assert gateway_setup.peers() == MOVED
