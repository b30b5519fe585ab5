"""The owner's side of a provider: orders over a connection, and typed answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from sealift import errors
from sealift.errors import CommandFailed, HostUnreachable, SealiftError, UnusableInput
from sealift.processor.wire import LINE_LIMIT, from_json, from_line, to_line
from sealift.provider.orders import Evidence, EvidenceOrder, InjectOrder, StartOrder, VmList, VmState

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sealift.evidence.formats.launch_secret import SecretPacket
    from sealift.evidence.launch.digest import Mode
    from sealift.process import Completed

T = TypeVar("T")
ORDER_TIMEOUT_S = 120
ANSWER_LIMIT = 4 * LINE_LIMIT


class Line(Protocol):
    """Runs a command at the provider, such as `sealift.host.ssh.Connection`."""

    @property
    def name(self) -> str:
        """The provider's name, for errors."""

    def run(
        self, argv: Sequence[str], *, timeout_s: float = ..., stdin: bytes = ..., check: bool = ...
    ) -> Completed:
        """Run a command to its end."""


@dataclass(frozen=True)
class ProviderClient:
    """Orders to one provider. Its answers are not trusted: verify `Evidence` before anything else."""

    line: Line

    def start(self, order: StartOrder) -> VmState:
        """Start a VM. Sending the same order again after a lost connection is safe."""
        return self._ask("start", order, VmState)

    def evidence(self, mode: Mode, vm: str | None = None, *, nonce: bytes = b"") -> Evidence:
        """Evidence about the platform, or about a VM."""
        return self._ask("evidence", EvidenceOrder(mode, vm, nonce), Evidence)

    def inject(self, vm: str, packet: SecretPacket, *, resume: bool = True) -> VmState:
        """Inject a launch secret, which is already encrypted for the VM's processor."""
        return self._ask("inject", InjectOrder(vm, packet.header(), packet.payload, resume), VmState)

    def resume(self, vm: str) -> VmState:
        """Let a waiting VM run."""
        return self._ask("resume", {"vm": vm}, VmState)

    def stop(self, vm: str) -> None:
        """End a VM."""
        self._ask("stop", {"vm": vm}, VmList)

    def list(self) -> tuple[VmState, ...]:
        """All VMs."""
        return self._ask("list", {}, VmList).vms

    def _ask(self, name: str, order: Any, kind: type[T]) -> T:
        done = self.line.run(
            ["sealift", "provider", name], timeout_s=ORDER_TIMEOUT_S, stdin=to_line(order), check=False
        )
        try:
            if len(done.stdout) > ANSWER_LIMIT:
                raise UnusableInput("the provider's answer is too long", remedy="An answer has at most 4 MiB")
            said = from_line(done.stdout.encode())
        except UnusableInput as error:
            raise HostUnreachable(
                f"the provider does not accept the order {name!r}: "
                f"{done.stderr.strip()[-300:] or f'status {done.status}, without a message'}",
                host=self.line.name,
                remedy="Its authorized_keys should have the line that `sealift provider authorize` prints",
            ) from error
        if "error" in said:
            raise _error(said, self.line.name)
        return from_json(kind, said.get("result"), "the provider's answer")


def _error(said: dict[str, Any], host: str) -> SealiftError:
    """The provider's error, as the same class of error if it is one of Sealift's."""
    kind = getattr(errors, str(said.get("kind")), CommandFailed)
    if not (isinstance(kind, type) and issubclass(kind, SealiftError)):
        kind = CommandFailed
    remedy, step = (said.get(name) and str(said[name])[:1000] for name in ("remedy", "step"))
    return kind(str(said["error"])[:2000], remedy=remedy, step=step, host=host)
