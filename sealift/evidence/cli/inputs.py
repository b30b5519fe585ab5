"""What the options of the command line name, read from files: certificates, policies, images, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.fetch.cache import default_folder
from sealift.evidence.fetch.certificates import complete
from sealift.evidence.fetch.kds import KeyServer
from sealift.evidence.formats.armour import TEXT_LIMIT, unarmour
from sealift.evidence.formats.firmware import SIZE_LIMIT as FIRMWARE_LIMIT
from sealift.evidence.formats.firmware import parse_firmware
from sealift.evidence.formats.launch_measurement import Measurement, parse_measurement
from sealift.evidence.formats.layout import sized
from sealift.evidence.formats.loading import load_certificates, load_crls, load_platform
from sealift.evidence.formats.vmsa import Vmm, model_signature
from sealift.evidence.launch.digest import Mode, Processors, launch_digest
from sealift.evidence.launch.kernel_hashes import NO_INITRD, KernelHashes, hash_command_line
from sealift.evidence.verify.policy import SIZE_LIMIT as POLICY_LIMIT
from sealift.evidence.verify.policy import Policy, parse_policy
from sealift.files import hash_file, read_bounded
from sealift.words import not_known

if TYPE_CHECKING:
    from sealift.evidence.fetch.certificates import Certificates
    from sealift.evidence.formats.platform_chain import PlatformChain
    from sealift.evidence.formats.snp_report import SignedReport
    from sealift.evidence.formats.x509_certificate import X509Certificate

KEY_TEXT_LIMIT = 256

_YEARS = range(1970, 3000)


@dataclass(frozen=True, slots=True)
class ReportFiles:
    """The files of a report, its certificates and CRLs."""

    report: Path
    vek: Path | None
    chain: list[Path]
    crls: list[Path]
    cache: Path | None
    offline: bool


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """The files that a launch measures."""

    firmware: Path | None
    kernel: Path | None
    initrd: Path | None
    append: str | None
    kernel_hashes: bool = True


@dataclass(frozen=True, slots=True)
class MeasuredLaunch:
    """A legacy launch, as the platform reports it. `version`: API major, minor, build."""

    measured: str
    tik: Path
    launch_policy: str
    version: tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class PacketFiles:
    """The files of a launch secret's packet, and of the keys and measurement it is bound to."""

    measured: str
    tik: Path
    tek: Path
    header: Path
    payload: Path


def read_time(text: str | None) -> datetime:
    """The time of the check: that of --at, else now."""
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UnusableInput(
            "the time is not ISO 8601", remedy="Write it like 2026-04-01T00:00:00Z"
        ) from error
    if moment.year not in _YEARS:
        raise UnusableInput(
            f"the time lies in the year {moment.year}, when no certificate of AMD's is valid",
            remedy=f"Give one of the years {_YEARS[0]} to {_YEARS[-1]}",
        )
    return moment


def read_processors(
    count: int,
    model: str | None,
    signature: str | None,
    features: str,
    vmm: str,
    legacy: bool,
) -> Processors:
    """The virtual processors that the options describe."""
    if vmm not in set(Vmm):
        raise UnusableInput(f"the hypervisor is wrong: {not_known(vmm, Vmm)}", remedy="Use qemu, ec2 or gce")
    number = read_number(signature, "the signature") if signature else model_signature(model) if model else 0
    return Processors(count, number, read_number(features, "the guest features", 64), Vmm(vmm), legacy)


def find_certificates(given: ReportFiles, report: SignedReport, policy: Policy) -> tuple[Certificates, str]:
    """From the files given, else from the cache or AMD's key server; HostUnreachable if neither has them.

    The text is why the file of the endorsement key cannot be read, else empty: the verdict then says so.
    """
    keys, fault = None, ""
    if given.vek is not None:
        content = read_bounded(given.vek, TEXT_LIMIT)
        try:
            keys = load_certificates(content)
        except UnusableInput as error:
            keys, fault = [], error.message
    chain = [each for path in given.chain for each in _load_certificates(path)]
    crls = [each for path in given.crls for each in load_crls(read_bounded(path, TEXT_LIMIT))]
    server = KeyServer(cache=given.cache or default_folder(), offline=given.offline)
    return complete(server, report, keys, chain, crls, crl_wanted=policy.snp.require_crl), fault


def _load_certificates(path: Path) -> list[X509Certificate]:
    return load_certificates(read_bounded(path, TEXT_LIMIT))


def read_platform(files: list[Path]) -> PlatformChain:
    """The certificates of a legacy platform."""
    return load_platform(read_bounded(path, TEXT_LIMIT) for path in files)


def read_policy(path: Path | None) -> Policy:
    """The owner's policy, or without a file the strict default."""
    return Policy() if path is None else parse_policy(read_bounded(path, POLICY_LIMIT))


def read_measurement(given: str) -> Measurement:
    """A launch measurement: from the file of that name, else from base64."""
    path = Path(given)
    try:
        is_there = path.exists()
    except (OSError, ValueError):
        is_there = False
    data = read_bounded(path, KEY_TEXT_LIMIT) if is_there else given.encode()
    return parse_measurement(unarmour(data)[0])


def read_key(path: Path, what: str) -> bytes:
    """A transport key of 16 bytes, raw or as text."""
    data = read_bounded(path, KEY_TEXT_LIMIT)
    if len(data) == 16:
        return data
    return sized(unarmour(data)[0], 16, what)


def compute_digest(mode: Mode, image: ImageFiles, processors: Processors) -> bytes:
    """The launch digest of an image. Kernel and initrd are hashed in pieces."""
    if image.firmware is None:
        raise UnusableInput("there is no firmware to measure", remedy="Give --firmware")
    if image.kernel is None and (image.initrd or image.append):
        raise UnusableInput("an initrd or a command line without a kernel", remedy="Give --kernel")
    if mode is not Mode.SEV and processors.vmm is Vmm.QEMU and not processors.signature:
        raise UnusableInput(
            "the processors' registers contain their model, and no model is given",
            remedy="Give --vcpu-type with the name of QEMU's -cpu, like EPYC-Milan",
        )
    firmware = parse_firmware(read_bounded(image.firmware, FIRMWARE_LIMIT))
    hashes = None
    if image.kernel is not None and image.kernel_hashes:
        hashes = KernelHashes(
            kernel=hash_file(image.kernel),
            initrd=hash_file(image.initrd) if image.initrd else NO_INITRD,
            command_line=hash_command_line(image.append or ""),
        )
    return launch_digest(mode, firmware, hashes, processors)


def read_mode(text: str) -> Mode:
    """The generation of the encryption by its name."""
    name = {"sev-es": "seves", "sev-snp": "snp"}.get(text.lower(), text.lower())
    if name not in set(Mode):
        raise UnusableInput(f"the mode is wrong: {not_known(text, Mode)}", remedy="Use sev, seves or snp")
    return Mode(name)


def read_number(text: str, what: str, bits: int = 32) -> int:
    """A number of at most `bits` bits, in decimal or with 0x."""
    try:
        value = int(text, 0)
    except ValueError as error:
        raise UnusableInput(f"{what} is not a number", remedy="Write it like 0x30000") from error
    if not 0 <= value < 1 << bits:
        raise UnusableInput(f"{what} does not fit {bits} bits", remedy="Check it")
    return value
