"""The owner's policy for a machine: a typed model, read from and written to TOML.

It is strict by default: it refuses everything that a careful verifier refuses, unless a line of the policy allows it.
The verdict lists as unchecked whatever a policy does not demand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, field_validator

from sealift.errors import UnusableInput
from sealift.evidence.formats.tcb import Generation, SevGeneration, Tcb
from sealift.evidence.verify.tcb_floors import AMD_SB_3019, Part
from sealift.words import faults, read_toml

SIZE_LIMIT = 16 * 1024

Demand = Literal["require", "forbid", "allow"]
Tolerance = Literal["refuse", "allow"]
Level = Annotated[int, Field(ge=0, le=255)]
Word = Annotated[int, Field(ge=0, le=0xFFFF_FFFF)]
Quad = Annotated[int, Field(ge=0, le=0xFFFF_FFFF_FFFF_FFFF)]


def _hex_of(*sizes: int) -> AfterValidator:
    def check(text: str) -> str:
        lowered = text.lower()
        if len(lowered) // 2 not in sizes or not re.fullmatch(r"([0-9a-f]{2})+", lowered):
            spelled = " or ".join(str(size) for size in sizes)
            message = f"{spelled} bytes in hexadecimal are needed"
            raise ValueError(message)
        return lowered

    return AfterValidator(check)


def _version(parts: int) -> AfterValidator:
    def check(text: str) -> str:
        if not re.fullmatch(r"\d{1,3}" + r"\.\d{1,3}" * (parts - 1), text):
            message = f"a version of {parts} numbers is needed, like {'.'.join('1' * parts)}"
            raise ValueError(message)
        return text

    return AfterValidator(check)


Hex8or64 = Annotated[str, _hex_of(8, 64)]
Hex16 = Annotated[str, _hex_of(16)]
Hex32 = Annotated[str, _hex_of(32)]
Hex48 = Annotated[str, _hex_of(48)]
Hex64 = Annotated[str, _hex_of(64)]
Version2 = Annotated[str, _version(2)]
Version3 = Annotated[str, _version(3)]


def version_numbers(text: str) -> tuple[int, ...]:
    """The numbers of a version."""
    return tuple(int(part) for part in text.split("."))


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExtraRoot(_Model):
    """An additional root, by SHA-256 of the whole certificate. The verdict says if it was used."""

    sha256: Hex32
    name: str = "extra root"
    generation: SevGeneration | None = None
    emulated: bool = True


class TcbFloor(_Model):
    """The lowest accepted levels of one processor part. A level of 0 demands nothing."""

    fmc: Level | None = None
    boot_loader: Level = 0
    tee: Level = 0
    snp: Level = 0
    microcode: Level = 0

    def tcb(self) -> Tcb:
        """As a TCB to compare with."""
        return Tcb(self.boot_loader, self.tee, self.snp, self.microcode, self.fmc)


class GuestPolicyDemands(_Model):
    """Demands on the guest policy in a report (bits 16 to 25)."""

    debug: Demand = "forbid"
    migration_agent: Demand = "forbid"
    smt: Demand = "allow"
    single_socket: Demand = "allow"
    cxl: Demand = "allow"
    aes_256_xts: Demand = "allow"
    rapl_off: Demand = "allow"
    ciphertext_hiding: Demand = "allow"
    page_swap_off: Demand = "allow"


class PlatformDemands(_Model):
    """Demands on the platform info in a report. `alias_check` applies to firmware that has the check."""

    alias_check: Demand = "require"
    smt: Demand = "allow"
    tsme: Demand = "allow"
    ecc: Demand = "allow"
    rapl_off: Demand = "allow"
    ciphertext_hiding: Demand = "allow"
    tio: Demand = "allow"


class SnpPolicy(_Model):
    """Demands on an SEV-SNP report. None and empty demand nothing; the verdict lists them as unchecked."""

    report_versions: tuple[Literal[2, 3, 4, 5], ...] = (2, 3, 4, 5)
    generations: tuple[Generation, ...] = tuple(Generation)
    deny_generations: tuple[Generation, ...] = ()
    signer: Literal["vcek", "vlek", "any"] = "any"
    providers: tuple[str, ...] = ()
    vmpl: Annotated[int, Field(ge=0, le=3)] | Literal["any"] = 0
    require_crl: bool = False
    allow_masked_chip: bool = False
    allow_chip_mismatch: bool = False
    allow_tcb_mismatch: bool = False
    allow_reported_above_current: bool = False
    allow_reported_above_committed: bool = False
    allow_launch_above_current: bool = False
    allow_provisional_firmware: bool = False
    unknown_policy_bits: Tolerance = "refuse"
    unknown_platform_bits: Tolerance = "allow"
    reserved_bytes: Tolerance = "allow"
    guest_policy: GuestPolicyDemands = GuestPolicyDemands()
    platform_info: PlatformDemands = PlatformDemands()
    guest_policy_value: Quad | None = None
    platform_info_value: Quad | None = None
    min_abi: Version2 | None = None
    min_guest_svn: Word | None = None
    max_guest_svn: Word | None = None
    min_current_version: Version3 | None = None
    min_committed_version: Version3 | None = None
    tcb_floor: dict[Part, TcbFloor] = Field(
        default_factory=lambda: {part: TcbFloor(**levels) for part, levels in AMD_SB_3019.items()},
        description="By part. A level that is not named keeps that of AMD-SB-3019; name a level to lower it.",
    )
    cpus: tuple[tuple[Level, Level, Level], ...] = ()
    chip_ids: tuple[Hex8or64, ...] = ()
    measurements: tuple[Hex48, ...] = ()
    require_report_data: bool = False
    report_data: Hex64 | None = None
    host_data: Hex32 | None = None
    family_id: Hex16 | None = None
    image_id: Hex16 | None = None
    report_id: Hex32 | None = None
    report_id_ma: Hex32 | None = None
    author_key: Demand = "allow"
    id_key_digests: tuple[Hex48, ...] = ()
    author_key_digests: tuple[Hex48, ...] = ()
    launch_mitigations: Quad | None = None
    current_mitigations: Quad | None = None

    @field_validator("tcb_floor", mode="before")
    @classmethod
    def _over_defaults(cls, given: object) -> object:
        # A floor for one part, or for one of its levels, must not remove the others.
        if not isinstance(given, Mapping):
            return given
        merged: dict[Any, Any] = dict(AMD_SB_3019)
        for part, levels in given.items():
            named = levels.model_dump(exclude_unset=True) if isinstance(levels, TcbFloor) else levels
            merged[part] = {**merged.get(part, {}), **named} if isinstance(named, Mapping) else named
        return merged

    @field_validator("tcb_floor")
    @classmethod
    def _of_levels_that_there_are(cls, floors: dict[Part, TcbFloor]) -> dict[Part, TcbFloor]:
        for part, floor in floors.items():
            if floor.fmc is not None and part is not Part.TURIN:
                message = f"{part} has no FMC, only Turin has"
                raise ValueError(message)
        return floors


class LaunchDemands(_Model):
    """Demands on the launch policy of a legacy guest (bits 0 to 5)."""

    no_debug: Demand = "require"
    es: Demand = "require"
    no_send: Demand = "require"
    no_key_sharing: Demand = "require"
    same_domain: Demand = "allow"
    sev_only: Demand = "allow"


class SevRules(_Model):
    """Demands on a legacy SEV platform and launch."""

    generations: tuple[SevGeneration, ...] = tuple(SevGeneration)
    deny_generations: tuple[SevGeneration, ...] = (SevGeneration.NAPLES,)
    min_api: Version2 = "0.17"
    min_build: Level | None = None
    oca_sha256: tuple[Hex32, ...] = ()
    cek_sha256: tuple[Hex32, ...] = ()
    launch_policy: LaunchDemands = LaunchDemands()
    unknown_policy_bits: Tolerance = "refuse"
    require_kernel_hashes: bool = True
    launch_digests: tuple[Hex32, ...] = ()


class Policy(_Model):
    """The whole policy. Evidence older than `evidence_lifetime_s` is fetched again: with 0, each time.

    An answer is refused if it comes more than `nonce_lifetime_s` after its nonce was generated.
    """

    version: Literal[1] = 1
    nonce_lifetime_s: Annotated[int, Field(gt=0, le=86_400)] = 300
    evidence_lifetime_s: Annotated[int, Field(ge=0, le=366 * 86_400)] = 0
    extra_roots: tuple[ExtraRoot, ...] = ()
    snp: SnpPolicy = SnpPolicy()
    sev: SevRules = SevRules()


def parse_policy(text: str | bytes) -> Policy:
    """Read TOML. An unknown line is refused, since a misspelt demand would demand nothing."""
    if len(text) > SIZE_LIMIT:
        raise UnusableInput("the policy is larger than 16 KiB", remedy="Start from `policy init`")
    try:
        content = read_toml(text if isinstance(text, bytes) else text.encode())
    except ValueError as error:
        raise UnusableInput(
            f"the policy cannot be read as TOML: {error}", remedy="Start from `policy init`"
        ) from error
    try:
        return Policy.model_validate(content)
    except ValidationError as error:
        found = "; ".join(f"{where or 'content'}: {what}" for where, what in faults(Policy, error))
        raise UnusableInput(
            f"the policy is wrong: {found}", remedy="See `policy init` for the names and forms"
        ) from error


def write_policy(policy: Policy) -> str:
    """The policy as TOML, with every setting that demands something."""
    return tomli_w.dumps(policy.model_dump(mode="json", exclude_none=True))
