"""Whatever reads from a network: what agents hear from each other, the gateway, the provider's gate, and the guest.

Each target takes the bytes that a peer has sent, and gives a value or raises AgentError. For hypothesis in CI
(`test_wire_fuzz.py`) and atheris outside it (`tests/fuzz/wire_readers.py`).
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, cast

from sealift.machine.qemu import Accelerator
from sealift.processor.interface import Backend
from sealift.provider import gate
from sealift.provider.orders import VmList
from sealift.provider.service import Provider
from sealift.provider.settings import Settings
from sealift_agent import carried, messages
from sealift_agent.memory import supply, zstd
from sealift_agent.memory.relay import Pace, joined, unpacked
from sealift_agent.wire import AgentError, Link
from sealift_guest import guest

Target = Callable[[bytes], object]

BUFFER_BYTES = 1 << 20
TREES = frozenset({"layer", "data"})


class Idle(Provider):
    """Reads its orders as the real one does, and carries out none."""

    def start(self, _: Any) -> Any:
        return VmList(())

    evidence = inject = resume = stop = start

    def list_vms(self) -> VmList:
        return VmList(())


@cache
def _provider() -> Provider:
    folder = Path(tempfile.gettempdir())
    return Idle(Settings(processor=Backend.EMULATED, accelerator=Accelerator.TCG, state=folder))


def _gate(data: bytes) -> list[Any]:
    """As one order, and as a line of several: of a thousand empty ones each has its answer."""
    heard = io.BytesIO()
    gate.answer(_provider(), "start", io.BytesIO(data), heard)
    gate.serve(_provider(), io.BytesIO(b"\n".join(data.split(b"\n")[:20])), heard)
    return [json.loads(line) for line in heard.getvalue().splitlines()]


def _guest(data: bytes) -> dict[str, Any]:
    """A stranger on the machine, who has no token."""
    with tempfile.TemporaryDirectory() as root:
        places = guest.Places(Path(root))
        places.token.parent.mkdir(parents=True)
        places.token.write_text("f" * 64)
        answer = guest.answer(guest.Guest(places), data)
        json.dumps(answer)
        assert "error" in answer
        return answer


def _connected(data: bytes, read: Callable[[socket.socket], Any]) -> object:
    """What `read` makes of bytes that a peer has sent, who has then left."""
    here, there = socket.socketpair()
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    with here, there:
        there.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            there.send(data)
        there.shutdown(socket.SHUT_WR)
        return read(here)


def _lines(here: socket.socket) -> list[dict[str, Any]]:
    link = object.__new__(Link)  # one that sets no options of TCP
    link.socket, link.reader = here, cast("io.BufferedReader", here.makefile("rb"))
    found = []
    with link.reader, contextlib.suppress(AgentError):
        while True:
            found.append(link.receive(1))
    return found


def _frames(carry: Any) -> Target:
    def read(here: socket.socket) -> bytes:
        near, far = socket.socketpair()
        with near, far:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
            near.settimeout(1)
            carry([here], [near], Pace(None))
            near.shutdown(socket.SHUT_WR)
            return far.recv(100)

    return lambda data: _connected(data, read)


def _pages(here: socket.socket) -> supply.Pages:
    remote = supply.Remote(here)
    remote._asked.append((7, 0x5000_0000_0000, 32))
    return remote.take()


def _message(read: Callable[[dict[str, Any]], object]) -> Target:
    return lambda data: read(messages.parse(data))


TARGETS: dict[str, Target] = {
    "lines": lambda data: _connected(data, _lines),
    "printed": _message(messages.printed),
    "taken": _message(messages.taken),
    "outcome": _message(lambda said: messages.outcome(said, may_wait=True)),
    "held": _message(messages.held),
    "refusal": _message(messages.refusal),
    "progress": _message(messages.progress),
    "sent": _message(lambda said: messages.sent(said, TREES)),
    "loaded": _message(messages.loaded),
    "carried": carried.read,
    "rate": _message(messages.rate),
    "order": _message(messages.order),
    "joined": _frames(joined),
    "unpacked": _frames(unpacked),
    "pages": lambda data: _connected(data, _pages),
    "gate": _gate,
    "guest": _guest,
}


def seeds() -> dict[str, bytes]:
    """A good input for each target."""
    said: dict[str, dict[str, Any]] = {
        "lines": {"ask": "prepare"},
        "printed": {"printed": 4096},
        "taken": {"printed": True},
        "outcome": {"outcome": "waiting"},
        "held": {"held": 12},
        "refusal": {"error": "it does not belong to the source any more"},
        "progress": {"phase": "received", "facts": {"page_bytes": 4096}},
        "sent": {
            "images": [{"name": "core-1.img", "size": 5000}, {"name": "log-tail", "size": 0}],
            "links": [["data", "below/link_remap.8", "second"]],
            "files": True,
        },
        "loaded": {"loaded": True},
        "carried": {
            "options": [[1, 3, {"TCP_SYNCNT": 3, "TCP_CONGESTION": "72656e6f"}]],
            "datagrams": [[1, 4, [["10.0.0.1", 9, "10.0.0.2", 7, 64, 0, "6869"]]]],
            "names": [[1, 5, "/run/s.sock"]],
        },
        "rate": {"bytes_s": 1e9},
        "order": {"order": "open", "number": 1, "migration": "one"},
        "gate": {"order": "list"},
        "guest": {"order": "provision", "token": "0" * 64, "disk_key": "1" * 64},
    }
    good = {name: json.dumps(message).encode() + b"\n" for name, message in said.items()}
    frame = zstd.compress(bytes(1000))
    return good | {
        "joined": b"\0\0\0\5hello" * 3,
        "unpacked": len(frame).to_bytes(4, "big") + frame,
        "pages": supply.MESSAGE.pack(supply.ADD | 1 << supply.COMMAND_BITS, 2, 0x5000_0000_0000, 7)
        + bytes(8192),
    }


HOSTILE = (
    b"",
    b"[]",
    b"null",
    b"\xff\xfe",
    b'"\\ud800"',
    b"[" * 200_000,
    b'{"a":' * 200_000,
    b"-" + b"9" * 100_000,
    b'{"a": 1e999, "bytes_s": 1e999, "held": 1e999}',
    b'{"bytes_s": NaN, "held": NaN}',
    b'{"outcome": ["committed"], "ask": {}, "phase": [], "error": [], "order": [], "number": true}',
    b'{"images": [{"name": "../../etc/passwd", "size": 1}], "links": [], "files": false}',
    b'{"images": [{"name": ".", "size": 1}], "links": [], "files": false}',
    b'{"images": [], "links": [["layer", "../x", "y"]], "files": false}',
    b'{"images": [], "links": [["layer", "/etc/x", "y"]], "files": false}',
    b'{"images": [], "links": [["other", "x", "y"]], "files": false}',
    b'{"images": [{"name": "a", "size": -1}], "links": [], "files": false}',
    b'{"images": [{"name": "a", "size": true}], "links": [], "files": false}',
    b'{"phase": "received", "facts": {"event": 1}}',
    b'{"phase": "received", "facts": {"a": "b"}}',
    b"\xff\xff\xff\xff" * 1000,
    bytes(100_000),
)
"""What a hostile peer would begin with."""
