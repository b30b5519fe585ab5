"""A client at work: a script of `clients/` on the lab's client host, from its start to its findings."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

from sealift.errors import CommandFailed

if TYPE_CHECKING:
    from types import TracebackType

    from sealift.host.ssh import Connection

START_TIMEOUT_S = 60
END_TIMEOUT_S = 150


@dataclass(frozen=True)
class Findings:
    """What a client saw. `faults` are answers that were not the expected ones, `error` what ended its connection."""

    operations: int
    seconds: float
    longest_gap_ms: float
    median_ms: float
    faults: list[Any]
    error: str | None
    raw: dict[str, Any]

    @property
    def intact(self) -> bool:
        """Nothing lost, repeated, reordered; no connection reset."""
        return not self.faults and self.error is None and self.operations > 0

    def summary(self) -> str:
        """One line for a person."""
        verdict = "none lost, repeated or reordered, connection intact" if self.intact else "NOT INTACT"
        if self.error:
            verdict += f": {self.error}"
        if self.faults:
            verdict += f": expected and got {self.faults[0]}"
        return (
            f"{self.operations} operations over one connection in {self.seconds:.1f} s, {verdict}; "
            f"longest gap {self.longest_gap_ms:.0f} ms, median {self.median_ms:.2f} ms"
        )

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**self.raw, "intact": self.intact}


class Client:
    """Use as a context manager; `findings` ends the client and returns what it saw."""

    def __init__(self, connection: Connection, script: str, *arguments: str) -> None:
        self._connection = connection
        self._script = script
        self._arguments = arguments

    def __enter__(self) -> Self:
        path = f"/run/sealift/clients/{self._script}"
        self._connection.put(path, (files("benchmarks.workloads") / "clients" / self._script).read_bytes())
        self._channel = self._connection.open(["python3", path, *self._arguments])
        self._channel.settimeout(START_TIMEOUT_S)
        self._output = self._channel.makefile("rb")
        line = self._output.readline().strip()
        if line != b"ready":
            complaint = self._channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise CommandFailed(
                f"the client {self._script} did not start: {complaint[-300:] or line!r}",
                host=self._connection.name,
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    def findings(self) -> Findings:
        """Tell the client to end, and take what it saw."""
        self._channel.settimeout(END_TIMEOUT_S)
        self._channel.shutdown_write()
        line = self._output.readline()
        if not line:
            complaint = self._channel.makefile_stderr("rb").read().decode(errors="replace").strip()
            raise CommandFailed(
                f"the client {self._script} broke: {complaint[-300:]}", host=self._connection.name
            )
        raw = json.loads(line)
        return Findings(
            raw["operations"],
            raw["seconds"],
            raw["longest_gap_ms"] or 0.0,
            raw["median_ms"] or 0.0,
            raw["faults"],
            raw["error"],
            raw,
        )
