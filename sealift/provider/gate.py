"""The gate: an owner's SSH key can only give one of the known orders at a provider.

`authorized_keys` has `restrict,command="… -m sealift.provider gate"`: the client's request
arrives in SSH_ORIGINAL_COMMAND and is compared with a short list of words. It is not passed to a shell. The order's
fields come as JSON on standard input, with a limited size.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Any, BinaryIO

from sealift.errors import SealiftError, UnusableInput
from sealift.processor.wire import LINE_LIMIT, from_line, to_json, to_line
from sealift.provider.orders import ORDERS

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.provider.service import Provider

SERVE = "serve"
INPUT_LIMIT = 2 * LINE_LIMIT
ASKED = "SSH_ORIGINAL_COMMAND"

_PUBLIC_KEY = re.compile(
    r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+={0,2}( [^\n\"]*)?"
)


def admit(asked: str | None) -> str:
    """The order in an SSH client's request: `start` or `sealift provider start`, and nothing else."""
    words = (asked or "").split(" ")
    if words[:2] == ["sealift", "provider"]:
        words = words[2:]
    if len(words) == 1 and words[0] in {*ORDERS, SERVE}:
        return words[0]
    raise UnusableInput(
        "this account accepts only the provider's orders",
        remedy=f"Send one of {', '.join(ORDERS)} or {SERVE}, and its fields as JSON on standard input",
    )


def answer(provider: Provider, name: str, said: BinaryIO, heard: BinaryIO) -> int:
    """Read one order from `said` and write its answer to `heard`. Returns the exit status."""
    if name == SERVE:
        return serve(provider, said, heard)
    text = said.read(INPUT_LIMIT + 1)
    message, status = _obey(provider, name, text)
    heard.write(to_line(message))
    heard.flush()
    return status


def serve(provider: Provider, said: BinaryIO, heard: BinaryIO) -> int:
    """Execute orders as lines, {"order": …, fields}, until the input ends: one interpreter for a whole launch."""
    while line := said.readline(INPUT_LIMIT + 1):
        message, _ = _obey(provider, None, line)
        heard.write(to_line(message))
        heard.flush()
        if len(line) > INPUT_LIMIT:
            return UnusableInput.exit_status
    return 0


def authorized_line(public_key: str, command: list[str]) -> str:
    """The line for `authorized_keys`."""
    if not _PUBLIC_KEY.fullmatch(public_key.strip()):
        raise UnusableInput(
            "this is not an SSH public key",
            remedy="Give the one line of the .pub file, without options before it",
        )
    text = shlex.join(command)
    if '"' in text or "\\" in text or "\n" in text:
        raise UnusableInput("the command cannot be written into authorized_keys", remedy="Use a plain path")
    return f'restrict,command="{text}" {public_key.strip()}'


def gate_command(settings: Path | None) -> list[str]:
    """The text after `command=`: this interpreter, and this package."""
    words = [sys.executable, "-P", "-m", "sealift.provider"]
    return [*words, *(["--settings", str(settings)] if settings else []), "gate"]


def _obey(provider: Provider, name: str | None, text: bytes) -> tuple[dict[str, Any], int]:
    try:
        if len(text) > INPUT_LIMIT:
            raise UnusableInput("the order is too long", remedy="An order has at most 2 MiB")
        fields = from_line(text) if text.strip() else {}
        order = name or str(fields.pop("order", ""))
        return {"result": to_json(provider.obey(order, fields))}, 0
    except SealiftError as error:
        return {
            "error": error.message,
            "kind": type(error).__name__,
            "remedy": error.remedy,
            "step": error.step,
        }, error.exit_status
