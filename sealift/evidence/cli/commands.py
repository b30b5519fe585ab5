"""What each command of `app` does: read files, call the library, print."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any, cast

from sealift.errors import HostUnreachable, UnusableInput
from sealift.evidence.cli.inputs import (
    KEY_TEXT_LIMIT,
    ImageFiles,
    MeasuredLaunch,
    PacketFiles,
    ReportFiles,
    compute_digest,
    find_certificates,
    read_key,
    read_measurement,
    read_mode,
    read_number,
    read_platform,
    read_policy,
    read_time,
)
from sealift.evidence.cli.output import print_object, print_rows, print_verdict
from sealift.evidence.cli.rows import describe
from sealift.evidence.formats import launch_secret
from sealift.evidence.formats.armour import TEXT_LIMIT, unarmour
from sealift.evidence.formats.detection import identify
from sealift.evidence.formats.firmware import SIZE_LIMIT as FIRMWARE_LIMIT
from sealift.evidence.formats.launch_measurement import Firmware
from sealift.evidence.formats.launch_session import TransportKeys
from sealift.evidence.formats.layout import guid, hex_bytes
from sealift.evidence.formats.loading import load_report
from sealift.evidence.formats.report_data import padded
from sealift.evidence.launch.digest import DIGEST_BYTES, Mode, Processors
from sealift.evidence.launch.secret import package_secret, unpack_secret
from sealift.evidence.launch.session import create_session
from sealift.evidence.verify.policy import Policy, SevRules, SnpPolicy, write_policy
from sealift.evidence.verify.sev_launch import LaunchEvidence
from sealift.evidence.verify.sev_launch import verify_launch as judge_launch
from sealift.evidence.verify.sev_platform import verify_platform as judge_platform
from sealift.evidence.verify.snp import SnpEvidence, verify_snp
from sealift.files import make_folder, read_bounded, write_new
from sealift.words import not_known

ACCEPTED, REJECTED = 0, 1

_SIGNERS = ("vcek", "vlek", "any")

_SECRET_TEXT_LIMIT = 2 * launch_secret.PAYLOAD_LIMIT


def verify_report(
    given: ReportFiles, policy_file: Path | None, report_data: str | None, at: str | None, *, as_json: bool
) -> int:
    """Print the verdict on an SNP report and its certificates."""
    moment = read_time(at)
    policy = read_policy(policy_file)
    data = None if report_data is None else padded(hex_bytes(report_data, "the report data"))
    report = load_report(read_bounded(given.report, TEXT_LIMIT))
    try:
        found, fault = find_certificates(given, report, policy)
    except HostUnreachable as error:
        raise UnusableInput(
            f"the evidence does not have all certificates: {error}",
            remedy="Give --vek and --chain, or a --cache that has them",
        ) from error
    evidence = SnpEvidence(report, found.key, found.chain, found.crls, fault)
    verdict = verify_snp(evidence, policy, at=moment, report_data=data)
    print_verdict(verdict, as_json=as_json)
    return ACCEPTED if verdict.accepted else REJECTED


def verify_platform(files: list[Path], policy_file: Path | None, at: str | None, *, as_json: bool) -> int:
    """Print the verdict on a legacy platform. Its certificates have no dates, so the time has no effect."""
    read_time(at)
    verdict = judge_platform(read_platform(files), read_policy(policy_file))
    print_verdict(verdict, as_json=as_json)
    return ACCEPTED if verdict.accepted else REJECTED


def show(file: Path, *, as_json: bool) -> int:
    """Print the contents of a file."""
    try:
        data = read_bounded(file, TEXT_LIMIT)
    except UnusableInput:
        # Only firmware is larger than that.
        data = read_bounded(file, FIRMWARE_LIMIT)
    tables = [(item.format.value, describe(item)) for item in identify(data)]
    print_rows(tables, as_json=as_json)
    return ACCEPTED


def digest(mode: str, image: ImageFiles, processors: Processors, *, as_json: bool) -> int:
    """Print the expected digest of a launch."""
    kind = read_mode(mode)
    value = compute_digest(kind, image, processors)
    print_object({"mode": kind.value, "digest": value.hex()}, plain=value.hex(), as_json=as_json)
    return ACCEPTED


def make_session(
    files: list[Path],
    launch_policy: str,
    out: Path,
    policy_file: Path | None,
    at: str | None,
    *,
    as_json: bool,
) -> int:
    """Make a session for a platform if its chain is accepted: base64 for QEMU, and the keys for the owner."""
    read_time(at)
    chain = read_platform(files)
    verdict = judge_platform(chain, read_policy(policy_file))
    if not verdict.accepted or chain.pdh is None:
        print_verdict(verdict, as_json=as_json)
        return REJECTED
    launch = create_session(chain.pdh, read_number(launch_policy, "the launch policy"))
    make_folder(out)
    places = {
        "certificate": (out / "godh.b64", base64.b64encode(launch.owner_certificate.raw)),
        "session": (out / "session.b64", base64.b64encode(launch.session.pack())),
        "tik": (out / "tik.bin", launch.keys.tik),
        "tek": (out / "tek.bin", launch.keys.tek),
    }
    for path, content in places.values():
        write_new(path, content, private=path.suffix == ".bin")
    said = {name: str(path) for name, (path, _) in places.items()}
    print_object({**said, "verdict": verdict.to_json()}, plain="\n".join(said.values()), as_json=as_json)
    return ACCEPTED


def check_measurement(
    launch: MeasuredLaunch,
    expected: list[str],
    mode: str,
    image: ImageFiles,
    processors: Processors,
    policy_file: Path | None,
    *,
    as_json: bool,
) -> int:
    """Print the verdict on a legacy launch measurement."""
    policy = read_policy(policy_file)
    digests = [hex_bytes(each, "the digest", 32) for each in expected]
    if image.firmware is not None:
        digests.append(compute_digest(read_mode(mode), image, processors))
    if not digests and not policy.sev.launch_digests:
        raise UnusableInput(
            "there is nothing to compare the measurement with",
            remedy="Give --digest, or --firmware, or a policy with launch_digests",
        )
    evidence = LaunchEvidence(
        measurement=read_measurement(launch.measured),
        firmware=Firmware(*launch.version),
        policy=read_number(launch.launch_policy, "the launch policy"),
        digests=tuple(digests),
        tik=read_key(launch.tik, "the TIK"),
        boots_kernel=image.kernel is not None,
        has_kernel_hashes=image.kernel_hashes,
    )
    verdict = judge_launch(evidence, policy)
    print_verdict(verdict, as_json=as_json)
    return ACCEPTED if verdict.accepted else REJECTED


def handle_secret(packet: PacketFiles, entries: list[str], unpack: Path | None, *, as_json: bool) -> int:
    """Package secrets, or open a packet."""
    keys = TransportKeys(tek=read_key(packet.tek, "the TEK"), tik=read_key(packet.tik, "the TIK"))
    mac = read_measurement(packet.measured).mac
    if unpack is not None:
        return _open_secret(packet, keys, mac, unpack, as_json=as_json)
    table = {}
    for entry in entries:
        name, equals, path = entry.partition("=")
        if not equals:
            raise UnusableInput("a secret is given as GUID=FILE", remedy="Or as disk=FILE for the disk's key")
        value = read_bounded(Path(path), launch_secret.PAYLOAD_LIMIT)
        table[launch_secret.DISK_KEY_GUID if name == "disk" else guid(name)] = value
    if not table:
        raise UnusableInput("there is no secret to package", remedy="Give --secret GUID=FILE")
    made = package_secret(keys, mac, launch_secret.pack_secret_table(table))
    write_new(packet.header, base64.b64encode(made.header()))
    write_new(packet.payload, base64.b64encode(made.payload))
    said = {
        "header": str(packet.header),
        "payload": str(packet.payload),
        "secrets": [str(each) for each in table],
    }
    print_object(said, plain=f"{packet.header}\n{packet.payload}", as_json=as_json)
    return ACCEPTED


def init_policy(
    mode: str,
    expected: list[str],
    image: ImageFiles,
    processors: Processors,
    signer: str,
    out: Path | None,
    *,
    as_json: bool,
) -> int:
    """Make a strict policy for an image."""
    kind = read_mode(mode)
    digests = [hex_bytes(each, "the digest", DIGEST_BYTES[kind]) for each in expected]
    if image.firmware is not None:
        digests.append(compute_digest(kind, image, processors))
    if not digests:
        raise UnusableInput("there is no image to write a policy for", remedy="Give --firmware or --digest")
    if signer not in _SIGNERS:
        raise UnusableInput(
            f"the signer is wrong: {not_known(signer, _SIGNERS)}", remedy="Use vcek, vlek or any"
        )
    texts = tuple(each.hex() for each in digests)
    if kind is Mode.SNP:
        rules = SnpPolicy(
            measurements=texts, signer=cast("Any", signer), require_crl=True, require_report_data=True
        )
        policy = Policy(snp=rules)
    else:
        policy = Policy(sev=SevRules(launch_digests=texts))
    text = write_policy(policy)
    if out is not None:
        write_new(out, text.encode())
    said = {"mode": kind.value, "digests": list(texts), "policy": policy.model_dump(mode="json")}
    print_object(said, plain=text if out is None else str(out), as_json=as_json)
    return ACCEPTED


def _open_secret(packet: PacketFiles, keys: TransportKeys, mac: bytes, unpack: Path, *, as_json: bool) -> int:
    (header,) = unarmour(read_bounded(packet.header, KEY_TEXT_LIMIT))
    (payload,) = unarmour(read_bounded(packet.payload, _SECRET_TEXT_LIMIT))
    received = launch_secret.parse_secret_packet(header, payload)
    table = launch_secret.parse_secret_table(unpack_secret(keys, mac, received))
    make_folder(unpack)
    for name, value in table.items():
        write_new(unpack / str(name), value, private=True)
    names = [str(name) for name in table]
    print_object({"secrets": names, "directory": str(unpack)}, plain="\n".join(names), as_json=as_json)
    return ACCEPTED
