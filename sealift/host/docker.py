"""Docker on a host, through docker-py over the pinned SSH connection."""

from __future__ import annotations

import io
import threading
import time
from typing import TYPE_CHECKING, Any

import docker
import requests
from docker.transport.basehttpadapter import BaseHTTPAdapter
from docker.transport.sshconn import SSHConnectionPool
from urllib3.exceptions import HTTPError

from sealift.errors import CommandFailed, HostUnreachable
from sealift.plain_text import one_line

if TYPE_CHECKING:
    from sealift.host.ssh import Connection

API_VERSION = "1.43"
"""The API of Docker 24. A fixed version saves the request that asks for it, and later daemons support it, too."""

CREATE_API_VERSION = "1.45"
"""The API of Docker 26, if the daemon has it: Docker's release notes of the API."""

RUNTIME = "sealift"
"""The OCI runtime that is registered on every destination. It is runc, but restores containers that have images."""

TIMEOUT_S = 120
ANSWER_TIMEOUT_S = 600
ANSWER_LIMIT = 64 << 20
"""Limits of a whole answer: seconds and bytes."""

CHUNK_BYTES = 1 << 16


class PinnedAdapter(BaseHTTPAdapter):
    """Carries Docker's API over an existing SSH connection.

    docker-py's own SSH adapter would open another connection and take its host keys from the user's known_hosts.
    """

    def __init__(self, connection: Connection) -> None:
        self._client = connection.client
        self._name = connection.name
        self._pool: Any = None
        self._lock = threading.Lock()
        super().__init__()

    def get_connection(self, url: str | bytes, proxies: Any = None) -> Any:  # noqa: ARG002 - requests' signature
        """The pool of `docker system dial-stdio` channels."""
        with self._lock:
            if self._pool is None:
                self._pool = SSHConnectionPool(ssh_client=self._client, timeout=TIMEOUT_S, maxsize=4)
            return self._pool

    def get_connection_with_tls_context(
        self,
        request: Any,
        verify: Any,  # noqa: ARG002 - requests' signature
        proxies: Any = None,
        cert: Any = None,  # noqa: ARG002 - requests' signature
    ) -> Any:
        """Requests calls this since version 2.32."""
        return self.get_connection(request.url, proxies)

    def send(
        self,
        request: Any,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> Any:
        """Send a request. An answer that is not a stream is read here, within limits of time and size."""
        response = super().send(
            request, stream=stream, timeout=timeout, verify=verify, cert=cert, proxies=proxies
        )
        if not stream:
            response.raw = io.BytesIO(self._read(response))
        return response

    def _read(self, response: requests.Response) -> bytes:
        found, deadline = bytearray(), time.monotonic() + ANSWER_TIMEOUT_S
        try:
            for piece in response.raw.stream(CHUNK_BYTES, decode_content=True):
                found += piece
                if len(found) > ANSWER_LIMIT or time.monotonic() > deadline:
                    raise HostUnreachable("Docker's answer does not end", host=self._name)
        except (HTTPError, OSError) as broken:
            raise HostUnreachable(f"Docker's answer broke off: {broken}", host=self._name) from broken
        return bytes(found)

    def request_url(self, request: Any, proxies: Any) -> str:  # noqa: ARG002 - requests' signature
        """The path alone, since the pool needs no host name."""
        return str(request.path_url)

    def close(self) -> None:
        """End all channels."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()


class Client(docker.APIClient):
    """Docker-py's client, for a daemon whose answers may be invalid."""

    def create(self, described: dict[str, Any], name: str) -> str:
        """Create a container from a description in the API's format. Returns its id.

        With docker-py the description would be made from arguments, and they don't cover all of its fields. A part of a
        volume, and a hardware address, need a newer API than the other requests.
        """
        spoken = str(self.version(api_version=False)["ApiVersion"])
        version = min(spoken, CREATE_API_VERSION, key=_numbers)
        address = f"{self.base_url}/v{version}/containers/create"
        answer = self._post_json(address, described, params={"name": name})  # type: ignore[attr-defined]  # as below
        return str(self._result(answer, json=True)["Id"])

    def _raise_for_status(self, response: requests.Response) -> None:
        response.reason = one_line(str(response.reason))
        try:
            super()._raise_for_status(response)  # type: ignore[misc]  # the stubs leave it out
        except docker.errors.APIError as said:
            said.explanation = one_line(str(said.explanation)) if said.explanation else None
            raise

    def _result(self, response: requests.Response, json: bool = False, binary: bool = False) -> Any:
        try:
            return super()._result(response, json, binary)  # type: ignore[misc]  # as above
        except (RecursionError, ValueError) as nonsense:
            raise CommandFailed(f"Docker's answer is invalid ({type(nonsense).__name__})") from nonsense


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def client(connection: Connection) -> Client:
    """A low-level Docker client whose requests all go over this SSH connection."""
    made = Client(base_url="unix:///var/run/docker.sock", version=API_VERSION, timeout=TIMEOUT_S)
    made.mount("http+docker://", PinnedAdapter(connection))
    return made


def wait_for(connection: Connection, *, patience_s: float) -> Client:
    """A client of a daemon that may still be starting. Raises HostUnreachable after `patience_s` seconds."""
    deadline = time.monotonic() + patience_s
    while True:
        made = client(connection)
        try:
            made.ping()
        except (docker.errors.DockerException, requests.RequestException, OSError) as silent:
            made.close()
            if time.monotonic() > deadline:
                raise HostUnreachable(
                    f"Docker does not answer: {silent}",
                    host=connection.name,
                    remedy="`systemctl status docker` there tells why",
                ) from silent
            time.sleep(0.3)
        else:
            return made
