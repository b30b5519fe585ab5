"""The source's own way to the destination: SSH with a key for the time of the measurements, one connection kept open.

The peers' scripts go over the underlay, without a tunnel: that is how they are run, and it spares them a second cipher.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.testbed import DESTINATION, SOURCE

if TYPE_CHECKING:
    from benchmarks.testbed import Testbed

FOLDER = "/run/sealift/peer"
CONFIG = f"{FOLDER}/ssh/config"
PEER = f"ssh -F {CONFIG} peer"
RSYNC = (
    f"rsync --archive --hard-links --sparse --numeric-ids --whole-file --stats --no-h -e 'ssh -F {CONFIG}'"
)
MARK = "sealift-bench"

OPEN = """
mkdir -p "$1"; mountpoint -q "$1" || mount -t tmpfs -o size=90%,mode=700 sealift-peer "$1"
mkdir -p "$1/ssh"; [ -e "$1/ssh/key" ] || ssh-keygen -q -t ed25519 -N '' -C "$2" -f "$1/ssh/key"
printf '%s\\n' "$3" >"$1/ssh/known_hosts"; printf '%s\\n' "$4" >"$1/ssh/config"; cat "$1/ssh/key.pub"
"""
TRUST = """
mkdir -p "$1"; mountpoint -q "$1" || mount -t tmpfs -o size=90%,mode=700 sealift-peer "$1"
grep -qxF "$2" /root/.ssh/authorized_keys || printf '%s\\n' "$2" >>/root/.ssh/authorized_keys
"""
CLOSE = """
[ -e "$1/ssh/config" ] && ssh -F "$1/ssh/config" -O exit peer 2>/dev/null || true
sed -i "/ $2\\$/d" /root/.ssh/authorized_keys
! mountpoint -q "$1" || umount "$1"
"""


def open_path(testbed: Testbed) -> None:
    """Make both hosts ready for scripts that copy from one to the other; images rest on tmpfs at both.

    It is closed with the testbed: no key of the source's is left at the destination.
    """
    if close_path not in testbed.ends:
        testbed.ends.append(close_path)
    host = testbed.inventory.host(DESTINATION)
    known = (
        f"{host.address} {host.host_key}"
        if host.port == 22
        else (f"[{host.address}]:{host.port} {host.host_key}")
    )
    config = (
        f"Host peer\n HostName {host.address}\n Port {host.port}\n User {host.user}\n"
        f" IdentityFile {FOLDER}/ssh/key\n UserKnownHostsFile {FOLDER}/ssh/known_hosts\n"
        " StrictHostKeyChecking yes\n BatchMode yes\n"
        f" ControlMaster auto\n ControlPath {FOLDER}/ssh/master\n ControlPersist 300\n"
    )
    key = testbed.sh(SOURCE, OPEN, FOLDER, MARK, known, config)
    testbed.sh(DESTINATION, TRUST, FOLDER, key)
    # A master that stays in the background must not hold on to this command's output.
    testbed.sh(SOURCE, f"{PEER} true </dev/null >/dev/null 2>&1")


def close_path(testbed: Testbed) -> None:
    """Take it all back."""
    for host in (SOURCE, DESTINATION):
        testbed.sh(host, CLOSE, FOLDER, MARK)
