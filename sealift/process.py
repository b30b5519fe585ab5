"""The one way to run a command on this machine: an argument list, a timeout, output kept for the error."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, PrerequisiteMissing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

OUTPUT_KEPT_CHARS = 2000
"""How much of a failed command's output its error carries: the end, where the reason usually stands."""

HINT = re.compile(r"(See|Run|Try) '[^']*(--help|-h)'.*")
"""What many programs say last: where to read on, not why they ended."""


@dataclass(frozen=True)
class Completed:
    """What a command left behind: exit status, standard output, standard error."""

    status: int
    stdout: str
    stderr: str


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float = 60,
    stdin: str | None = None,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    remedy: str | None = None,
) -> Completed:
    """Run a command to its end.

    Raises CommandFailed for an exit status other than 0 (unless `check` is off) and for a timeout,
    PrerequisiteMissing where the program is not installed.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
            env=env,
            cwd=cwd,
        )
    except FileNotFoundError as missing:
        raise PrerequisiteMissing(
            f"{words[0]} is not installed on this machine",
            remedy=remedy or "`make setup` installs what Sealift needs",
        ) from missing
    except subprocess.TimeoutExpired as expired:
        raise CommandFailed(
            f"`{shlex.join(words)}` did not end within {timeout_s:g} s",
            output=_text(expired.stderr)[-OUTPUT_KEPT_CHARS:],
            remedy=remedy,
        ) from expired
    completed = Completed(done.returncode, done.stdout, done.stderr)
    if check and completed.status != 0:
        raise failure(words, completed, remedy=remedy)
    return completed


def failure(
    argv: Sequence[str], completed: Completed, *, host: str | None = None, remedy: str | None = None
) -> CommandFailed:
    """The error for a command that ended badly, with the last line of what it printed that can be the reason."""
    output = (completed.stderr.strip() or completed.stdout.strip())[-OUTPUT_KEPT_CHARS:]
    lines = [line for line in output.splitlines() if line.strip() and not HINT.fullmatch(line.strip())]
    last = lines[-1] if lines else output or "it printed nothing"
    return CommandFailed(
        f"`{shlex.join(argv)[:300]}` ended with status {completed.status}: {last}",
        status=completed.status,
        output=output,
        host=host,
        remedy=remedy,
    )


def _text(output: bytes | str | None) -> str:
    if output is None:
        return ""
    return output if isinstance(output, str) else output.decode(errors="replace")
