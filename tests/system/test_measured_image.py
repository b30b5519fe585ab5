"""A measured VM takes nothing from its provider but addresses, reads no changed bit, and keeps its data to itself.

Run as a program it is the inner half: in namespaces of its own, which end with it, a provider with the emulated
processor boots the image, and what was seen is printed.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealift.machine.accelerator import choose_accelerator
from sealift.machine.recipe import RECIPE
from sealift.machine.tree import build_tree

BOOT_TIMEOUT_S = 120
ADDRESS = "192.0.2.2"
MAC = "52:54:00:5e:a1:00"
DATA_DISK_MIB = 1024
DEVICES = ("/dev/net/tun", "/dev/null", "/dev/urandom")
GUEST = "usr/libexec/sealift/guest"
STAND_IN = "#!/bin/sh\nssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key </dev/null\n"
"""For the guest's own program, as far as a boot needs it."""

STATE = {
    "disk": "/usr/libexec/sealift/data-disk status",
    "docker": "systemctl is-active docker containerd sealift-network",
    "authorized": "cat /root/.ssh/authorized_keys",
    "planted": "cat /etc/sealift/wireguard.conf /etc/ssh/planted /etc/sealift/network.env 2>&1",
    "host_key": "cat /etc/ssh/ssh_host_ed25519_key.pub",
    "network": "cat /etc/sealift/network; hostname; ip -o -4 address show scope global",
    "swap": "cat /proc/swaps",
    "cores": "cat /proc/sys/kernel/core_pattern /proc/sys/fs/suid_dumpable; ulimit -c",
    "sysrq": "cat /proc/sys/kernel/sysrq /proc/sys/kernel/kexec_load_disabled",
    "terminals": "ps -eo tty,comm | grep -v '^?' ; ls -l /proc/*/fd 2>/dev/null | grep -c ttyS0",
    "root": "dmsetup table sealift-root; findmnt -no FSTYPE /",
    "failed": "systemctl list-units --failed --no-legend --plain",
    "boot": "systemd-analyze time",
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    if os.geteuid() != 0:
        pytest.skip("needs root")
    choose_accelerator(build_tree(RECIPE, say=print), say=print)
    contained = ["unshare", "--mount", "--net", "--pid", "--fork", "--mount-proc", "--kill-child"]
    done = subprocess.run(  # noqa: PLW1510 -- its status is asserted
        [*contained, sys.executable, __file__, tmp_path_factory.mktemp("image")],
        capture_output=True,
        text=True,
        timeout=290,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    print(json.dumps(found, indent=1))
    return found
