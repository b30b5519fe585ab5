"""The expected launch digests of an image, and a policy that demands them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.policy import Policy, SevRules, SnpPolicy
from sealift.machine.manifest import read_manifest
from sealift.processor.measured import MeasuredImage

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def expected_digests(image: Path, vcpus: int, cpu: str) -> dict[Mode, bytes]:
    """The launch digests of an image (a folder) with that number of processors of that QEMU model."""
    measured = MeasuredImage(
        firmware=image / "firmware",
        kernel=image / "kernel",
        initrd=image / "initrd",
        append=read_manifest(image).append,
        vcpus=vcpus,
        cpu=cpu,
    )
    return {mode: measured.digest(mode) for mode in (Mode.SEV, Mode.SEVES, Mode.SNP)}


def expected_policy(digests: Mapping[Mode, bytes]) -> Policy:
    """A policy that is as strict as the default, and accepts only these launches."""
    legacy = tuple(digest.hex() for mode, digest in digests.items() if mode is not Mode.SNP)
    snp = tuple(digest.hex() for mode, digest in digests.items() if mode is Mode.SNP)
    return Policy(snp=SnpPolicy(measurements=snp), sev=SevRules(launch_digests=legacy))
