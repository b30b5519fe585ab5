"""Every error that Sealift raises on purpose.

::

    SealiftError                 one clear sentence, and the remedy
    ├── UnusableInput            what was given cannot be read or names nothing; nothing was touched
    ├── PrerequisiteMissing      this machine lacks something that Sealift needs
    ├── HostUnreachable          no answer, or not the pinned host; worth another try later
    ├── CommandFailed            a command on a host ended badly
    ├── Refused                  preflight or policy says no; the source was not touched
    │   └── EvidenceRejected     the destination did not prove what it is; never retried
    ├── MigrationFailed          it was rolled back: the source goes on
    └── OutcomeUnknown           nobody who can decide could be asked; `sealift recover` goes on

Subclasses differ by what the caller can do about them, not by where they come from.
"""

from __future__ import annotations

import re
from typing import Any

from sealift.plain_text import one_line, printable

NUMBER = re.compile(r"\[Errno (?:\d+|None)\] ")
"""Python puts it before what the kernel says, which says the same."""


class SealiftError(Exception):
    """Base of all. `exit_status` is what the command line ends with.

    Most sentences quote a host, a container or a daemon: whatever these say, an error is one line that can be printed.
    """

    exit_status = 1

    def __init__(
        self, message: str, *, remedy: str | None = None, host: str | None = None, step: str | None = None
    ) -> None:
        self.message = NUMBER.sub("", one_line(message))
        self.remedy = one_line(remedy) if remedy else None
        self.host = one_line(host) if host else None
        self.step = one_line(step) if step else None
        super().__init__(self.message, self.remedy, self.host, self.step)

    def __str__(self) -> str:
        where = ", ".join(part for part in (self.host, self.step) if part)
        text = f"{where}: {self.message}" if where else self.message
        return f"{text}. {self.remedy}" if self.remedy else text

    def __reduce__(self) -> tuple[object, ...]:
        # Prefect carries exceptions between threads and processes by pickling them.
        return (_rebuild, (type(self), self.message, self.remedy, self.host, self.step, self.__dict__))


def _rebuild(
    cls: type[SealiftError],
    message: str,
    remedy: str | None,
    host: str | None,
    step: str | None,
    state: dict[str, object],
) -> SealiftError:
    error = cls.__new__(cls)
    SealiftError.__init__(error, message, remedy=remedy, host=host, step=step)
    error.__dict__.update(state)
    return error


class UnusableInput(SealiftError):
    """What was given cannot be read, or names nothing that exists."""


class PrerequisiteMissing(SealiftError):
    """Something that Sealift needs is missing on this machine."""

    exit_status = 2


class HostUnreachable(SealiftError):
    """No answer from a host, or an answer from one that is not the pinned host."""


class CommandFailed(SealiftError):
    """A command ended badly. Carries its exit status and the end of what it printed."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        output: str = "",
        remedy: str | None = None,
        host: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, host=host, step=step)
        self.status = status
        self.output = printable(output)


class Refused(SealiftError):
    """Preflight or policy says no. `reasons` holds all of them; the source was not touched."""

    def __init__(
        self,
        message: str,
        *,
        reasons: tuple[str, ...] = (),
        remedy: str | None = None,
        host: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy, host=host, step=step)
        self.reasons = tuple(map(one_line, reasons))


class EvidenceRejected(Refused):
    """The destination did not prove what it is. Final: trying again proves nothing.

    `verdict` is what the verifier found, as JSON has it; None where there was nothing to verify.
    """

    def __init__(
        self,
        message: str,
        *,
        reasons: tuple[str, ...] = (),
        verdict: dict[str, Any] | None = None,
        remedy: str | None = None,
        host: str | None = None,
        step: str | None = None,
    ) -> None:
        super().__init__(message, reasons=reasons, remedy=remedy, host=host, step=step)
        self.verdict = verdict


class MigrationFailed(SealiftError):
    """The migration was rolled back before its commit; the source goes on."""


class OutcomeUnknown(SealiftError):
    """Whether the migration committed could not be asked of the gateway. Both sides stay as they are."""
