"""A start that Docker has forgotten is ended by the shim: its protocol, with a stand-in at the other end."""

from __future__ import annotations

import json
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest
from protobuf import field

from sealift_agent import docker_api
from sealift_agent.protobuf import fields
from sealift_agent.shim import CREATED, RUNNING, Shim

if TYPE_CHECKING:
    from pathlib import Path

NOT_FOUND = field(1, field(1, 5) + field(2, b"container not created: not found"))


class StandIn:
    """Answers as a shim that has the container in that state; None: it has not."""

    def __init__(self, bundle: Path, state: int | None, version: int = 2) -> None:
        self.state = state
        self.asked: list[tuple[bytes, bytes, bytes]] = []
        self._door = socket.socket(socket.AF_UNIX)
        self._door.bind(str(bundle / "shim"))
        self._door.listen()
        address = f"unix://{bundle / 'shim'}"
        if version == 2:
            (bundle / "address").write_text(address)
        else:
            found = {"version": version, "address": address, "protocol": "ttrpc"}
            (bundle / "bootstrap.json").write_text(json.dumps(found))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            there, _ = self._door.accept()
            with there, there.makefile("rwb") as wire:
                length, stream, kind, flags = struct.unpack(">IIBB", wire.read(10))
                assert (kind, flags) == (1, 0)
                request: dict[int, Any] = dict(fields(wire.read(length)))
                method = request[2]
                self.asked.append((request[1], method, dict(fields(request[3]))[1]))  # type: ignore[arg-type]
                answer = self._answer(method)
                wire.write(struct.pack(">IIBB", len(answer), stream, 2, 0) + answer)

    def _answer(self, method: bytes) -> bytes:
        if self.state is None:
            return NOT_FOUND
        if method == b"Start":
            self.state = RUNNING
            return field(2, field(1, 77))
        return field(2, field(1, b"box") + field(3, 77) + field(4, self.state))


@pytest.fixture
def docker(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    says = {"Running": True}
    monkeypatch.setattr(docker_api, "call", lambda *_, **__: {"State": dict(says)})
    return says


@pytest.mark.parametrize("version", [2, 3])
def test_a_container_that_the_shim_has_not_created_is_waited_for(tmp_path: Path, version: int) -> None:
    there = StandIn(tmp_path, None, version)
    shim = Shim("box", tmp_path)
    assert shim.is_busy(CREATED)
    there.state = CREATED
    assert not shim.is_busy(CREATED)
    assert there.asked == [(b"containerd.task.v%d.Task" % version, b"State", b"box")] * 2


def test_a_start_that_the_restore_is_part_of_is_waited_for(tmp_path: Path) -> None:
    there = StandIn(tmp_path, CREATED, 3)
    shim = Shim("box", tmp_path)
    assert shim.is_busy(RUNNING)
    there.state = RUNNING
    assert not shim.is_busy(RUNNING)


def test_a_shim_that_is_somewhere_else_is_not_waited_for(tmp_path: Path) -> None:
    shim = Shim("box", tmp_path)
    assert not shim.is_busy(CREATED)
    assert not shim.end_start()


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": "x", "address": "unix:///s"}', '{"version": 3}']
)
def test_parameters_that_cannot_be_read_are_an_unknown_address(tmp_path: Path, content: str) -> None:
    (tmp_path / "bootstrap.json").write_text(content)
    assert not Shim("box", tmp_path).is_busy(CREATED)


def test_a_start_that_was_not_over_is_ended_by_the_shim(tmp_path: Path, docker: dict[str, bool]) -> None:
    there = StandIn(tmp_path, CREATED)
    assert Shim("box", tmp_path).end_start()
    assert [method for _, method, _ in there.asked] == [b"State", b"Start"]


def test_a_container_that_is_gone_is_left_to_docker(tmp_path: Path, docker: dict[str, bool]) -> None:
    there = StandIn(tmp_path, None)
    assert not Shim("box", tmp_path).end_start()
    assert [method for _, method, _ in there.asked] == [b"State"]
