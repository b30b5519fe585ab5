"""The controller's side of the agents (`sealift_agent`): send them as one archive, start them, give them orders.

`sealift_agent.protocol` has the orders and their answers.
"""

from __future__ import annotations

import hashlib
import io
import json
import queue
import threading
import time
import zipfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Protocol, Self

import paramiko

from sealift.errors import CommandFailed, HostUnreachable
from sealift.host.ssh import end_input
from sealift_agent import codec
from sealift_agent.codec import Misunderstood
from sealift_agent.protocol import VERSION, Answer, Order

if TYPE_CHECKING:
    from collections.abc import Iterator
    from importlib.resources.abc import Traversable
    from types import TracebackType

    from sealift.host.ssh import Connection
    from sealift_agent.protocol import Happened

    Message = dict[str, Any]

ORDER_TIMEOUT_S = 600
BEAT_S = 5
"""An agent that receives nothing for `wire.SILENCE_S` acts as if the connection had ended."""

END_TIMEOUT_S = 30
LINE_LIMIT = 64 << 20
"""Bytes of one message at most. What a host reports on thousands of processes needs some of them."""

COMPLAINT_BYTES = 4096

Observer = Callable[[str, Order[Any]], None]
observers: list[Observer] = []
"""Each is called before an order is given, with the role of the agent that gets it. It may block: faults are injected
here."""

NONSENSE = (ValueError, RecursionError, TypeError, LookupError, AttributeError, AssertionError)
"""The errors that an invalid message causes."""


@cache
def archive() -> tuple[bytes, str]:
    """The agents as a zip archive that Python runs, and its path on a host. The bytes are the same every time."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as packed:
        for name, source in sorted(_modules(files("sealift_agent"))):
            target = name if name == "__main__.py" else f"sealift_agent/{name}"
            packed.writestr(zipfile.ZipInfo(target), source.read_bytes())
    content = buffer.getvalue()
    return content, f"/run/sealift/agent-{hashlib.sha256(content).hexdigest()[:16]}.pyz"


def _modules(package: Traversable, prefix: str = "") -> Iterator[tuple[str, Traversable]]:
    for entry in package.iterdir():
        if entry.is_dir():
            yield from _modules(entry, f"{prefix}{entry.name}/")
        elif entry.name.endswith((".py", ".c")):
            yield prefix + entry.name, entry


def install(connection: Connection) -> str:
    """Copy the agents to a host, unless it has them. Returns the path of their archive there."""
    content, path = archive()
    if connection.run(["test", "-e", path], check=False).status != 0:
        program = files("sealift_agent").joinpath("compiling.py").read_text()
        connection.run(["python3", "-c", program, path], stdin=content)
    return path


class Caller(Protocol):
    """Takes orders: an agent, or an object that passes them to one."""

    def call(self, order: Order[Answer], *, timeout_s: float = ORDER_TIMEOUT_S) -> Answer:
        """See `Agent.call`."""
        ...


class HostAgent(Caller, Protocol):
    """An agent of a Docker host, as the migration uses it."""

    def give_up(self) -> None:
        """See `Agent.give_up`."""


class Agent:
    """One running agent. It answers orders one after the other, and may send events at any time."""

    def __init__(
        self, connection: Connection, role: str, on_event: Callable[[Happened], None] | None = None
    ) -> None:
        path = install(connection)
        self.host = connection.name
        self.role = role
        self._on_event = on_event
        self._channel = connection.open(["python3", path, role])
        self._answers: dict[int, queue.Queue[Message]] = {}
        self._number = 0
        self._refused = ""
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._lost = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True, name=f"agent {role}")
        self._reader.start()
        threading.Thread(target=self._beat, daemon=True, name=f"beat {role}").start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def lost(self) -> bool:
        """Whether the agent has ended without an order to end."""
        return self._lost.is_set()

    def call(self, order: Order[Answer], *, timeout_s: float = ORDER_TIMEOUT_S) -> Answer:
        """Give an order and wait for its result.

        Raises CommandFailed with the agent's message and step, and HostUnreachable if the agent has ended or does not
        answer.
        """
        for observer in observers:
            observer(self.role, order)
        answers: queue.Queue[Message] = queue.Queue(1)
        with self._lock:
            self._number += 1
            number = self._number
            self._answers[number] = answers
        name = order.NAME
        line = json.dumps({"number": number, "order": name, **codec.encode(order)}).encode() + b"\n"
        try:
            if self._lost.is_set():
                raise EOFError
            with self._sending:
                self._channel.sendall(line)
            answer = answers.get(timeout=timeout_s)
        except (OSError, EOFError, queue.Empty, paramiko.SSHException) as silent:
            why = f": {self._refused}" if self._refused else ""
            raise HostUnreachable(
                f"its {self.role} agent does not answer {name!r}{why}", host=self.host
            ) from silent
        finally:
            self._answers.pop(number, None)
        if "lost" in answer:
            raise HostUnreachable(
                f"its {self.role} agent ended during {name!r}: {answer['lost']}", host=self.host
            )
        if "error" in answer:
            step = answer.get("step")
            raise CommandFailed(
                str(answer["error"]), host=self.host, step=None if step is None else str(step)
            )
        try:
            result: Answer = codec.decode(order.ANSWER, answer["result"], f"the answer to {name!r}")
        except Misunderstood as nonsense:
            self.give_up()
            raise HostUnreachable(
                f"its {self.role} agent sent an invalid answer: {nonsense}", host=self.host
            ) from nonsense
        return result

    def give_up(self) -> None:
        """Treat the agent as ended although its connection is there, since it hangs. All waits for answers end."""
        self._lost.set()
        for waiting in list(self._answers.values()):
            with suppress(queue.Full):
                waiting.put_nowait({"lost": "it has sent nothing for too long"})

    def close(self) -> None:
        """End the agent: it reads the end of its input, cleans up, and exits."""
        with suppress(OSError, EOFError, paramiko.SSHException), self._sending:
            end_input(self._channel)
        if not self._lost.is_set():
            self._reader.join(END_TIMEOUT_S)
        self._channel.close()

    def _beat(self) -> None:
        with suppress(OSError, EOFError, paramiko.SSHException):
            while not self._lost.wait(BEAT_S):
                with self._sending:
                    self._channel.sendall(b"\n")

    def _read(self) -> None:
        complaint = ""
        try:
            self._take_messages()
        except Misunderstood as other:
            self._refused = complaint = str(other)
        except NONSENSE as nonsense:
            complaint = f"it sent an invalid message ({type(nonsense).__name__})"
        except (OSError, paramiko.SSHException):
            pass
        self._lost.set()
        complaint = complaint or self._last_words()
        for waiting in list(self._answers.values()):
            with suppress(queue.Full):
                waiting.put_nowait({"lost": complaint or "without a message"})

    def _take_messages(self) -> None:
        """Read messages up to the end. The host is not trusted, so an invalid one raises one of NONSENSE."""
        lines = self._channel.makefile("rb")
        while line := lines.readline(LINE_LIMIT):
            if not line.endswith(b"\n"):
                if len(line) == LINE_LIMIT:
                    raise ValueError("it is too long")
                return
            self._take(json.loads(line))

    def _take(self, message: dict[str, Any]) -> None:
        if "hello" in message:
            if message["hello"] != VERSION:
                raise Misunderstood(
                    f"it speaks version {message['hello']!r} of the protocol, and this Sealift speaks {VERSION}"
                )
        elif "event" in message:
            happened = codec.decode_event(message)
            if self._on_event is not None:
                self._on_event(happened)
        elif "result" not in message and "error" not in message:
            raise ValueError("neither an event nor an answer")
        elif waiting := self._answers.get(message.get("number", 0)):
            with suppress(queue.Full):  # there is an answer already
                waiting.put_nowait(message)

    def _last_words(self) -> str:
        """The end of what it wrote to standard error. When that has been read, the process has ended."""
        words = bytearray()
        deadline = time.monotonic() + END_TIMEOUT_S
        with suppress(OSError, paramiko.SSHException):
            while (left := deadline - time.monotonic()) > 0:
                self._channel.settimeout(left)
                piece = self._channel.recv_stderr(1 << 16)
                if not piece:
                    break
                words = (words + piece)[-COMPLAINT_BYTES:]
        return words.decode(errors="replace").strip()[-500:]
