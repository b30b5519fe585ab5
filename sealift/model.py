"""What the steps of a migration give each other, and the report that is left of it."""

from __future__ import annotations

from datetime import datetime  # noqa: TC003 - pydantic reads the annotation
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sealift.plain_text import printable


class Step(StrEnum):
    """The steps, in the order of the protocol, by the names that errors and reports use."""

    ATTEST = "attest"
    PROVISION_KEYS = "provision keys"
    PREFLIGHT = "preflight"
    SYNC = "sync"
    PRE_DUMP = "pre-dump"
    FINAL_DUMP = "final dump"
    TRANSFER = "transfer"
    RESTORE = "restore"
    NETWORK_SWITCH = "network switch"
    FINISH = "finish"


CUTOVER = (Step.FINAL_DUMP, Step.TRANSFER, Step.RESTORE, Step.NETWORK_SWITCH)
"""The steps from the freeze to the commit."""


class Strategy(StrEnum):
    """How memory gets across. `auto` lets Sealift choose by what the hosts can do."""

    AUTO = "auto"
    PRE_COPY = "pre-copy"
    POST_COPY = "post-copy"
    STOP_AND_COPY = "stop-and-copy"


class Evidence(StrEnum):
    """The destination's evidence: of a real secure processor, of an emulated one, or none."""

    REAL = "real"
    EMULATED = "emulated"
    ABSENT = "absent"


class _Record(BaseModel):
    """Goes to terminals, pages and files: what hosts and containers have put into its text is only text there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @field_validator("*")
    @classmethod
    def _printable(cls, value: Any) -> Any:
        if type(value) is str:
            return printable(value)
        if type(value) is list:
            return [printable(each) if type(each) is str else each for each in value]
        return value


class StepRecord(_Record):
    """One step as it happened. Times of the cutover's steps come from the source's clock."""

    step: Step
    started: datetime = Field(description="UTC.")
    duration_ms: float
    sent_bytes: int = Field(default=0, description="What the step sent from the source to the destination.")
    note: str = ""


class Round(_Record):
    """One pre-dump round."""

    number: int
    duration_ms: float
    sent_bytes: int = Field(description="Pages written in this round, in bytes.")
    skipped_bytes: int = Field(description="Pages unchanged since the round before, in bytes.")


class Choice(_Record):
    """A strategy and the reason for it."""

    strategy: Strategy
    why: str


class Prediction(_Record):
    """What one strategy would take, in milliseconds."""

    strategy: Strategy
    freeze_ms: float = Field(description="No process of the container runs.")
    total_ms: float = Field(description="From the end of the preflight to the end of all.")


class Estimate(_Record):
    """What was sampled before anything was touched, and what follows from it. Null where it could not be sampled."""

    memory_bytes: int = Field(description="What a dump takes.")
    dirty_bytes_s: float | None = Field(description="Distinct bytes that get dirty in the first second.")
    dirty_how: str = Field(
        description="soft-dirty: counted; referenced: an upper bound; or why it is unknown."
    )
    link_bytes_s: float | None = Field(description="What the tunnel carries.")
    sampled_bytes: int = Field(default=0, description="What was sent to measure the link.")
    streams: int = Field(
        default=1,
        description="Over how many connections pages go: several where one was measured to carry less.",
    )
    link_how: str = Field(description="measured, asked for (--bandwidth), or why it is unknown.")
    floor_ms: float = Field(description="A freeze that sends no pages.")
    fixed_ms: float = Field(description="What the rest takes besides moving bytes.")
    learned: bool = Field(
        description="Whether an earlier migration between the two hosts told the constants."
    )
    predictions: list[Prediction] = Field(description="Of the strategies that can be had.")

    def of(self, strategy: Strategy) -> Prediction | None:
        """The prediction for one strategy."""
        return next((one for one in self.predictions if one.strategy is strategy), None)


class Report(_Record):
    """What is left of a migration. Every duration in milliseconds, every amount in bytes."""

    migration: str
    container: str
    group: list[str] = Field(
        default_factory=list,
        description="All that had one decision with it, itself included; empty if alone.",
    )
    address: str
    source: str
    destination: str
    outcome: str
    strategy: Strategy
    why: str
    steps: list[StepRecord]
    rounds: list[Round]
    packed_bytes: int | None = Field(
        default=None,
        description="What these pages came to on the link, compressed; null where they were not.",
    )
    throttled_cpus: float | None = Field(
        default=None,
        description="To how many CPUs a writer that never converged was slowed down, before the freeze.",
    )
    frozen_ms: float = Field(description="No process of the container ran: by the source's clock.")
    cut_ms: float = Field(description="No packet of the container passed: by the source's clock.")
    restore_ms: float = Field(description="runc and CRIU at the destination, by its own clock.")
    criu_dump_ms: float = Field(default=0.0, description="CRIU's own count: frozen for the final dump.")
    criu_restore_ms: float = Field(default=0.0, description="CRIU's own count: forking and restoring.")
    stall_ms: float | None = Field(
        default=None,
        description="How long the process that waited most for its memory after the freeze waited, in all; null "
        "where memory was complete before it ran.",
    )
    longest_wait_ms: float | None = Field(
        default=None, description="The longest wait of a process for one page after the freeze."
    )
    complete_ms: float | None = Field(
        default=None, description="From the end of the restore until the last page was there."
    )
    total_ms: float
    estimate: Estimate | None = Field(
        default=None, description="What the preflight sampled, and what it predicted of each strategy."
    )
    since_estimate_ms: float = Field(
        default=0.0,
        description="From the estimate to the end of all: what `total_ms` of a prediction predicts.",
    )
    memory_bytes: int = Field(description="Pages sent in all rounds and the final dump.")
    last_bytes: int = Field(default=0, description="Those of them that were sent in the freeze.")
    file_bytes: int = Field(description="Writable layer, volumes, log.")
    image_bytes: int = Field(description="Image layers; 0 when the destination had them.")
    metadata_bytes: int = Field(description="CRIU's images other than pages.")
    lab: str | None = Field(description="Kind of lab, or null on real machines.")
    accelerator: str | None = Field(description="What ran the lab's VMs: kvm, tcg, none.")
    evidence: Evidence
    verified: list[str] = Field(
        default_factory=list, description="What was verified, of whom and when: a sentence each."
    )
    warnings: list[str] = Field(default_factory=list)

    def step(self, step: Step) -> StepRecord:
        """The record of one step."""
        return next(record for record in self.steps if record.step == step)
