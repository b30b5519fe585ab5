"""Emulated secure processors for the namespaced hosts, and the policy that names the lab's root certificates.

A namespaced host has no firmware to measure, so a description of its tree is measured. This proves the protocol only:
the root's private keys are in the cache, and every verdict says that the evidence is emulated.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.evidence.formats.tcb import Generation, SevGeneration
from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.policy import ExtraRoot, write_policy
from sealift.lab.namespaced import MARK, marked_processes
from sealift.machine.expected import expected_policy
from sealift.machine.recipe import RECIPE, files_dir
from sealift.paths import cache_dir
from sealift.processor.emulated.authority import Authority
from sealift.processor.emulated.client import EmulatedProcessor
from sealift.processor.emulated.process import emulator_environment, emulator_words, listening
from sealift.processor.emulated.store import Store
from sealift.processor.interface import SnpLaunch
from sealift.processor.measured import MeasuredTree

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

GENERATION = Generation.MILAN
ROOT_NAME = "the root of Sealift's labs on this machine"


def authority_dir() -> Path:
    """The directory with the root keys and certificates of all labs on this machine."""
    return cache_dir() / "emulated" / "authority"


def make_roots(*, say: Callable[[str], None]) -> tuple[bytes, bytes]:
    """The lab's root certificates, which take the place of AMD's: for SNP (DER) and for legacy SEV (AMD's format).

    They are made once only, since their two RSA-4096 keys take seconds.
    """
    if not (authority_dir() / "ask.key").exists():
        say("making the root of the emulated secure processors, once")
    authority = Authority(Store(authority_dir()))
    _ = authority.legacy_ask
    return authority.x509_root(GENERATION), authority.legacy_root


def tree() -> MeasuredTree:
    """The parts of a namespaced host that are measured."""
    made_of = {"what": "namespaced host", "recipe": RECIPE.digest, "files": files_dir().name}
    return MeasuredTree(json.dumps(made_of, sort_keys=True).encode())


def policy(roots: Iterable[bytes], digests: Mapping[Mode, bytes] | None = None) -> str:
    """The owner's policy for the lab, as TOML. It is strict, but names the lab's roots (DER, or AMD's format).

    `digests` are the launch digests of an image. Without them the policy demands the digest of a namespaced host.
    """
    extra = tuple(
        ExtraRoot(
            sha256=hashlib.sha256(root).hexdigest(),
            name=ROOT_NAME,
            generation=SevGeneration(GENERATION.value),
        )
        for root in roots
    )
    expected = expected_policy(digests or {Mode.SNP: tree().digest(Mode.SNP)})
    rules = expected.snp.model_copy(update={"require_report_data": True})
    return write_policy(expected.model_copy(update={"extra_roots": extra, "snp": rules}))


def start(name: str, directory: Path, mark: str) -> EmulatedProcessor:
    """Start the processor of a host. Its `begin` waits until it runs. It ends with the lab."""
    host, guest = directory / "host", guest_socket(directory)
    with listening(host, guest) as sockets, (directory / "processor.log").open("ab") as log:
        subprocess.Popen(
            emulator_words(cache_dir() / "emulated" / "chips" / name, sockets, authority=authority_dir()),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[each.fileno() for each in sockets],
            env=emulator_environment({**os.environ, MARK: mark}),
            start_new_session=True,
        )
    return EmulatedProcessor(host, guest)


def end(name: str, mark: str) -> None:
    """End the processor of a host whose power is cut."""
    state = str(cache_dir() / "emulated" / "chips" / name)
    for pid, value in marked_processes().items():
        with suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            if value == mark and state in words:
                os.kill(pid, signal.SIGKILL)


def guest_socket(directory: Path) -> Path:
    """The socket that is bind-mounted into the host."""
    return directory / "guest"


def launch(processor: EmulatedProcessor) -> None:
    """Measure the host's tree, and let it run."""
    processor.begin(SnpLaunch(), tree())
    processor.finish()
