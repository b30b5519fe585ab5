"""`sealift evidence …`: evidence of AMD's secure processors, verified, shown and computed.

Exit status: 0 accepted, 1 rejected, 2 input that cannot be used. This module has only declarations. The work, and
every slow import, is in `commands`, so that `sealift --help` answers at once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sealift.errors import SealiftError, UnusableInput

if TYPE_CHECKING:
    from collections.abc import Callable

app = typer.Typer(
    name="evidence",
    help="Verify evidence of AMD's secure processors.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_show_locals=False,  # locals may hold keys
)
policy_app = typer.Typer(name="policy", help="The owner's demands on a machine.", no_args_is_help=True)
app.add_typer(policy_app)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
At = Annotated[
    str | None, typer.Option("--at", metavar="TIME", help="Check as of this time (ISO 8601, UTC).")
]
PolicyFile = Annotated[
    Path | None, typer.Option("--policy", metavar="FILE", help="The owner's policy (TOML).")
]
Mode = Annotated[str, typer.Option("--mode", metavar="sev|seves|snp", help="Generation of the encryption.")]
Firmware = Annotated[Path | None, typer.Option("--firmware", metavar="FILE", help="The OVMF image.")]
Kernel = Annotated[Path | None, typer.Option("--kernel", metavar="FILE", help="The kernel of a direct boot.")]
Initrd = Annotated[Path | None, typer.Option("--initrd", metavar="FILE", help="Its initrd.")]
Append = Annotated[str | None, typer.Option("--append", metavar="TEXT", help="Its command line.")]
Vcpus = Annotated[int, typer.Option("--vcpus", metavar="N", help="Virtual processors.")]
VcpuType = Annotated[
    str | None, typer.Option("--vcpu-type", metavar="T", help="QEMU's processor model, like EPYC-Milan.")
]
VcpuSignature = Annotated[
    str | None, typer.Option("--vcpu-signature", metavar="HEX", help="CPUID 1 EAX, instead of a type.")
]
Features = Annotated[
    str, typer.Option("--guest-features", metavar="HEX", help="SEV_FEATURES of an SNP guest's processors.")
]
VmmName = Annotated[
    str, typer.Option("--vmm", metavar="qemu|ec2|gce", help="The hypervisor that sets up the registers.")
]
LegacyVmType = Annotated[bool, typer.Option("--legacy-vm-type", help="As QEMU's option of that name.")]
Tik = Annotated[Path, typer.Option("--tik", metavar="FILE", help="The launch's integrity key (16 bytes).")]
Tek = Annotated[Path, typer.Option("--tek", metavar="FILE", help="The launch's encryption key (16 bytes).")]
MeasurementText = Annotated[
    str,
    typer.Argument(metavar="MEASUREMENT", help="Launch measurement: a file, or base64 from QMP."),
]


@app.command("verify-report")
def verify_report(
    report: Annotated[Path, typer.Argument(metavar="REPORT", help="An SNP report: raw, hex or base64.")],
    more: Annotated[
        list[Path] | None, typer.Argument(metavar="[CHAIN]...", help="More of the chain.", show_default=False)
    ] = None,
    *,
    vek: Annotated[
        Path | None,
        typer.Option("--vek", metavar="FILE", help="The VCEK or VLEK; default: from cache or KDS."),
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option("--chain", metavar="FILE", help="ASK and ARK; default: from cache or KDS."),
    ] = None,
    crl: Annotated[list[Path] | None, typer.Option("--crl", metavar="FILE", help="The root's CRL.")] = None,
    policy: PolicyFile = None,
    report_data: Annotated[
        str | None,
        typer.Option("--report-data", metavar="HEX", help="The report data that the guest was asked for."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            "--cache",
            metavar="DIR",
            help="Cache of KDS answers; default: $SEALIFT_CACHE/kds or ~/.cache/sealift/kds.",
        ),
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Never ask KDS, only the cache.")] = False,
    at: At = None,
    json: Json = False,
) -> None:
    """Say whether an SNP report is genuine. The policy must accept it, too."""

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        given = inputs.ReportFiles(report, vek, [*(chain or []), *(more or [])], crl or [], cache, offline)
        return commands.verify_report(given, policy, report_data, at, as_json=json)

    _finish(run, as_json=json)


@app.command("verify-platform")
def verify_platform(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="The certificates in any order, or one chain.")
    ],
    *,
    policy: PolicyFile = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Say whether a legacy SEV platform is genuine. Its six certificates must lead to a trusted root."""

    def run() -> int:
        from sealift.evidence.cli import commands

        return commands.verify_platform(files, policy, at, as_json=json)

    _finish(run, as_json=json)


@app.command("show")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file in one of these formats.")],
    *,
    at: At = None,
    json: Json = False,
) -> None:
    """Show a file of evidence as a table.

    It is a report, certificate, chain, CRL, session, measurement, id block or firmware.
    """

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        inputs.read_time(at)
        return commands.show(file, as_json=json)

    _finish(run, as_json=json)


@app.command("digest")
def digest(
    *,
    mode: Mode,
    firmware: Firmware = None,
    kernel: Kernel = None,
    initrd: Initrd = None,
    append: Append = None,
    vcpus: Vcpus = 1,
    vcpu_type: VcpuType = None,
    vcpu_signature: VcpuSignature = None,
    guest_features: Features = "0x1",
    vmm: VmmName = "qemu",
    legacy_vm_type: LegacyVmType = False,
    at: At = None,
    json: Json = False,
) -> None:
    """Print the expected launch digest of firmware and kernel."""

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        inputs.read_time(at)
        image = inputs.ImageFiles(firmware, kernel, initrd, append)
        cpus = inputs.read_processors(vcpus, vcpu_type, vcpu_signature, guest_features, vmm, legacy_vm_type)
        return commands.digest(mode, image, cpus, as_json=json)

    _finish(run, as_json=json)


@app.command("session")
def session(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="The platform's certificates.")],
    *,
    launch_policy: Annotated[str, typer.Option("--launch-policy", metavar="HEX", help="The guest's policy.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder of the new files.")],
    policy: PolicyFile = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Make a launch session for a platform. The policy must accept its chain. Writes certificate, session and keys."""

    def run() -> int:
        from sealift.evidence.cli import commands

        return commands.make_session(files, launch_policy, out, policy, at, as_json=json)

    _finish(run, as_json=json)


@app.command("measurement")
def measurement(
    measured: MeasurementText,
    *,
    tik: Tik,
    launch_policy: Annotated[str, typer.Option("--launch-policy", metavar="HEX", help="The guest's policy.")],
    api_major: Annotated[int, typer.Option("--api-major", help="From the platform's firmware.")],
    api_minor: Annotated[int, typer.Option("--api-minor", help="From the platform's firmware.")],
    build_id: Annotated[int, typer.Option("--build-id", help="From the platform's firmware.")],
    expected: Annotated[
        list[str] | None, typer.Option("--digest", metavar="HEX", help="The expected digest.")
    ] = None,
    mode: Mode = "seves",
    firmware: Firmware = None,
    kernel: Kernel = None,
    initrd: Initrd = None,
    append: Append = None,
    no_kernel_hashes: Annotated[
        bool, typer.Option("--no-kernel-hashes", help="The kernel boots without measured hashes.")
    ] = False,
    vcpus: Vcpus = 1,
    vcpu_type: VcpuType = None,
    vcpu_signature: VcpuSignature = None,
    legacy_vm_type: LegacyVmType = False,
    policy: PolicyFile = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Say whether the platform measured the right digest. It is given, or of an image as with `digest`."""

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        inputs.read_time(at)
        image = inputs.ImageFiles(firmware, kernel, initrd, append, not no_kernel_hashes)
        cpus = inputs.read_processors(vcpus, vcpu_type, vcpu_signature, "0", "qemu", legacy_vm_type)
        launch = inputs.MeasuredLaunch(measured, tik, launch_policy, (api_major, api_minor, build_id))
        return commands.check_measurement(launch, expected or [], mode, image, cpus, policy, as_json=json)

    _finish(run, as_json=json)


@app.command("secret")
def secret(
    measured: MeasurementText,
    *,
    tik: Tik,
    tek: Tek,
    header: Annotated[Path, typer.Option("--header", metavar="FILE", help="Header of the packet (base64).")],
    payload: Annotated[Path, typer.Option("--payload", metavar="FILE", help="Its payload (base64).")],
    entries: Annotated[
        list[str] | None,
        typer.Option("--secret", metavar="GUID=FILE", help="A secret; `disk=FILE` for the disk's key."),
    ] = None,
    unpack: Annotated[
        Path | None, typer.Option("--unpack", metavar="DIR", help="Open the packet instead, into DIR.")
    ] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Package secrets for a verified launch, or open a packet."""

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        inputs.read_time(at)
        packet = inputs.PacketFiles(measured, tik, tek, header, payload)
        return commands.handle_secret(packet, entries or [], unpack, as_json=json)

    _finish(run, as_json=json)


@policy_app.command("init")
def policy_init(
    *,
    mode: Mode = "snp",
    expected: Annotated[
        list[str] | None, typer.Option("--digest", metavar="HEX", help="The image's launch digest, if known.")
    ] = None,
    firmware: Firmware = None,
    kernel: Kernel = None,
    initrd: Initrd = None,
    append: Append = None,
    vcpus: Vcpus = 1,
    vcpu_type: VcpuType = None,
    vcpu_signature: VcpuSignature = None,
    guest_features: Features = "0x1",
    vmm: VmmName = "qemu",
    legacy_vm_type: LegacyVmType = False,
    signer: Annotated[
        str, typer.Option("--signer", metavar="vcek|vlek|any", help="The key that signs.")
    ] = "vcek",
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="File to write; default: print.")
    ] = None,
    at: At = None,
    json: Json = False,
) -> None:
    """Write a strict policy for an image. It demands the digest, a CRL and bound report data."""

    def run() -> int:
        from sealift.evidence.cli import commands, inputs

        inputs.read_time(at)
        image = inputs.ImageFiles(firmware, kernel, initrd, append)
        cpus = inputs.read_processors(vcpus, vcpu_type, vcpu_signature, guest_features, vmm, legacy_vm_type)
        return commands.init_policy(mode, expected or [], image, cpus, signer, out, as_json=json)

    _finish(run, as_json=json)


UNUSABLE_INPUT = 2
"""Exit status for input that cannot be used. It differs from 1, which means that evidence was rejected."""


def _finish(run: Callable[[], int], *, as_json: bool) -> None:
    try:
        status = run()
    except SealiftError as error:
        if as_json:
            import json

            said = {"error": error.message, "remedy": error.remedy, "accepted": False}
            sys.stdout.write(json.dumps(said, indent=2) + "\n")
        else:
            sys.stderr.write(f"{error}\n")
        unusable = isinstance(error, UnusableInput)
        raise typer.Exit(UNUSABLE_INPUT if unusable else error.exit_status) from None
    raise typer.Exit(status)
