"""Conversations with what works in the background: sessions of sshd, logs, jobs at a time."""

from __future__ import annotations

import re
import subprocess
import time

from talk import Conversation, Stream, written

END_S = 140


class Shell(Conversation):
    """A login by SSH, at a terminal or without one: the shell counts, and says the turn's number."""

    def __init__(self, address: str, port: int, user: str, terminal: bool) -> None:
        self.process = subprocess.Popen(
            [
                *("ssh", "-tt" if terminal else "-T", "-p", str(port), "-o", "StrictHostKeyChecking=no"),
                *("-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR"),
                f"{user}@{address}",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def begin(self) -> None:
        """Begin to count."""
        self._say("stty -echo 2>/dev/null; PS1=; PS2=; n=0; echo begun")
        for _ in range(50):
            line = self._line()  # a prompt may stand before it
            if line.endswith("begun") and "echo" not in line:
                return
        raise OSError("the shell does not begin")

    def turn(self, number: int) -> str | None:
        """Count."""
        self._say(f"n=$((n + 1)); echo at $n of {number}")
        line = self._line()
        while "at " not in line:
            line = self._line()
        return None if f"at {number} of {number}" in line else f"expected {number}, got {line!r}"

    def _say(self, text: str) -> None:
        assert self.process.stdin is not None  # noqa: S101 - it is a pipe
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()

    def _line(self) -> str:
        assert self.process.stdout is not None  # noqa: S101 - it is a pipe
        line = self.process.stdout.readline()
        if not line:
            raise OSError(f"the session ended with status {self.process.wait()}")
        return line.decode(errors="replace").strip()

    def close(self) -> None:
        """End the session."""
        self.process.kill()
        self.process.wait()


class Journal(Conversation):
    """Messages to a syslog daemon over one TCP connection. Another port serves the file that they are written to."""

    def __init__(self, address: str, port: int, web: int, path: str) -> None:
        self.address, self.web, self.path = address, web, path
        self.stream = Stream(address, port)

    def begin(self) -> None:
        """Wait until the file can be read."""
        written(self.address, self.web, self.path)

    def turn(self, number: int) -> str | None:
        """Send a message."""
        self.stream.send(f"<13>Jan  1 00:00:00 client compat: message {number}.\n".encode())
        return None

    def end(self, number: int) -> list[str]:
        """All messages were written, in their order."""
        deadline = time.monotonic() + 20
        while True:
            found = re.findall(r"message (\d+)\.", written(self.address, self.web, self.path))
            found = found[len(found) - found[::-1].index("1") - 1 :] if "1" in found else found
            if found == [str(each) for each in range(1, number + 1)]:
                return []
            if time.monotonic() > deadline:
                return [f"of {number} messages {len(found)} were written; the last are {found[-3:]}"]
            time.sleep(0.5)

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()


class Cron(Conversation):
    """A job of each minute writes a line. At the end the lines are of minutes in a row, each once."""

    pause_s = 0.2

    def __init__(self, address: str, port: int, path: str) -> None:
        self.address, self.port, self.path = address, port, path
        self.known: list[str] = []

    def turn(self, number: int) -> str | None:  # noqa: ARG002 - the job counts by itself
        """Read the lines: those that were there are there."""
        lines = written(self.address, self.port, self.path).split()
        if lines[: len(self.known)] != self.known:
            return f"expected {self.known}, got {lines}"
        self.known = lines
        return None

    def end(self, number: int) -> list[str]:
        """Wait for two jobs after the last move."""
        enough = len(self.known) + 2
        deadline = time.monotonic() + END_S
        while len(self.known) < enough:
            self.turn(number)
            if time.monotonic() > deadline:
                return [f"the job is not run any more: {self.known}"]
            time.sleep(0.5)
        minutes = [int(each) for each in self.known]
        expected = list(range(minutes[0], minutes[0] + len(minutes)))
        return [] if minutes == expected else [f"expected {expected}, got {minutes}"]
