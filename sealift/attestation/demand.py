"""The demands on a host of the inventory: the owner's policy, with the expected measurement of the image."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.errors import UnusableInput
from sealift.evidence.launch.digest import Mode
from sealift.evidence.verify.policy import SIZE_LIMIT, Policy, parse_policy
from sealift.files import read_bounded
from sealift.machine.manifest import read_manifest
from sealift.processor.measured import MeasuredImage

if TYPE_CHECKING:
    from pathlib import Path

    from sealift.inventory import Vm

MODES = {"snp": Mode.SNP, "sev": Mode.SEVES}


@dataclass(frozen=True)
class Demand:
    """`digest`: of the owner's copy of the image, if he names one. `policy` names at least one measurement."""

    policy: Policy
    policy_path: Path
    policy_sha256: str
    digest: bytes | None
    encrypted_disk: bool

    @classmethod
    def of(cls, name: str, vm: Vm) -> Demand:
        """Read the policy and measure the image. UnusableInput if any guest would satisfy them."""
        content = read_bounded(vm.policy, SIZE_LIMIT)
        policy = parse_policy(content)
        digest = measured_image(vm.image_folder, vm).digest(MODES[vm.evidence]) if vm.image_folder else None
        named = policy.snp.measurements if vm.evidence == "snp" else policy.sev.launch_digests
        if digest is not None and named and digest.hex() not in named:
            raise UnusableInput(
                f"the image in {vm.image_folder} measures {digest.hex()[:16]}…, which {vm.policy} does not name",
                host=name,
                step="attest",
                remedy="Put the digests that `sealift image measure` prints into the policy",
            )
        if digest is not None:
            narrowed = (
                {"measurements": (digest.hex(),)}
                if vm.evidence == "snp"
                else {"launch_digests": (digest.hex(),)}
            )
            kind = "snp" if vm.evidence == "snp" else "sev"
            rules = getattr(policy, kind).model_copy(update=narrowed)
            policy = policy.model_copy(update={kind: rules})
        elif not named and not (vm.evidence == "snp" and policy.snp.id_key_digests):
            raise UnusableInput(
                f"{vm.policy} names no measurement, so any guest would satisfy it",
                host=name,
                step="attest",
                remedy="Name measurements in it, or the image_folder in the inventory",
            )
        # The demands include the digest of the image: after a change of the image, old evidence is not fresh.
        state = hashlib.sha256(content + b"\0" + (digest or b"")).hexdigest()
        return cls(policy, vm.policy, state, digest, encrypted_disk=vm.name is not None)

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The accepted digests of a legacy launch."""
        if self.digest is not None:
            return (self.digest,)
        return tuple(bytes.fromhex(each) for each in self.policy.sev.launch_digests)


def measured_image(folder: Path, vm: Vm) -> MeasuredImage:
    """The owner's copy of the image that a VM of the inventory boots."""
    append = read_manifest(folder).append
    firmware, kernel, initrd = (folder / name for name in ("firmware", "kernel", "initrd"))
    return MeasuredImage(firmware, kernel, initrd, append, vcpus=vm.vcpus, cpu=vm.cpu)
