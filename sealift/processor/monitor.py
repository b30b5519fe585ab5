"""QEMU's monitor, one command at a time: `qemu.qmp` behind a blocking call.

QEMU serves one client at a time, so each command uses a new connection. A killed client does not block the next one.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.errors import CommandFailed, HostUnreachable, PrerequisiteMissing

if TYPE_CHECKING:
    import socket

STEP = "QEMU's monitor"
ANSWER_TIMEOUT_S = 20

_ABSENT = (
    "SEV is not enabled",
    "SEV not enabled",
    "KVM not enabled",
    "is not enabled in KVM",
    "Failed to open /dev/sev",
    "failed to initialize",
    "does not support confidential guest",
    "host kernel does not support requested",
    "Could not access KVM kernel module",
    "failed to initialize kvm",
    "not supported by KVM",
)


@dataclass(frozen=True)
class Monitor:
    """QEMU's QMP socket: a path, or a connected socket for one exchange."""

    place: Path | socket.socket

    def execute(self, command: str, **arguments: Any) -> Any:
        """One command; underscores in argument names stand for hyphens.

        CommandFailed with QEMU's message, PrerequisiteMissing if the message means that there is no secure processor,
        HostUnreachable if QEMU does not answer.
        """
        given = {name.replace("_", "-"): value for name, value in arguments.items()}
        return asyncio.run(self._execute(command, given))

    async def _execute(self, command: str, arguments: dict[str, Any]) -> Any:
        # A provider that only lists its VMs, or serves emulated ones, runs without the package for a moment.
        from qemu.qmp import ExecuteError, QMPClient, QMPError  # noqa: PLC0415

        client = QMPClient("sealift")
        try:
            async with asyncio.timeout(ANSWER_TIMEOUT_S):
                await client.connect(str(self.place) if isinstance(self.place, Path) else self.place)
                try:
                    return await client.execute(command, arguments or None)
                finally:
                    await client.disconnect()
        except ExecuteError as error:
            raise refusal(command, str(error)) from error
        except (QMPError, OSError, TimeoutError) as error:
            raise HostUnreachable(
                f"QEMU does not answer {command!r}: {error or type(error).__name__}",
                step=STEP,
                remedy="See the VM's qemu.log; stop the VM and start it again",
            ) from error


def refusal(command: str, said: str) -> CommandFailed | PrerequisiteMissing:
    """The error for a message of QEMU, in an answer or at its end."""
    words = " ".join(said.split())[-500:]
    if any(sign in said for sign in _ABSENT):
        return PrerequisiteMissing(
            f"this machine has no secure processor that QEMU can use ({command}: {words})",
            step="secure processor",
            remedy="Enable SEV in the firmware's set-up and in kvm_amd (sev=1, sev_es=1, sev_snp=1) on an EPYC "
            "machine, or use the emulated processor, which protects nothing",
        )
    return CommandFailed(f"QEMU refused {command!r}: {words}", output=said, step="secure processor")
