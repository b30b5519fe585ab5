"""The real backend: against QEMU up to its refusal, and beyond it against a peer that follows QEMU's schema."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import shutil
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from processor_lab import Lab, make_image

from sealift.errors import CommandFailed, HostUnreachable, PrerequisiteMissing, UnusableInput
from sealift.evidence.formats.id_block import IdBlock
from sealift.evidence.formats.launch_measurement import Firmware, parse_measurement
from sealift.evidence.formats.launch_secret import DISK_KEY_GUID, pack_secret_table
from sealift.evidence.formats.launch_session import TransportKeys
from sealift.evidence.launch.digest import Mode
from sealift.evidence.launch.id_authentication import authenticate
from sealift.evidence.launch.measurement import measure, measurement_holds
from sealift.evidence.launch.secret import package_secret
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import tree_path
from sealift.processor.interface import LaunchState, SevLaunch, SnpLaunch
from sealift.processor.monitor import Monitor
from sealift.processor.qemu import QEMU, Capabilities, QemuProcessor, probe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# QEMU 10.0, qapi/misc-target.json and qapi/run-state.json, as far as it is used. "*": optional.
TYPES: dict[str, Any] = {
    "SevState": ["uninit", "launch-update", "launch-secret", "running", "send-update", "receive-update"],
    "SevGuestType": ["sev", "sev-snp"],
    "SevInfo": {
        "base": {
            "enabled": "bool",
            "api-major": "uint8",
            "api-minor": "uint8",
            "build-id": "uint8",
            "state": "SevState",
            "sev-type": "SevGuestType",
        },
        "discriminator": "sev-type",
        "data": {
            "sev": {"policy": "uint32", "handle": "uint32"},
            "sev-snp": {"snp-policy": "uint64"},
        },
    },
    "SevLaunchMeasureInfo": {"data": "str"},
    "SevCapability": {
        "pdh": "str",
        "cert-chain": "str",
        "cpu0-id": "str",
        "cbitpos": "int",
        "reduced-phys-bits": "int",
    },
    "SevAttestationReport": {"data": "str"},
    "Empty": {},
}
COMMANDS: dict[str, tuple[dict[str, str], str]] = {
    "qmp_capabilities": ({"*enable": "list"}, "Empty"),
    "query-sev": ({}, "SevInfo"),
    "query-sev-capabilities": ({}, "SevCapability"),
    "query-sev-launch-measure": ({}, "SevLaunchMeasureInfo"),
    "query-sev-attestation-report": ({"mnonce": "str"}, "SevAttestationReport"),
    "sev-inject-launch-secret": ({"packet-header": "str", "secret": "str", "*gpa": "uint64"}, "Empty"),
    "cont": ({}, "Empty"),
}
RANGES = {"uint8": 8, "uint32": 32, "uint64": 64, "int": 63}


def conforms(kind: str, value: Any) -> bool:
    """Whether a value is of a type of the schema."""
    if kind in RANGES:
        return type(value) is int and 0 <= value < 1 << RANGES[kind]
    if kind in {"str", "bool", "list"}:
        return type(value).__name__ == kind
    known = TYPES[kind]
    if isinstance(known, list):
        return value in known
    if "discriminator" in known:
        branch = known["data"].get(value.get(known["discriminator"]), {})
        known = known["base"] | branch
    return members_conform(known, value)


def members_conform(members: dict[str, str], value: Any) -> bool:
    names = {name.removeprefix("*") for name in members}
    return (
        isinstance(value, dict)
        and value.keys() <= names
        and all(
            (name.startswith("*") and name[1:] not in value) or conforms(kind, value[name.removeprefix("*")])
            for name, kind in members.items()
            if name.startswith("*") or name in value
        )
        and all(name in value for name in members if not name.startswith("*"))
    )


class Peer:
    """A QMP server: greeting, negotiation, then scripted answers. What breaks the schema breaks the test."""

    def __init__(self, path: Path, answers: dict[str, Callable[[dict[str, Any]], Any]]) -> None:
        self.path, self.answers = path, answers
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.faults: list[str] = []
        self.loop = asyncio.new_event_loop()
        self.ready = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self) -> None:
        async def main() -> None:
            server = await asyncio.start_unix_server(self.converse, str(self.path))
            self.stop = asyncio.Event()
            self.ready.set()
            async with server:
                await self.stop.wait()

        self.loop.run_until_complete(main())

    async def converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        version = {"qemu": {"major": 10, "minor": 0, "micro": 8}, "package": "Debian"}
        self.send(writer, {"QMP": {"version": version, "capabilities": ["oob"]}})
        negotiated, received = False, ""
        # QMP's messages follow each other without any separator.
        while piece := await reader.read(4096):
            received += piece.decode()
            try:
                message, end = json.JSONDecoder().raw_decode(received)
            except ValueError:
                continue
            received = received[end:].lstrip()
            number = {"id": message["id"]} if "id" in message else {}
            self.send(writer, self.answer(message, negotiated=negotiated) | number)
            negotiated = True
        writer.close()

    def answer(self, message: dict[str, Any], *, negotiated: bool) -> dict[str, Any]:
        name, given = message["execute"], message.get("arguments", {})
        if (name != "qmp_capabilities") is not negotiated:
            self.faults.append(f"{name} at the wrong moment")
        arguments, returns = COMMANDS[name]
        if not members_conform(arguments, given):
            self.faults.append(f"{name} does not take {sorted(given)}")
            return {"error": {"class": "GenericError", "desc": "Invalid parameter"}}
        if name == "qmp_capabilities":
            return {"return": {}}
        self.asked.append((name, given))
        said = self.answers[name](given)
        if isinstance(said, str):
            return {"error": {"class": "GenericError", "desc": said}}
        assert conforms(returns, said), f"the script's own answer to {name} breaks the schema"
        return {"return": said}

    @staticmethod
    def send(writer: asyncio.StreamWriter, message: dict[str, Any]) -> None:
        writer.write(json.dumps(message).encode() + b"\r\n")


@pytest.fixture
def peer(short_path: Path) -> Iterator[Callable[..., Peer]]:
    started = []

    def start(**answers: Any) -> Peer:
        told = {name.replace("_", "-"): value for name, value in answers.items()}
        made = Peer(
            short_path / "qmp",
            {name: value if callable(value) else (lambda _, v=value: v) for name, value in told.items()},
        )
        made.thread.start()
        assert made.ready.wait(5)
        started.append(made)
        return made

    yield start
    for each in started:
        each.loop.call_soon_threadsafe(each.stop.set)
        each.thread.join(5)
        assert not each.faults


def sev_info(**changes: Any) -> dict[str, Any]:
    base = {
        "enabled": True,
        "api-major": 1,
        "api-minor": 55,
        "build-id": 40,
        "state": "launch-secret",
        "sev-type": "sev",
        "policy": 7,
        "handle": 1,
    }
    return base | changes


def snp_info(**changes: Any) -> dict[str, Any]:
    info = sev_info(**{"sev-type": "sev-snp", "snp-policy": 0x30000, "state": "launch-update"})
    del info["policy"], info["handle"]
    return info | changes


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def test_the_schema_excerpt_tells_right_from_wrong() -> None:
    assert conforms("SevInfo", sev_info())
    assert conforms("SevInfo", snp_info())
    for wrong in (
        sev_info(policy=-1),
        sev_info(state="on"),
        snp_info(policy=1),
        sev_info(**{"build-id": 256}),
    ):
        assert not conforms("SevInfo", wrong)
    assert members_conform(COMMANDS["sev-inject-launch-secret"][0], {"packet-header": "a", "secret": "b"})
    assert not members_conform(COMMANDS["sev-inject-launch-secret"][0], {"packet_header": "a", "secret": "b"})


def test_a_legacy_launch_in_qemus_words(peer: Callable[..., Peer], short_path: Path, tmp_path: Path) -> None:
    keys = TransportKeys(tek=b"e" * 16, tik=b"i" * 16)
    measured = measure(keys.tik, Firmware(1, 55, 40), 7, b"d" * 32, b"n" * 16)
    table = package_secret(keys, measured.mac, pack_secret_table({DISK_KEY_GUID: b"key"}))
    server = peer(
        query_sev=sev_info(),
        query_sev_launch_measure={"data": b64(measured.pack())},
        query_sev_attestation_report={"data": b64(bytes(208))},
        sev_inject_launch_secret={},
    )
    processor = QemuProcessor(short_path / "qmp")
    launch = SevLaunch(7, bytes(128), bytes(2084))
    processor.begin(launch, make_image(tmp_path))
    status = processor.status()
    assert (status.state, status.mode, status.firmware) == (
        LaunchState.LAUNCH_SECRET,
        Mode.SEVES,
        Firmware(1, 55, 40),
    )
    found = parse_measurement(processor.measurement())
    assert measurement_holds(found, keys.tik, status.firmware, 7, b"d" * 32)
    processor.inject(table)
    processor.finish()
    assert len(processor.attestation_report(b"m" * 16)) == 208
    asked = dict(server.asked)
    assert asked["sev-inject-launch-secret"] == {
        "packet-header": b64(table.header()),
        "secret": b64(table.payload),
    }
    assert asked["query-sev-attestation-report"] == {"mnonce": b64(b"m" * 16)}


def test_an_snp_guest_is_told_from_a_legacy_one(
    peer: Callable[..., Peer], short_path: Path, tmp_path: Path
) -> None:
    peer(query_sev=snp_info())
    processor = QemuProcessor(short_path / "qmp")
    processor.begin(SnpLaunch(), make_image(tmp_path))
    assert processor.status().mode is Mode.SNP
    for call in (processor.measurement, lambda: processor.attestation_report(bytes(16))):
        with pytest.raises(UnusableInput, match="SNP guest"):
            call()
    with pytest.raises(CommandFailed, match="not sev"):
        processor.begin(SevLaunch(3, bytes(128), bytes(2084)), make_image(tmp_path))


def test_another_policy_than_asked_for_is_noticed(
    peer: Callable[..., Peer], short_path: Path, tmp_path: Path
) -> None:
    peer(query_sev=sev_info(policy=3))
    with pytest.raises(CommandFailed, match="policy 0x3, not seves with 0x7"):
        QemuProcessor(short_path / "qmp").begin(SevLaunch(7, bytes(128), bytes(2084)), make_image(tmp_path))


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("SEV is not enabled", PrerequisiteMissing),
        ("SEV is not enabled in KVM", PrerequisiteMissing),
        ("SEV: Failed to open /dev/sev 'No such file or directory'", PrerequisiteMissing),
        ("SEV: failed to inject secret ret=-5 fw_error=11 'Bad measurement'", CommandFailed),
    ],
)
def test_qemus_refusals_become_one_clear_error(
    peer: Callable[..., Peer], short_path: Path, said: str, kind: type[Exception]
) -> None:
    peer(query_sev=said)
    with pytest.raises(kind, match=said.split("'", maxsplit=1)[0].strip()):
        QemuProcessor(short_path / "qmp").status()


def test_answers_that_are_no_answers_are_refused(peer: Callable[..., Peer], short_path: Path) -> None:
    peer(query_sev=sev_info(), query_sev_launch_measure={"data": "!"})
    with pytest.raises(UnusableInput, match="base64"):
        QemuProcessor(short_path / "qmp").measurement()
    with pytest.raises(HostUnreachable, match="does not answer"):
        Monitor(short_path / "nobody").execute("query-sev")


def test_the_platform_is_read_from_capabilities(lab: Lab, tmp_path: Path) -> None:
    real = lab.processor.platform(Mode.SEV)
    (tmp_path / "amd").write_bytes(real.ask + real.ark)
    known = Capabilities(real.pdh, real.pek + real.oca + real.cek, b"chip", 51, 1)
    assert QemuProcessor(tmp_path, amd_certificates=tmp_path / "amd", known=known).platform(Mode.SEV) == real
    bare = QemuProcessor(tmp_path, known=known).platform(Mode.SEV)
    assert not bare.ark
    assert bare.chain(real.ask, real.ark).export() == real.chain().export()


def test_objects_carry_the_owners_launch_and_no_secret_in_words(tmp_path: Path) -> None:
    processor = QemuProcessor(tmp_path, known=Capabilities(b"", b"", b"", 51, 1))
    image = make_image(tmp_path)
    legacy = processor.arguments(SevLaunch(7, b"s" * 128, b"c" * 2084), image, tmp_path)
    assert legacy.words == (
        "-object",
        f"sev-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x7,kernel-hashes=on,"
        f"session-file={tmp_path}/session.b64,dh-cert-file={tmp_path}/owner.b64",
    )
    assert base64.b64decode((tmp_path / "session.b64").read_bytes()) == b"s" * 128
    assert (legacy.smm, legacy.confidential_guest_support) == (False, "sev0")
    block = IdBlock(bytes(48)).pack()
    auth = authenticate(block, ec.generate_private_key(ec.SECP384R1())).pack()
    snp = processor.arguments(SnpLaunch(0x30000, block, auth, b"h" * 32), image, tmp_path)
    assert snp.words[1] == (
        "sev-snp-guest,id=sev0,cbitpos=51,reduced-phys-bits=1,policy=0x30000,kernel-hashes=on,"
        f"host-data={b64(b'h' * 32)},id-block={b64(block)},id-auth={b64(auth)},author-key-enabled=off"
    )
    assert snp.shared_memory
    with pytest.raises(UnusableInput):
        processor.arguments(SnpLaunch(id_block=b"short", id_auth=auth), image, tmp_path)


@pytest.fixture
def real_qemu() -> list[str]:
    """QEMU 10 of the Debian tree, in a mount namespace of its own, or that of this machine."""
    tree = tree_path(RECIPE)
    if os.geteuid() == 0 and tree.is_dir():
        inside = 'mount --rbind /dev "$1/dev" && shift && exec chroot "$@"'
        return ["unshare", "--mount", "sh", "-c", inside, "inside", str(tree), str(tree), QEMU]
    found = shutil.which("qemu-system-x86_64")
    if found is None:
        pytest.skip("QEMU is neither in a built Debian tree nor on this machine")
    return [found]


def test_qemu_itself_is_asked_up_to_its_refusal(real_qemu: list[str]) -> None:
    if Path("/dev/sev").exists():
        assert probe(real_qemu).cbitpos > 0
        return
    with pytest.raises(PrerequisiteMissing, match=r"no secure processor .*(SEV|KVM)"):
        probe(real_qemu)


def test_a_qemu_that_ends_before_its_first_word_is_quoted() -> None:
    # QEMU without /dev/kvm ends so. Whether a machine has it is not ours to choose, so a shell says its sentence.
    says = "echo 'Could not access KVM kernel module: No such file or directory' >&2; exit 1"
    with pytest.raises(PrerequisiteMissing, match="Could not access KVM"):
        probe(["sh", "-c", says])


@pytest.mark.parametrize("launch", [SevLaunch(7, bytes(128), bytes(2084)), SnpLaunch()])
def test_qemu_itself_takes_our_objects_up_to_its_refusal(
    real_qemu: list[str], launch: Any, tmp_path: Path
) -> None:
    import subprocess

    from sealift.processor.monitor import refusal

    if Path("/dev/sev").exists():
        pytest.skip("this machine would launch it")
    processor = QemuProcessor(tmp_path, known=Capabilities(b"", b"", b"", 51, 1))
    words = processor.arguments(launch, make_image(tmp_path), tmp_path).words
    machine = "q35,accel=kvm:tcg,confidential-guest-support=sev0"
    done = subprocess.run(
        [*real_qemu, "-nodefaults", "-display", "none", "-machine", machine, *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert done.returncode
    assert "Property" not in done.stderr  # no option that QEMU does not know
    error = refusal("start", done.stderr)
    assert isinstance(error, PrerequisiteMissing), done.stderr
