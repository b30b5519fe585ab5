"""A script at work on a host: put there, started, told to end, its findings taken."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Self

from sealift.errors import CommandFailed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    import paramiko

    from sealift.host.ssh import Connection

START_TIMEOUT_S = 60
END_TIMEOUT_S = 150
WHERE = "/run/sealift/clients"


class Script:
    """Use as a context manager: entered when the script has said `ready`, ended by leaving.

    The script reads standard input to its end and then prints one JSON object, on one line. `beside` are modules that
    it imports.
    """

    def __init__(
        self, connection: Connection, package: str, path: str, *arguments: str, beside: Sequence[str] = ()
    ) -> None:
        self._connection = connection
        self._folder = files(package)
        self._path = path
        self._beside = beside
        self._arguments = arguments
        self._channel: paramiko.Channel | None = None
        self._output: paramiko.ChannelFile | None = None

    def __enter__(self) -> Self:
        name = self._path.rsplit("/", 1)[-1]
        for path in (*self._beside, self._path):
            content = self._folder.joinpath(path).read_bytes()
            self._connection.put(f"{WHERE}/{path.rsplit('/', 1)[-1]}", content)
        self._channel = channel = self._connection.open(["python3", f"{WHERE}/{name}", *self._arguments])
        channel.settimeout(START_TIMEOUT_S)
        self._output = channel.makefile("rb")
        line = self._output.readline().strip()
        if line != b"ready":
            raise CommandFailed(
                f"{name} did not start: {self._complaint() or line!r}", host=self._connection.name
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._channel is not None:
            self._channel.close()

    def end(self) -> dict[str, Any]:
        """Tell the script to end, and take what it has found."""
        if self._channel is None or self._output is None:
            raise CommandFailed(f"{self._path} was not started", host=self._connection.name)
        self._channel.settimeout(END_TIMEOUT_S)
        self._channel.shutdown_write()
        line = self._output.readline()
        if not line:
            raise CommandFailed(f"{self._path} broke: {self._complaint()}", host=self._connection.name)
        found: dict[str, Any] = json.loads(line)
        return found

    def _complaint(self) -> str:
        if self._channel is None:
            return ""
        return self._channel.makefile_stderr("rb").read().decode(errors="replace").strip()[-300:]
