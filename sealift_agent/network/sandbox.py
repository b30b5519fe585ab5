"""The restored container's network namespace. It is made, and filled by Docker, before the source freezes.

Up to version 26, Docker would fill the namespace that CRIU makes, in the middle of the restore: runc calls a hook in
the bundle. The hook starts the Docker daemon's program again, only to send the namespace's path to the daemon through a
socket. Here the agent makes the namespace and sends its path, removes the hook from the bundle, and lets CRIU join the
namespace. From version 27 on, the daemon fills it between the runtime's `create` and `start`: see
`destination.stand_in`.

The namespace answers nobody while Docker fills it: its kernel would refuse connections that belong to the container,
which still runs at the source. Once its bridge port is detached, nothing reaches the namespace, and `open` ends this.
"""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..wire import AgentError
from . import inside

if TYPE_CHECKING:
    from collections.abc import Mapping

HOOK = "libnetwork-setkey"
EXEC_ROOT = "-exec-root="
DEFAULT_EXEC_ROOT = "/run/docker"
"""The hook's name and option in Docker 17 to 26 (moby, libnetwork/sandbox_externalkey_unix.go)."""

ARP_IGNORE = Path("/proc/sys/net/ipv4/conf/all/arp_ignore")
NO_ANSWER = "8"
CONF6 = Path("/proc/sys/net/ipv6/conf")
"""Documentation/networking/ip-sysctl.rst."""

CLOSED = "sealift-closed"
"""The table of nftables that drops what arrives."""

SUCCESS = b"success"
ANSWER_TIMEOUT_S = 60


class Sandbox:
    """A network namespace that exists while this object is open or a process is in it."""

    def __init__(self, sysctls: dict[str, str]) -> None:
        self._sysctls = sysctls
        try:
            self.descriptor, self._before = inside.run_in_new(lambda: _closed(sysctls))
        except OSError as failure:
            raise AgentError(f"no network namespace could be made: {failure}", "restore") from failure
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def open(self) -> None:
        """Its kernel answers again. Its bridge port has to be detached by now.

        The container's settings are made once more: Docker has made some of its own (it switches IPv6 off on an
        interface that has none), and runc makes the container's after them.
        """
        try:
            inside.run(self.path, self._open)
        except OSError as failure:
            raise AgentError(f"the network namespace stays closed: {failure}", "restore") from failure

    def _open(self) -> None:
        configure(self._sysctls, complete=True)
        ARP_IGNORE.write_text(self._before.arp_ignore)
        _nft(f"delete table inet {CLOSED}")
        if self._before.accept_dad is not None:
            for interface in CONF6.iterdir():
                asks = interface / "accept_dad"
                if (
                    interface.name != "all" and asks.read_text().strip() == "0"
                ):  # the loopback's is less, and its own
                    asks.write_text(self._before.accept_dad)

    def close(self) -> None:
        """Close the namespace's descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


class _Before(NamedTuple):
    """Settings of a namespace before it was closed. `accept_dad` is None if the kernel has no IPv6."""

    arp_ignore: str
    accept_dad: str | None


def _closed(sysctls: dict[str, str]) -> _Before:
    """Set the namespace of the calling thread up, so that it answers nobody. Returns its settings before.

    An address of IPv6 can be bound only once the kernel has asked for a second whether somebody else has it. Here it is
    the container's own, which still runs at the source, so nothing is asked.
    """
    configure(sysctls, complete=False)
    accept_dad = None
    if CONF6.exists():
        asks = CONF6 / "default/accept_dad"
        accept_dad = asks.read_text()
        asks.write_text("0")
    before = _Before(ARP_IGNORE.read_text(), accept_dad)
    ARP_IGNORE.write_text(NO_ANSWER)
    _nft(
        f"add table inet {CLOSED}\n"
        f"add chain inet {CLOSED} arriving {{ type filter hook prerouting priority raw; policy drop; }}"
    )
    return before


def configure(sysctls: Mapping[str, str], *, complete: bool) -> None:
    """Make these settings in the namespace of the calling thread.

    Unless it is `complete`, those of interfaces that are not there yet are left out.
    """
    for name, value in sysctls.items():
        place = Path("/proc/sys") / name.replace(".", "/")
        if complete or place.exists():
            place.write_text(value)


def make(spec: dict[str, Any]) -> Sandbox:
    """Make the namespace for a bundle's `spec`. AgentError if the container shares somebody else's."""
    fresh = [n for n in spec["linux"]["namespaces"] if n["type"] == "network" and not n.get("path")]
    if len(fresh) != 1:
        raise AgentError("the container has no network namespace of its own", "restore")
    sysctls = spec["linux"].get("sysctl") or {}
    return Sandbox({name: value for name, value in sysctls.items() if name.startswith("net.")})


def fill_by_hook(spec: dict[str, Any], sandbox: Sandbox) -> bool:
    """Let Docker fill the namespace as the bundle's hook would, and remove the hook from the bundle's `spec`.

    Returns False, with `spec` unchanged, if the bundle has no such hook: from Docker 27 on.
    """
    hooks = (spec.get("hooks") or {}).get("prestart") or []
    mine = [hook for hook in hooks if (hook.get("args") or [""])[0] == HOOK]
    if len(mine) != 1 or len(mine[0]["args"]) < 3:
        return False
    *options, container, controller = mine[0]["args"][1:]
    root = next((word[len(EXEC_ROOT) :] for word in options if word.startswith(EXEC_ROOT)), DEFAULT_EXEC_ROOT)
    try:
        _set_key(f"{root}/libnetwork/{controller}.sock", container, sandbox.path)
    except (OSError, AgentError) as failure:
        raise AgentError(f"Docker does not fill the container's network: {failure}", "restore") from failure
    hooks.remove(mine[0])
    return True


def _nft(words: str) -> None:
    """Run nft in the namespace of the calling thread. OSError if it fails."""
    done = subprocess.run(["nft", "-f", "-"], input=f"{words}\n", capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise OSError(f"nft: {' '.join(done.stderr.split())[:200]}")


def _set_key(path: str, container: str, namespace: str) -> None:
    """Send what the hook sends to the daemon: one JSON object. The answer is one word or an error."""
    message = b'{"ContainerID":"%s","Key":"%s"}\n' % (container.encode(), namespace.encode())
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as daemon:
        daemon.settimeout(ANSWER_TIMEOUT_S)
        daemon.connect(path)
        daemon.sendall(message)
        answer = daemon.recv(1024)
    if answer != SUCCESS:
        raise AgentError(answer.decode(errors="replace") or "no answer")
