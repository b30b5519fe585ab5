"""What the messages of CRIU, runc, containerd and Docker mean for an operator, and what to do about it.

A failed cutover says what one of them said. Where that is known to have one cause, the cause is said first, with the
command that shows more; the message itself stays, so that it can be searched for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Cause:
    """`said` is searched for in a message; `means` and `remedy` are sentences without a full stop, about the host."""

    said: re.Pattern[str]
    means: str
    remedy: str


def _cause(said: str, means: str, remedy: str) -> Cause:
    return Cause(re.compile(said, re.IGNORECASE), means, remedy)


CAUSES = (
    # containerd's ttrpc and gRPC clients, when the other end dies in the middle of a call.
    _cause(
        r"error reading from server: EOF|ttrpc: closed|transport is closing",
        "containerd, or its shim, ended in the middle",
        "`journalctl -u containerd` there tells why. Once it runs again, migrate again",
    ),
    # sealift_agent/docker_api.py
    _cause(
        r"Docker does not answer",
        "its Docker does not run",
        "`systemctl status docker` there tells why. Once it runs again, migrate again",
    ),
    # errno(3), as all of them print it
    _cause(
        r"No space left on device|Disk quota exceeded",
        "a file system there is full",
        "`df -h` and `df -i` there show which. Free space in it, then migrate again",
    ),
    _cause(
        r"Cannot allocate memory|Out of memory",
        "it has too little free memory, or a limit of the container is too low",
        "`free -m` and `dmesg` there show which. Free memory or raise the limit, then migrate again",
    ),
    # criu/page-xfer.c: the page server at the destination has ended
    _cause(
        r"page-xfer: Can't (write|send).*(Broken pipe|Connection reset)",
        "the destination took no more pages, most likely because a file system there is full",
        "`df -h /run/sealift/dumps` at the destination shows it: free space or memory there, then migrate again",
    ),
    # criu/sk-inet.c
    _cause(
        r"Can't bind inet socket.*(Address already in use|Cannot assign requested address)",
        "an address that the container listens on is taken there, or missing",
        "`ss -tulpn` and `ip address` there show which. Free it, then migrate again",
    ),
    # criu/files-reg.c
    _cause(
        r"File .* has bad (size|mode|build-ID)|Can't open file .*: No such file",
        "a file that a process has open is not the same there as at the source",
        "Something besides the container writes it, or it is not in the image, a volume or a bind mount. `sealift "
        "check` lists the files; put that right, then migrate again",
    ),
    # Of the agents: who watches CRIU's progress gives it up
    _cause(
        r"CRIU has stood still",
        "CRIU waited for something that did not come",
        "Migrate again. If it stands still again, `sealift check` may name a process that cannot be traced",
    ),
    # criu/apparmor.c, and the kernel's answer to a transition that a profile does not allow
    _cause(
        r"apparmor",
        "AppArmor did not allow it",
        "`dmesg | grep apparmor` there names the profile. Load the source's profile there, then migrate again",
    ),
)
"""The first that is found counts."""


def explain(message: str, host: str, otherwise: str) -> tuple[str, str]:
    """The message with its cause before it, and what to do. One that is not known stays as it is: `otherwise`."""
    for cause in CAUSES:
        if cause.said.search(message):
            return f"{cause.means} ({message})", cause.remedy
    return message, f"{otherwise} `journalctl -u docker -u containerd` on {host} may tell more"
