"""A client at work: a script of `clients/` on the lab's client host, from its start to its findings."""

from __future__ import annotations

import base64
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.script import END_TIMEOUT_S, Script
from sealift.errors import CommandFailed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from sealift.host.ssh import Connection


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
        kept = {name: value for name, value in self.raw.items() if name != "responses"}
        return {**kept, "intact": self.intact}

    @property
    def responses(self) -> Responses:
        """Every response time."""
        packed = zlib.decompress(base64.b64decode(self.raw["responses"]))
        both = np.frombuffer(packed, dtype="<f4")
        half = len(both) // 2
        return Responses(self.raw["began_unix"], both[:half], both[half:])


@dataclass(frozen=True)
class Responses:
    """When each question was sent, in seconds since `began_unix` (UTC), and how long its answer took."""

    began_unix: float
    at_s: NDArray[np.float32]
    took_ms: NDArray[np.float32]

    def between(self, first_unix: float, last_unix: float) -> Responses:
        """Those of the questions that were answered after the first moment and sent before the last."""
        answered = self.at_s + self.took_ms / 1000
        chosen = (answered >= first_unix - self.began_unix) & (self.at_s < last_unix - self.began_unix)
        return Responses(self.began_unix, self.at_s[chosen], self.took_ms[chosen])

    @property
    def longest_ms(self) -> float | None:
        """The longest of them; None where there are none."""
        return float(self.took_ms.max()) if len(self.took_ms) else None


class Client(Script):
    """Use as a context manager; `findings` ends the client and returns what it saw."""

    def __init__(self, connection: Connection, script: str, *arguments: str) -> None:
        super().__init__(
            connection,
            "benchmarks.workloads",
            f"clients/{script}",
            *arguments,
            beside=["clients/responses.py"],
        )

    def findings(self) -> Findings:
        """Tell the client to end, and take what it saw. Of one that still waits for an answer: how it stands."""
        try:
            raw = self.end()
        except TimeoutError as silent:
            stands = self._connection.run(["ss", "-tinoH"], check=False).stdout
            raise CommandFailed(
                f"the client still waits for an answer after {END_TIMEOUT_S} s; its host's connections: {stands}",
                host=self._connection.name,
            ) from silent
        return Findings(
            raw["operations"],
            raw["seconds"],
            raw["longest_gap_ms"] or 0.0,
            raw["median_ms"] or 0.0,
            raw["faults"],
            raw["error"],
            raw,
        )
