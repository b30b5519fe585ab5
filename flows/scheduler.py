"""Prefect under a command line: its settings, before it is imported, and an end for what it would leave or wait for.

Where no API is configured, Prefect starts a server for the length of the process. Were that process killed, the server
would stay for ever: a watcher, whose input ends with the process, ends it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

MARK = "SEALIFT_COMMAND_LINE"
"""In the environment of what a command line starts: the process id of the command line."""

SETTINGS = {
    "PREFECT_LOGGING_LEVEL": "CRITICAL",  # what it has to say is in the report and in the UI
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    # The first one ever makes a database, which takes longer than the 20 seconds that Prefect allows.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    # With five, an API that has gone away holds up the end of a migration for minutes; so for some twenty seconds.
    "PREFECT_CLIENT_MAX_RETRIES": "2",
}

SETTINGS_FILES = ("prefect.toml", "pyproject.toml", ".env")
"""Where Prefect looks for settings in the working directory, besides its profiles (prefect/settings)."""

SETTINGS_LIMIT = 1 << 20
"""Bytes of such a file that are looked at."""

_gone = threading.Event()


def is_configured() -> bool:
    """Whether a Prefect API is configured: then migrations are flow runs there.

    Prefect itself is asked, which takes seconds, only where one of its files of settings names it.
    """
    if "PREFECT_API_URL" in os.environ:
        return bool(os.environ["PREFECT_API_URL"])
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    profiles = Path(os.environ.get("PREFECT_PROFILES_PATH") or home / "profiles.toml")
    if not any(map(_names_prefect, (profiles, *map(Path, SETTINGS_FILES)))):
        return False
    from prefect.settings import PREFECT_API_URL  # noqa: PLC0415 - see above

    return bool(PREFECT_API_URL.value())


def _names_prefect(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return b"prefect" in file.read(SETTINGS_LIMIT).lower()
    except OSError:
        return False


def set_up() -> None:
    """Prepare for Prefect. To be called before it is imported."""
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    if os.environ.get("PREFECT_API_URL") or MARK in os.environ:
        return
    os.environ[MARK] = str(os.getpid())
    # Its input is a pipe whose other end only this process has: it ends when this process does, whatever ends it.
    subprocess.Popen(
        [sys.executable, "-S", "-E", __file__, os.environ[MARK]],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def give_up() -> None:
    """Prefect's API has gone away: `leave` is not to wait for it."""
    _gone.set()


def leave(status: int) -> None:
    """End the process now if the API has gone away; else return.

    Prefect would try for minutes to deliver to it what it was not told of tasks, each of them apart.
    """
    if _gone.is_set():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def servers(command_line: str) -> list[int]:
    """The Prefect servers that a command line has started and that still run; nobody else's who says that he is one."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if entry.stat().st_uid != os.geteuid() or not (entry / "ns/mnt").samefile("/proc/self/ns/mnt"):
                continue
            if b"prefect.server" not in (entry / "cmdline").read_bytes():
                continue
            if f"{MARK}={command_line}".encode() in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def main(command_line: str) -> None:
    """Wait for the command line's end, then end its servers."""
    sys.stdin.read()
    for server in servers(command_line):
        with suppress(ProcessLookupError):
            os.kill(server, signal.SIGTERM)


if __name__ == "__main__":
    main(sys.argv[1])
