"""SSH to a host of the inventory: its pinned host key, one key to log in with, commands as argument lists."""

from __future__ import annotations

import base64
import io
import logging
import shlex
import socket
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, Self

import paramiko

from sealift.errors import CommandFailed, HostUnreachable, UnusableInput
from sealift.files import read_bounded
from sealift.process import Completed, failure

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    from sealift.inventory import Host

CONNECT_TIMEOUT_S = 10
KEEPALIVE_S = 5
LOST_MS = 20_000
"""A host that acknowledges nothing for so long counts as lost. Otherwise TCP would wait for a quarter of an hour."""

WINDOW_BYTES = 1 << 21
CHUNK_BYTES = 1 << 18
ANSWER_LIMIT = 1 << 20
KEY_LIMIT = 1 << 16
POLL_S = 1
OUTPUT_LIMIT = 64 << 20
"""Bytes that one command may print."""


# The errors here say what paramiko logs. Its own lines ("Secsh channel 1 open FAILED") would appear between a command's
# lines: Python's handler of last resort or the root logger's handlers, which Prefect sets up, would print them.
if logging.getLogger("paramiko").level == logging.NOTSET:
    logging.getLogger("paramiko").setLevel(logging.CRITICAL)


class Connection:
    """An SSH connection to one host. A context manager; several commands may run on it at once."""

    def __init__(self, name: str, host: Host, client: paramiko.SSHClient) -> None:
        self.name = name
        self.host = host
        self.client = client

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def is_alive(self) -> bool:
        """Whether the connection still exists, as far as this side knows."""
        transport = self.client.get_transport()
        return transport is not None and transport.is_active()

    def close(self) -> None:
        """End the connection and every command on it."""
        self.client.close()

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout_s: float = 60,
        stdin: bytes = b"",
        check: bool = True,
        remedy: str | None = None,
    ) -> Completed:
        """Run a command to its end.

        Raises CommandFailed for an exit status other than 0 and for more than OUTPUT_LIMIT bytes of output, and
        HostUnreachable if it does not end within `timeout_s` seconds.
        """
        return self.feed(argv, io.BytesIO(stdin), timeout_s=timeout_s, check=check, remedy=remedy)

    def feed(
        self,
        argv: Sequence[str],
        stdin: BinaryIO,
        *,
        timeout_s: float = 60,
        check: bool = True,
        remedy: str | None = None,
    ) -> Completed:
        """Run a command whose standard input is a file of this machine. Raises the same errors as `run`.

        The timeout begins when the whole file has been sent.
        """
        channel = self.open(argv)
        try:
            channel.settimeout(timeout_s)
            try:
                while chunk := stdin.read(CHUNK_BYTES):
                    channel.sendall(chunk)
                end_input(channel)
            except OSError:
                if not channel.exit_status_ready():
                    raise  # otherwise the command ended before it had read all, and its status is the answer
            deadline = time.monotonic() + timeout_s
            stdout, stderr = _outputs(channel, deadline)
            if not channel.status_event.wait(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            status = channel.recv_exit_status()
        except _TooMuch as endless:
            raise CommandFailed(
                f"`{shlex.join(argv)[:200]}` printed more than {OUTPUT_LIMIT >> 20} MiB", host=self.name
            ) from endless
        except (TimeoutError, OSError, paramiko.SSHException) as silent:
            raise HostUnreachable(
                f"`{shlex.join(argv)[:200]}` got no answer in {timeout_s:g} s", host=self.name
            ) from silent
        finally:
            channel.close()
        done = Completed(status, _text(stdout), _text(stderr))
        if check and status != 0:
            raise failure(list(argv), done, host=self.name, remedy=remedy)
        return done

    def open(self, argv: Sequence[str]) -> paramiko.Channel:
        """Start a command and return the channel to it."""
        transport = self.client.get_transport()
        if transport is None or not transport.is_active():
            raise HostUnreachable("the SSH connection was lost", host=self.name)
        try:
            channel = transport.open_session(timeout=CONNECT_TIMEOUT_S)
            channel.exec_command(shlex.join(argv))
        except (paramiko.SSHException, OSError, EOFError) as lost:
            raise HostUnreachable(f"the SSH connection was lost: {lost}", host=self.name) from lost
        return channel

    def put(self, path: str, content: bytes, *, mode: int = 0o644) -> None:
        """Write a file, whole or not at all."""
        # The temporary name is unique, since several migrations may write the same file at once.
        script = 'umask 077; mkdir -p "${1%/*}" && new=$1.$$.new && cat >"$new" && chmod "$2" "$new" && mv "$new" "$1"'
        self.run(["sh", "-c", script, "put", path, f"{mode:o}"], stdin=content)


class _TooMuch(Exception):
    """A command printed more than OUTPUT_LIMIT bytes."""


def _outputs(channel: paramiko.Channel, deadline: float) -> tuple[bytes, bytes]:
    """Read both outputs of a command to their ends. The host may send too much, or too slowly."""
    said, complained = bytearray(), bytearray()
    for receive, kept in ((channel.recv, said), (channel.recv_stderr, complained)):
        while True:
            left = deadline - time.monotonic()
            channel.settimeout(min(max(left, 0.001), POLL_S))
            try:
                piece = receive(CHUNK_BYTES)
            except TimeoutError:
                if left <= 0:
                    raise
                # Both outputs share one window. If one is not read, the other stops.
                while channel.recv_stderr_ready():
                    complained += channel.recv_stderr(CHUNK_BYTES)
                piece = None
            if max(len(said), len(complained)) > OUTPUT_LIMIT:
                raise _TooMuch
            if piece == b"":
                break
            kept.extend(piece or b"")
    return bytes(said), bytes(complained)


def end_input(channel: paramiko.Channel) -> None:
    """Tell a command that its standard input ends.

    Unlike `Channel.shutdown_write`, this keeps the channel's lock until the message has been sent. Otherwise the
    command may end just then, and paramiko sends its "close" first. OpenSSH then ends the whole connection.
    """
    with channel.lock:
        message = channel._send_eof()  # type: ignore[attr-defined]  # noqa: SLF001 - the lock is the point
        if message is not None and channel.transport is not None:
            channel.transport._send_user_message(message)  # type: ignore[attr-defined]  # noqa: SLF001 - as above


def connect(name: str, host: Host, *, patience_s: float = 0) -> Connection:
    """Connect to a host of the inventory.

    Raises HostUnreachable if it does not answer within `patience_s` seconds, has another key than the pinned one, or
    refuses the login.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return _connect(name, host)
        except HostUnreachable as unreachable:
            if is_final(unreachable) or time.monotonic() >= deadline:
                raise
            time.sleep(0.2)


_FINAL = (paramiko.BadHostKeyException, paramiko.AuthenticationException)
"""Errors that another attempt would not change."""


def is_final(unreachable: HostUnreachable) -> bool:
    """Whether another attempt is useless: the host has another key, or refuses the login."""
    return unreachable.__cause__.__class__ in _FINAL


def is_another(unreachable: HostUnreachable) -> bool:
    """Whether a host did answer, but with another key than the pinned one."""
    return isinstance(unreachable.__cause__, paramiko.BadHostKeyException)


def _connect(name: str, host: Host) -> Connection:
    if host.host_key is None:
        raise UnusableInput(
            "nobody has verified its SSH host key yet",
            host=name,
            step="connect",
            remedy=f"`sealift attest {name}` does",
        )
    client = paramiko.SSHClient()
    kind, key = _parse_host_key(name, host.host_key)
    entry = host.address if host.port == paramiko.config.SSH_PORT else f"[{host.address}]:{host.port}"
    client.get_host_keys().add(entry, kind, key)
    client.set_missing_host_key_policy(paramiko.RejectPolicy())
    return log_in(name, host, client)


def log_in(name: str, host: Host, client: paramiko.SSHClient) -> Connection:
    """Log in with a client that has the host keys that it accepts. Raises the same errors as `connect`."""
    try:
        client.connect(
            host.address,
            host.port,
            host.user,
            pkey=_read_key(name, host),
            timeout=CONNECT_TIMEOUT_S,
            banner_timeout=CONNECT_TIMEOUT_S,
            auth_timeout=CONNECT_TIMEOUT_S,
            allow_agent=False,
            look_for_keys=False,
        )
    except paramiko.BadHostKeyException as other:
        client.close()
        raise HostUnreachable(
            f"{host.address}:{host.port} shows another SSH host key than the pinned one",
            host=name,
            step="connect",
            remedy="Somebody may be in between. If the host was set up anew, put its new key into the inventory",
        ) from other
    except paramiko.AuthenticationException as refused:
        client.close()
        raise HostUnreachable(
            f"{host.user}@{host.address} does not accept the key {host.key_file}",
            host=name,
            step="connect",
            remedy="Put its public half into the host's authorized_keys, or name another key_file in the inventory",
        ) from refused
    except (OSError, paramiko.SSHException, EOFError) as silent:
        client.close()
        raise HostUnreachable(
            f"no SSH answer from {host.address}:{host.port} ({silent or type(silent).__name__})",
            host=name,
            step="connect",
            remedy="Check that the host is up and its address in the inventory is right",
        ) from silent
    transport = client.get_transport()
    if transport is not None:
        transport.set_keepalive(KEEPALIVE_S)
        transport.default_window_size = WINDOW_BYTES
        if isinstance(transport.sock, socket.socket):
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            transport.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, LOST_MS)
    return Connection(name, host, client)


def ask(connection: Connection, port: int, line: bytes, *, timeout_s: float) -> bytes:
    """Send a line to a port of a host's loopback interface. Returns the line that it answers."""
    transport = connection.client.get_transport()
    try:
        if transport is None:
            raise EOFError
        loopback = ("127.0.0.1", port)
        channel = transport.open_channel("direct-tcpip", loopback, loopback, timeout=timeout_s)
        with channel:
            channel.settimeout(timeout_s)
            channel.sendall(line + b"\n")
            answer = _read_line(channel, time.monotonic() + timeout_s)
    except (paramiko.SSHException, OSError, EOFError) as silent:
        raise HostUnreachable(
            f"nobody answers at its port {port}: {silent or type(silent).__name__}",
            host=connection.name,
            remedy="Only a VM of an image that Sealift built answers there; it may still be starting",
        ) from silent
    if not answer.endswith(b"\n"):
        raise HostUnreachable(f"its answer at port {port} broke off", host=connection.name)
    return answer


def _read_line(channel: paramiko.Channel, deadline: float) -> bytes:
    found = bytearray()
    while b"\n" not in found and len(found) < ANSWER_LIMIT:
        channel.settimeout(max(0.001, deadline - time.monotonic()))
        piece = channel.recv(CHUNK_BYTES)
        if not piece:
            break
        found += piece
    line, end, _ = bytes(found[:ANSWER_LIMIT]).partition(b"\n")
    return line + end


@contextmanager
def connected(name: str, host: Host) -> Iterator[Connection]:
    """A connection for the length of a block."""
    with connect(name, host) as connection:
        yield connection


def _parse_host_key(name: str, text: str) -> tuple[str, paramiko.PKey]:
    try:
        kind, blob, *_ = text.split()
        return kind, paramiko.PKey.from_type_string(kind, base64.b64decode(blob, validate=True))
    except Exception as unreadable:
        raise UnusableInput(
            "its host_key in the inventory is not an SSH public key",
            host=name,
            step="connect",
            remedy="It should read like `ssh-ed25519 AAAA…`, as in the host's ssh_host_ed25519_key.pub",
        ) from unreadable


def _read_key(name: str, host: Host) -> paramiko.PKey:
    try:
        read_bounded(host.key_file, KEY_LIMIT)  # reading a pipe would block
        return paramiko.PKey.from_path(host.key_file)
    except Exception as unreadable:
        raise UnusableInput(
            f"the key file {host.key_file} can't be used: {unreadable or type(unreadable).__name__}",
            host=name,
            step="connect",
            remedy="Name an unencrypted private key as key_file in the inventory",
        ) from unreadable


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode(errors="replace")
