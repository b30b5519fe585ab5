"""A host or a provider that means harm costs its owner a bounded time and a bounded amount of memory."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hostile import hostile

from sealift.errors import CommandFailed, HostUnreachable, SealiftError
from sealift.host import agents, ssh
from sealift.provider.client import ProviderClient
from sealift_agent.protocol import RestartPolicy

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import paramiko

    from sealift_agent.protocol import Happened

pytestmark = pytest.mark.alone

NESTED = b"[" * 200_000
PATIENCE_S = 20
DRIBBLE_S = 0.2


def say(channel: paramiko.Channel, out: bytes, *, status: int | None = 0, err: bytes = b"") -> None:
    channel.sendall(out)
    channel.sendall_stderr(err)
    if status is not None:
        channel.send_exit_status(status)
    channel.shutdown_write()
    if status is not None:
        channel.close()


def endless(channel: paramiko.Channel, command: str) -> None:
    while True:
        channel.sendall(b"x" * (1 << 20))


def endless_complaint(channel: paramiko.Channel, command: str) -> None:
    channel.sendall_stderr(b"x" * (1 << 18))
    while True:
        channel.sendall_stderr(b"x" * (1 << 20))


def dribble(channel: paramiko.Channel, command: str) -> None:
    while True:
        channel.sendall(b"x")
        time.sleep(DRIBBLE_S)


def no_status(channel: paramiko.Channel, command: str) -> None:
    say(channel, b"done", status=None)


@pytest.mark.parametrize("answer", [endless, endless_complaint])
def test_what_a_command_prints_is_bounded(
    answer: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ssh, "OUTPUT_LIMIT", 4 << 20)
    with hostile(tmp_path, answer) as connection, pytest.raises(CommandFailed, match="printed more than"):
        connection.run(["true"], timeout_s=PATIENCE_S)


@pytest.mark.parametrize("answer", [dribble, no_status])
def test_a_command_has_a_bounded_time_whatever_comes_of_it(
    answer: Callable[..., None], tmp_path: Path
) -> None:
    began = time.monotonic()
    with hostile(tmp_path, answer) as connection, pytest.raises(HostUnreachable, match="in 2 s"):
        connection.run(["true"], timeout_s=2)
    assert time.monotonic() - began < PATIENCE_S


def test_an_answer_is_read_to_its_end_and_with_both_outputs(tmp_path: Path) -> None:
    with hostile(
        tmp_path, lambda channel, _: say(channel, b"o" * 5_000_000, err=b"e" * 70_000, status=3)
    ) as one:
        done = one.run(["true"], check=False)
    assert (done.status, len(done.stdout), len(done.stderr)) == (3, 5_000_000, 70_000)


def test_a_port_that_dribbles_is_given_up(tmp_path: Path) -> None:
    began = time.monotonic()
    with hostile(tmp_path, dribble) as connection, pytest.raises(HostUnreachable, match="port 7741"):
        ssh.ask(connection, 7741, b"{}", timeout_s=2)
    assert time.monotonic() - began < PATIENCE_S


@pytest.mark.parametrize(
    "said", [NESTED, b'{"result": ' + NESTED, b"1", b"{" * 50, b"\xff", b'{"a":"' + b"x" * (5 << 20) + b'"}']
)
def test_a_provider_that_talks_nonsense_is_an_error(said: bytes, tmp_path: Path) -> None:
    with (
        hostile(tmp_path, lambda channel, _: say(channel, said + b"\n")) as connection,
        pytest.raises(SealiftError),
    ):
        ProviderClient(connection).list()


def test_what_a_provider_says_is_no_escape_sequence(tmp_path: Path) -> None:
    words = {"error": "no\x1b]0;owned\x07", "kind": "Refused", "remedy": "\x1b[2Jgo", "step": "\x9bs"}
    with (
        hostile(tmp_path, lambda channel, _: say(channel, json.dumps(words).encode() + b"\n")) as connection,
        pytest.raises(SealiftError) as refused,
    ):
        ProviderClient(connection).list()
    assert str(refused.value) == "hostile, \\x9bs: no\\x1b]0;owned\\x07. \\x1b[2Jgo"
    with (
        hostile(tmp_path, lambda channel, _: say(channel, b"", err=b"\x1b[31mno\n", status=1)) as connection,
        pytest.raises(SealiftError) as refused,
    ):
        ProviderClient(connection).list()
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "said",
    [
        NESTED + b"\n",
        b"[]\n",
        b"1\n",
        b"\xff\n",
        b'{"number": 1}\n',
        b'{"number": []}\n',
        b'{"number": 1, "result": ' + NESTED + b"\n",
        b'{"event": {}}\n',
        b'{"event": "frozen"}\n',
        b'{"event": "frozen", "at_ns": 1.5}\n',
        b'{"event": "thawed", "at_ns": 1, "frozen_ns": "long"}\n',
        b'{"event": "frozen", "at_ns": 1, "more": 1}\n',
        b'{"event": "molten", "at_ns": 1}\n',
        b"x" * (3 << 20),
    ],
)
def test_an_agent_that_talks_nonsense_is_an_error_at_once(
    said: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(agents, "LINE_LIMIT", 2 << 20)

    def answer(channel: paramiko.Channel, command: str) -> None:
        if not command.startswith("python3"):
            say(channel, b"")
            return
        channel.makefile("rb").readline()
        channel.sendall(said)
        with suppress(OSError):
            time.sleep(PATIENCE_S)

    heard: list[Happened] = []
    began = time.monotonic()
    with hostile(tmp_path, answer) as connection:
        agent = agents.Agent(connection, "source", heard.append)
        with pytest.raises(HostUnreachable, match="agent"):
            agent.call(RestartPolicy("c"), timeout_s=60)
        assert agent.lost
        assert heard == []
    assert time.monotonic() - began < PATIENCE_S


def test_an_agents_words_are_no_escape_sequences(tmp_path: Path) -> None:
    def answer(channel: paramiko.Channel, command: str) -> None:
        if not command.startswith("python3"):
            say(channel, b"")
            return
        lines = channel.makefile("rb")
        lines.readline()
        channel.sendall(json.dumps({"number": 1, "error": "\x1b[2J", "step": "\x07"}).encode() + b"\n")
        lines.readline()
        say(channel, b"", err=b"\x1b]0;dead\x07\n" * 1000, status=1)

    with hostile(tmp_path, answer) as connection:
        agent = agents.Agent(connection, "source")
        for kind in (CommandFailed, HostUnreachable):
            with pytest.raises(kind) as said:
                agent.call(RestartPolicy("c"), timeout_s=30)
            assert str(said.value).isprintable()
