"""An SSH server whose commands answer as they like: a host that means harm, over a real connection."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import paramiko

from sealift.host import ssh
from sealift.inventory import Host
from sealift.keys import make_ssh_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Answer = Callable[[paramiko.Channel, str], None]


ACCEPTED_S = 0.2


class Server(paramiko.ServerInterface):
    """Lets everybody in, and has `answer` called for each command and each forwarded port."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.forwarded: list[int] = []

    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.AUTH_SUCCESSFUL

    def get_allowed_auths(self, username: str) -> str:
        return "publickey"

    def check_channel_request(self, kind: str, chanid: int) -> int:
        return paramiko.OPEN_SUCCEEDED

    def check_channel_direct_tcpip_request(self, chanid: int, origin: object, destination: object) -> int:
        self.forwarded.append(chanid)
        return paramiko.OPEN_SUCCEEDED

    def check_channel_exec_request(self, channel: paramiko.Channel, command: bytes) -> bool:
        self._begin(channel, command.decode())
        return True

    def _begin(self, channel: paramiko.Channel, command: str) -> None:
        def answering() -> None:
            time.sleep(ACCEPTED_S)  # the request is answered first: a channel that ends before was refused
            with suppress(OSError, EOFError, paramiko.SSHException):
                self.answer(channel, command)

        threading.Thread(target=answering, daemon=True).start()


def _serve(listener: socket.socket, key: paramiko.PKey, answer: Answer) -> None:
    with suppress(OSError):
        peer, _ = listener.accept()
        transport = paramiko.Transport(peer)
        transport.add_server_key(key)
        server = Server(answer)
        transport.start_server(server=server)
        while transport.is_active():
            channel = transport.accept(0.5)
            if channel is not None and channel.chanid in server.forwarded:  # no command will come
                server._begin(channel, "")


@contextmanager
def hostile(folder: Path, answer: Answer) -> Iterator[ssh.Connection]:
    """A connection to a host that answers like that."""
    own, login = make_ssh_key(), make_ssh_key()
    (folder / "host").write_text(own.private)
    (folder / "login").write_text(login.private)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        key = paramiko.PKey.from_path(folder / "host")
        threading.Thread(target=_serve, args=(listener, key, answer), daemon=True).start()
        port = listener.getsockname()[1]
        host = Host(address="127.0.0.1", port=port, host_key=own.public, key_file=folder / "login")
        with ssh.connect("hostile", host) as connection:
            yield connection
