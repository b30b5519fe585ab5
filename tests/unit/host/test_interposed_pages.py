"""The library that is loaded into CRIU: questions to the page server, and how much is logged."""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING

import pytest
from test_interposed import library as library  # noqa: PLC0414 - a fixture
from test_interposed import said

from sealift_agent.criu import ASKED, _asked
from sealift_agent.trigger import MANY, Trigger

if TYPE_CHECKING:
    from pathlib import Path

OPEN, PARENT = 4, 5
PLACE = 257
CLIENT = """
import json, socket, struct
ours, server = socket.socketpair()
server.settimeout(5)

def ask(order, place, size):
    ours.send(struct.pack("<IIQQQ", order, 0, 0, 0, place))
    return list(ours.recv(size))

def told():
    return [struct.unpack("<IIQQQ", server.recv(32))[::4] for _ in range(2)]
"""


def places(path: Path) -> list[int]:
    return [place for (place,) in struct.iter_unpack("<Q", path.read_bytes())]


def test_a_first_dump_waits_for_no_answer_of_the_page_server(library: Path, tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    talk = """
answers = [ask(4, 257, 1), ask(4, 258, 1)]  # the server has said nothing so far
server.sendall(bytes(2) + struct.pack("<i", 0))
print(json.dumps([answers, told(), list(ours.recv(4))]))
"""
    found = json.loads(said(library, CLIENT + talk, SEALIFT_ASKED=str(asked), SEALIFT_ASKED_BEFORE=""))
    assert found == [[[0], [0]], [[4, 257], [4, 258]], [0, 0, 0, 0]]
    assert places(asked) == [257, 258]


def test_a_later_dump_knows_of_what_the_round_before_has_pages(library: Path, tmp_path: Path) -> None:
    before = tmp_path / "before"
    before.write_bytes(struct.pack("<QQ", 257, 300))
    talk = """
answers = [ask(5, 257, 4), ask(4, 257, 1), ask(4, 258, 1)]
server.sendall(bytes([1, 0, 0, 0, 1, 0]) + struct.pack("<i", 0))
print(json.dumps([answers, list(ours.recv(4))]))
"""
    asked = tmp_path / "asked"
    found = json.loads(
        said(library, CLIENT + talk, SEALIFT_ASKED=str(asked), SEALIFT_ASKED_BEFORE=str(before))
    )
    assert found == [[[1, 0, 0, 0], [1], [0]], [0, 0, 0, 0]]
    assert places(asked) == [257, 258], "what is only asked for has no pages"


def test_what_a_process_of_criu_s_own_asks_is_answered_and_noted_too(library: Path, tmp_path: Path) -> None:
    """Of System V's shared memory a child of CRIU asks, over the same connection."""
    asked = tmp_path / "asked"
    talk = """
import os
apart, runc = socket.socketpair()
runc.send(b"request")
apart.recv(7)  # before anything is asked
first = ask(4, 257, 1)
child = os.fork()
if not child:
    ask(4, 2, 1)
    os._exit(0)
os.waitpid(child, 0)
server.sendall(bytes(2) + struct.pack("<i", 7))
print(json.dumps([first, list(ours.recv(4))]))
"""
    found = json.loads(said(library, CLIENT + talk, SEALIFT_ASKED=str(asked), SEALIFT_ASKED_BEFORE=""))
    assert found == [[0], [7, 0, 0, 0]]
    assert places(asked) == [257, 2]


def test_a_page_server_that_answers_otherwise_fails_the_dump(library: Path, tmp_path: Path) -> None:
    talk = """
ask(4, 257, 1)
server.sendall(bytes([1]) + struct.pack("<i", 0))
try:
    print(list(ours.recv(4)))
except OSError as failed:
    print(failed.errno)
"""
    assert (
        said(library, CLIENT + talk, SEALIFT_ASKED=str(tmp_path / "asked"), SEALIFT_ASKED_BEFORE="") == "71"
    )


@pytest.mark.parametrize("before", [None, "missing"])
def test_without_a_list_of_the_round_before_the_server_is_waited_for(
    library: Path, tmp_path: Path, before: str | None
) -> None:
    more = {"SEALIFT_ASKED": str(tmp_path / "asked")}
    if before is not None:
        more["SEALIFT_ASKED_BEFORE"] = str(tmp_path / before)
    talk = "server.sendall(bytes([1]))\nprint(ask(4, 257, 1))"
    assert said(library, CLIENT + talk, **more) == "[1]"


def test_the_agent_names_the_list_of_the_round_before(tmp_path: Path) -> None:
    first = _asked(tmp_path / "1", ["--pre-dump"])
    second = _asked(tmp_path / "final", ["--leave-running", "--parent-path", "../1"])
    assert first == {"SEALIFT_ASKED": str(tmp_path / "1" / ASKED), "SEALIFT_ASKED_BEFORE": ""}
    assert second["SEALIFT_ASKED_BEFORE"] == str(tmp_path / "final/../1" / ASKED)


def request(level: int) -> bytes:
    """A request of runc's (CRIU's images/rpc.proto): a dump, with a pid, a level and a file for the log."""
    options = (
        bytes([8, 5, 16, 0x90, 3, 9 << 3, level]) + b"\x52\x08dump.log" + bytes([9 << 3 | 5, 4, 4, 4, 4])
    )
    return bytes([8, 1, 2 << 3 | 2, len(options)]) + options + bytes([9 << 3, 4])


@pytest.mark.parametrize(("processes", "level"), [(MANY - 1, 4), (MANY, 2)])
def test_with_many_processes_criu_is_asked_for_warnings_and_errors_only(
    library: Path, tmp_path: Path, processes: int, level: int
) -> None:
    trigger = Trigger(tmp_path / "armed", "final dump")
    trigger.spare_log(processes)
    trigger.close()
    talk = f"""
ours, runc = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
runc.send(bytes.fromhex("{request(4).hex()}"))
size = len(ours.recv(999, socket.MSG_TRUNC | socket.MSG_PEEK))
print(ours.recv(size, socket.MSG_TRUNC).hex())
"""
    asked = said(library, CLIENT + talk, SEALIFT_ARMED=str(tmp_path / "armed"))
    assert asked == request(level).hex()
