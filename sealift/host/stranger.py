"""SSH to a host whose key is not verified yet. Its evidence has to contain this key."""

from __future__ import annotations

import hmac
import time
from typing import TYPE_CHECKING

import paramiko

from sealift.errors import EvidenceRejected, HostUnreachable
from sealift.host import ssh

if TYPE_CHECKING:
    from sealift.inventory import Host


class Stranger:
    """A host whose SSH host key is not verified yet. The only thing it may be asked is who it is.

    `accept` compares the key with the verified one, and returns a `Connection`, which can do everything else.
    """

    def __init__(self, connection: ssh.Connection, shown_key: str) -> None:
        self._connection = connection
        self.shown_key = shown_key

    def ask(self, port: int, line: bytes, *, timeout_s: float) -> bytes:
        """Send a line to a port of its loopback interface. Returns the line that it answers."""
        return ssh.ask(self._connection, port, line, timeout_s=timeout_s)

    def accept(self, verified_key: str) -> ssh.Connection:
        """The connection, if it was made with the verified key. Otherwise raises EvidenceRejected."""
        if not hmac.compare_digest(self.shown_key.encode(), verified_key.encode()):
            raise EvidenceRejected(
                "the SSH host key that was verified is not the one that this connection was made with",
                host=self._connection.name,
                step="attest",
                reasons=("ssh_host_key",),
            )
        self._connection.host = self._connection.host.model_copy(update={"host_key": verified_key})
        return self._connection

    def close(self) -> None:
        """End the connection."""
        self._connection.close()


def meet(name: str, host: Host, *, patience_s: float = 0) -> Stranger:
    """Connect to a host whose key is not known, and remember the key that it shows. Raises the errors of `connect`."""
    deadline = time.monotonic() + patience_s
    while True:
        client = paramiko.SSHClient()
        shown = _Remember()
        client.set_missing_host_key_policy(shown)
        try:
            return Stranger(ssh.log_in(name, host, client), shown.key)
        except HostUnreachable as unreachable:
            if ssh.is_final(unreachable) or time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


class _Remember(paramiko.MissingHostKeyPolicy):
    """Accepts any key, since `Stranger` can ask only one question."""

    def __init__(self) -> None:
        self.key = ""

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:  # noqa: ARG002 - paramiko's signature
        self.key = f"{key.get_name()} {key.get_base64()}"
