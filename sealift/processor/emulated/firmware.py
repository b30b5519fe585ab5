"""The emulated firmware: a chip, its profile, at most one guest, and the commands of both sides.

`client` sends the host's commands; the guest's commands are the kernel's payloads. Both are decoded JSON objects, and
so are the answers; `service` transfers them over sockets.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sealift.evidence.formats.layout import guid
from sealift.evidence.launch.digest import Mode
from sealift.processor.emulated.legacy_guest import LegacyGuest
from sealift.processor.emulated.refusal import FirmwareRefused, Status
from sealift.processor.emulated.snp_guest import SnpGuest
from sealift.processor.interface import Launch, LaunchState, LaunchStatus, SevLaunch
from sealift.processor.measured import Measured  # noqa: TC001 - read at run time by `wire`
from sealift.processor.wire import from_json, to_json

if TYPE_CHECKING:
    from collections.abc import Callable
    from uuid import UUID

    from sealift.processor.emulated.chip import Chip
    from sealift.processor.emulated.profile import Profile

_LOG = logging.getLogger("sealift.emulated")


@dataclass(frozen=True)
class _Begin:
    launch: Launch
    measured: Measured


class Firmware:
    """The emulated firmware. A second `begin` is a power cycle: the old guest, its keys and secrets are removed."""

    def __init__(self, chip: Chip, profile: Profile) -> None:
        self.chip = chip
        self.profile = profile
        self.guest: LegacyGuest | SnpGuest | None = None
        self._kept: tuple[Profile, bytes] | None = None

    def host_call(self, call: str, arguments: dict[str, Any]) -> Any:
        """Execute one command of the host. Raises FirmwareRefused or UnusableInput."""
        commands: dict[str, Callable[..., Any]] = {
            "platform": self.platform,
            "begin": self.begin,
            "status": self.status,
            "measurement": lambda: self._legacy().measure(),
            "inject": self.inject,
            "attest": self.attest,
            "finish": self.finish,
            "configure": self.configure,
            "reset": self.reset,
        }
        command = commands.get(call)
        if command is None:
            raise FirmwareRefused(Status.UNSUPPORTED, f"there is no command {call[:40]!r}")
        try:
            return to_json(command(**arguments))
        except TypeError as error:
            raise FirmwareRefused(Status.INVALID_PARAM, f"wrong arguments for {call!r}") from error

    def platform(self, mode: str) -> Any:
        """Certificates for SNP or legacy SEV."""
        if from_json(Mode, mode, "the mode") is Mode.SNP:
            return self.chip.snp_platform(self.profile)
        return self.chip.sev_platform(self.profile)

    def begin(self, launch: Any, measured: Any) -> LaunchStatus:
        """Start a guest and measure it."""
        self.reset()
        asked = from_json(_Begin, {"launch": launch, "measured": measured}, "begin")
        if isinstance(asked.launch, SevLaunch):
            self.guest = LegacyGuest.start(self.chip, self.profile, asked.launch, asked.measured)
        else:
            self.guest = SnpGuest.start(self.chip, self.profile, asked.launch, asked.measured)
            # A new lab root takes seconds. It is made now, so that the guest does not wait for it.
            self._table()
        _LOG.info("launch of %s, digest %s", asked.launch.mode.value, self.guest.digest.hex())
        return self.status()

    def status(self) -> LaunchStatus:
        """The state of the launch."""
        profile, guest = self.profile, self.guest
        version = (profile.api_major, profile.api_minor, profile.build)
        if guest is None:
            return LaunchStatus(LaunchState.UNINIT, None, 0, *version)
        return LaunchStatus(guest.state, guest.launch.mode, guest.launch.policy, *version)

    def inject(self, header: str, payload: str) -> None:
        """Inject a secret into a legacy guest."""
        self._legacy().inject(
            from_json(bytes, header, "the header"), from_json(bytes, payload, "the payload")
        )
        _LOG.info("a secret was injected")

    def attest(self, nonce: str) -> bytes:
        """A legacy guest's report."""
        return self._legacy().attest(from_json(bytes, nonce, "the nonce"))

    def finish(self) -> None:
        """Let the guest run."""
        if self.guest is None:
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, "there is no guest")
        self.guest.finish()
        _LOG.info("the launch is finished")

    def configure(self, changes: dict[str, Any]) -> None:
        """Change the chip's profile at once, even for a running guest, as a firmware update does."""
        self.profile = self.profile.changed(changes)
        if self.guest is not None:
            self.guest.profile = self.profile

    def reset(self) -> None:
        """Power off: the guest and its secrets are removed."""
        self.guest = None

    def guest_call(self, call: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Execute one request of the guest."""
        payload = from_json(bytes, arguments.get("payload", ""), "the payload")
        if call == "secret":
            return self._secret(guid(str(arguments.get("guid"))))
        if not isinstance(self.guest, SnpGuest):
            raise FirmwareRefused(Status.UNSUPPORTED, "there is no SNP guest for this request")
        if call == "report":
            answer = self.guest.answer_report(payload)
            return {"payload": to_json(answer), "table": to_json(self._table())}
        if call == "derived-key":
            return {"payload": to_json(self.guest.answer_key(payload))}
        raise FirmwareRefused(Status.UNSUPPORTED, f"there is no request {call[:40]!r}")

    def _table(self) -> bytes:
        if self._kept is None or self._kept[0] != self.profile:
            self._kept = self.profile, self.chip.snp_platform(self.profile).certificate_table
        return self._kept[1]

    def _secret(self, name: UUID) -> dict[str, Any]:
        guest = self._legacy()
        if guest.state is not LaunchState.RUNNING:
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, f"the guest is in {guest.state.value}")
        value = guest.secrets.get(name)
        return {"missing": True} if value is None else {"secret": to_json(value)}

    def _legacy(self) -> LegacyGuest:
        if not isinstance(self.guest, LegacyGuest):
            raise FirmwareRefused(Status.INVALID_GUEST_STATE, "there is no legacy SEV guest")
        return self.guest
