"""Docker's API on its local socket, as far as the agents need it."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import TYPE_CHECKING, Any

from .wire import AgentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

NOT_FOUND = 404
SOCKET = "/var/run/docker.sock"
BACK_S = 20
"""A daemon that has died is started again by whoever keeps the host's services."""

VERSION = "v1.43"  # Docker 24; later ones still speak it


class NotThere(AgentError):
    """Docker knows nothing of that name."""


def _connect(timeout: float) -> socket.socket:
    """A connection to the daemon, which is waited for while it is started again."""
    deadline = time.monotonic() + BACK_S
    while True:
        there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        there.settimeout(timeout)
        try:
            there.connect(SOCKET)
        except (ConnectionRefusedError, FileNotFoundError):
            there.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        except OSError:
            there.close()
            raise
        else:
            return there


def call(
    method: str,
    path: str,
    body: dict[str, Any] | None = None,
    timeout: float = 120,
    accept: tuple[int, ...] = (200, 201, 204, 304),
) -> Any:
    """One request; the decoded JSON, or None for an empty answer. AgentError carries Docker's own words."""
    connection, response = request(method, path, body, timeout)
    try:
        data = response.read()
    finally:
        connection.close()
    if response.status not in accept:
        try:
            reason = json.loads(data)["message"]
        except (ValueError, KeyError, TypeError):
            reason = data.decode(errors="replace")[:500]
        kind = NotThere if response.status == NOT_FOUND else AgentError
        raise kind(f"Docker refuses {method} {path}: {reason}")
    return json.loads(data) if data else None


def request(
    method: str,
    path: str,
    body: dict[str, Any] | Iterable[bytes] | None = None,
    timeout: float = 120,
    headers: Mapping[str, str] | None = None,
) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
    """A request whose answer is read by the caller: the connection (to be closed) and the response.

    A question is asked again if the dockerd that has taken it dies: the next one answers it.
    """
    payload: Iterable[bytes] | bytes | None
    sent = dict(headers or {})
    if isinstance(body, dict):
        payload = json.dumps(body).encode()
        sent["Content-Type"] = "application/json"
    else:
        payload = body
    deadline = time.monotonic() + BACK_S
    while True:
        connection = http.client.HTTPConnection("localhost", timeout=timeout)
        try:
            connection.sock = _connect(timeout)
            connection.request(method, f"/{VERSION}{path}", payload, sent)
            return connection, connection.getresponse()
        except OSError as failure:
            connection.close()
            died = isinstance(failure, (ConnectionResetError, BrokenPipeError))
            if method != "GET" or not died or time.monotonic() > deadline:
                raise AgentError(f"Docker does not answer on {SOCKET}: {failure}") from failure
