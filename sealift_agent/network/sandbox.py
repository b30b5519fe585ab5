"""The restored container's network namespace. It is made, and filled by Docker, before the source freezes.

Without this, Docker would fill the namespace that CRIU makes, in the middle of the restore: runc calls a hook in the
bundle. The hook starts the Docker daemon's program again, only to send the namespace's path to the daemon through a
socket. Here the agent makes the namespace and sends its path, removes the hook from the bundle, and lets CRIU join the
namespace.
"""

from __future__ import annotations

import os
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import libc
from ..wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Callable

CLONE_NEWNET = 0x40000000
"""linux/sched.h"""

HOOK = "libnetwork-setkey"
EXEC_ROOT = "-exec-root="
DEFAULT_EXEC_ROOT = "/run/docker"
"""The hook's name and option in Docker 17 to 26 (moby, libnetwork/sandbox_externalkey_unix.go)."""

SUCCESS = b"success"
ANSWER_TIMEOUT_S = 60


class Sandbox:
    """A network namespace that exists while this object is open or a process is in it."""

    def __init__(self, sysctls: dict[str, str]) -> None:
        self.descriptor = -1
        failures: list[Exception] = []
        maker = threading.Thread(target=_caught, args=(lambda: self._make(sysctls), failures))
        maker.start()
        maker.join()
        if failures:
            self.close()
            raise AgentError(f"no network namespace could be made: {failures[0]}", "restore") from failures[0]
        self.path = f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def _make(self, sysctls: dict[str, str]) -> None:
        """Runs in a thread of its own, since only that thread may enter the namespace."""
        libc.call("unshare", CLONE_NEWNET)
        self.descriptor = os.open(f"/proc/self/task/{threading.get_native_id()}/ns/net", os.O_RDONLY)
        for name, value in sysctls.items():
            (Path("/proc/sys") / name.replace(".", "/")).write_text(value)

    def close(self) -> None:
        """Close the namespace's descriptor."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


def _caught(work: Callable[[], None], failures: list[Exception]) -> None:
    try:
        work()
    except OSError as failure:
        failures.append(failure)


def fill(spec: dict[str, Any]) -> Sandbox | None:
    """Make the namespace and let Docker fill it. The hook that would do so is removed from the bundle's `spec`.

    Returns None, with `spec` unchanged, if the bundle has no such hook or names a namespace: another version of Docker.
    """
    hooks = (spec.get("hooks") or {}).get("prestart") or []
    mine = [hook for hook in hooks if (hook.get("args") or [""])[0] == HOOK]
    fresh = [n for n in spec["linux"]["namespaces"] if n["type"] == "network" and not n.get("path")]
    if len(mine) != 1 or len(fresh) != 1 or len(mine[0]["args"]) < 3:
        return None
    *options, container, controller = mine[0]["args"][1:]
    root = next((word[len(EXEC_ROOT) :] for word in options if word.startswith(EXEC_ROOT)), DEFAULT_EXEC_ROOT)
    sysctls = spec["linux"].get("sysctl") or {}
    sandbox = Sandbox({name: value for name, value in sysctls.items() if name.startswith("net.")})
    try:
        _set_key(f"{root}/libnetwork/{controller}.sock", container, sandbox.path)
    except (OSError, AgentError) as failure:
        sandbox.close()
        raise AgentError(f"Docker does not fill the container's network: {failure}", "restore") from failure
    hooks.remove(mine[0])
    return sandbox


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
