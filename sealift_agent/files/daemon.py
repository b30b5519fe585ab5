"""The receiving end of a migration's files: a daemon of rsync, which listens at the tunnel address.

It runs during one migration, with a password made for this migration. Each tree (writable layer, volume, bind mount,
log) is one of its modules.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..constants import SINGLE
from ..criu import DIES_WITH_US
from ..wire import AgentError, listen
from .enclosure import Enclosure

if TYPE_CHECKING:
    from collections.abc import Mapping

STOP_S = 5
"""Seconds that it may take to end."""


class Daemon:
    """The receiving end. `modules` maps a module's name to the directory or file that it fills.

    What is missing is made. A single file is written in its place, since a container may have it mounted.
    """

    def __init__(self, directory: Path, address: str, password: str, modules: Mapping[str, str]) -> None:
        with listen(address) as probe:
            self.port = probe.getsockname()[1]
        secrets = directory / "rsyncd.secrets"
        secrets.touch(mode=0o600)
        secrets.write_text(f"sealift:{password}\n")
        lines = [
            "use chroot = yes",
            "reverse lookup = no",
            "uid = 0",
            "gid = 0",
            "read only = no",
            "list = no",
            "auth users = sealift",
        ]
        lines += [f"secrets file = {secrets}", f"lock file = {directory}/rsyncd.lock"]
        # Links have names of our own. A host's path may have characters that mean something else in the settings.
        (places := directory / "modules").mkdir()
        single = {name: path for name, path in modules.items() if name.startswith(SINGLE)}
        for place in map(Path, single.values()):
            place.parent.mkdir(parents=True, exist_ok=True)
            place.touch()
        self._enclosure = Enclosure(directory, single, writable=True) if single else None
        for name, path in modules.items():
            if name not in single:
                Path(path).mkdir(parents=True, exist_ok=True)
            (places / name).symlink_to(
                self._enclosure.roots[name] if self._enclosure and name in single else path
            )
            lines += [f"[{name}]", f"path = {places / name}"]
        config = directory / "rsyncd.conf"
        config.write_text("\n".join(lines) + "\n")
        command = [
            *DIES_WITH_US,
            "rsync",
            "--daemon",
            "--no-detach",
            f"--config={config}",
            f"--address={address}",
        ]
        command += [f"--port={self.port}", f"--log-file={directory}/rsyncd.log"]
        start = functools.partial(
            subprocess.Popen[bytes], command, stdin=subprocess.DEVNULL, start_new_session=True
        )
        self.process = self._enclosure.run(start) if self._enclosure else start()
        self._wait_until_it_listens()

    def _wait_until_it_listens(self) -> None:
        """Wait until it listens.

        Another process may have taken the port, and rsync's client does not authenticate the server.
        """
        deadline = time.monotonic() + 20
        while self.process.poll() is None and time.monotonic() < deadline:
            if _listens(self.process.pid, self.port):
                return
            time.sleep(0.02)
        self.stop()
        raise AgentError("the rsync daemon did not start", "sync")

    def stop(self) -> None:
        """End it and its process for each connection. A silent connection would keep its process forever."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        if self._enclosure is not None:
            self._enclosure.close()


def _listens(pid: int, port: int) -> bool:
    """Whether a process has a socket that listens at this port (proc(5), net/tcp: state 0A)."""
    ours = set()
    with contextlib.suppress(OSError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                ours.add(str(entry.readlink()))
    with Path("/proc/net/tcp").open() as table:
        for line in itertools.islice(table, 1, None):
            _, local, _, state, *rest = line.split()
            at_port = state == "0A" and int(local.rpartition(":")[2], 16) == port
            if at_port and f"socket:[{rest[5]}]" in ours:
                return True
    return False
