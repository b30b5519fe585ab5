"""Whether KVM really runs a guest here. `/dev/kvm` alone does not prove this.

A paravirtual host (a VM without nested virtualisation, whose kernel still has the device) starts a guest and then
stops with an internal error. So the recipe's own kernel is booted for a moment without a disk. If it reaches the panic
about a missing root, KVM works. The answer is valid until the machine boots again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed
from sealift.machine.cache import contained
from sealift.machine.initrd import kernel_of
from sealift.machine.qemu import QEMU, Accelerator
from sealift.paths import cache_dir
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Callable

TRIAL_TIMEOUT_S = 3
_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_REACHED = "Kernel panic - not syncing: VFS: Unable to mount root fs"
_IN_TREE = """
set -e
mount -t tmpfs devices "$1/dev"
for node in kvm null urandom; do
    touch "$1/dev/$node"
    mount --bind "/dev/$node" "$1/dev/$node"
done
exec chroot "$@"
"""
"""Only the device nodes that QEMU needs. With all of the machine's `/dev`, a mistake would damage the machine."""


def choose_accelerator(tree: Path, *, say: Callable[[str], None]) -> Accelerator:
    """KVM if a trial guest runs with it, else TCG. It takes up to 3 s, once per boot of this machine."""
    answer = cache_dir() / "accelerator.json"
    boot = _BOOT_ID.read_text(encoding="ascii").strip()
    try:
        kept = json.loads(answer.read_text(encoding="utf-8"))
        if kept["boot"] == boot:
            return Accelerator(kept["accelerator"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # not tried yet since this machine's boot
    chosen = Accelerator.KVM if _KVM.exists() and kvm_runs(tree) else Accelerator.TCG
    say(
        "KVM runs a trial guest"
        if chosen is Accelerator.KVM
        else "KVM does not run a guest here: VMs are emulated (TCG), which is slower by an order of magnitude"
    )
    answer.parent.mkdir(parents=True, exist_ok=True)
    building = answer.with_suffix(".building")
    building.write_text(json.dumps({"boot": boot, "accelerator": chosen}), encoding="utf-8")
    building.rename(answer)
    return chosen


def kvm_runs(tree: Path) -> bool:
    """Boot the tree's kernel with the tree's QEMU under KVM, in namespaces that end with it."""
    kernel = Path("/") / kernel_of(tree).relative_to(tree)
    guest: list[str | Path] = [
        *(QEMU, "-no-user-config", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256M", "-kernel", kernel),
        *("-append", "console=ttyS0 panic=-1"),
    ]
    try:
        done = run(
            [*contained(network=False), "sh", "-c", _IN_TREE, "trial", tree, *guest],
            timeout_s=TRIAL_TIMEOUT_S,
            check=False,
        )
    except CommandFailed:  # it hangs: QEMU keeps a guest that KVM has stopped
        return False
    return _REACHED in done.stdout
