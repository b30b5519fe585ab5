"""Docker's client reads answers of a daemon that may say anything: within bounds, and as text for a person."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import docker as docker_py
import pytest
from urllib3 import HTTPConnectionPool

from sealift.errors import CommandFailed, HostUnreachable
from sealift.host import docker

if TYPE_CHECKING:
    from collections.abc import Iterator

ANSWERS = {
    "/v1.44/containers/create?name=new": (201, b'{"Id": "12ab"}'),
    "/v1.45/containers/create?name=new": (201, b'{"Id": "34cd"}'),
    "/v1.45/containers/create?name=taken": (409, b'{"message": "it is taken"}'),
    "/v1.43/volumes/there": (200, b'{"Name": "there"}'),
    "/v1.43/volumes/deep": (200, b"[" * 100_000),
    "/v1.43/volumes/odd": (500, b'{"message": "no\\u001b[31m"}'),
    "/v1.43/volumes/large": (200, b'"' + b"x" * 4096 + b'"'),
}


class Daemon(BaseHTTPRequestHandler):
    """Answers as `ANSWERS` says, on connections that stay open."""

    protocol_version = "HTTP/1.1"
    peers: set[tuple[str, int]]
    speaks = "1.51"

    def do_GET(self) -> None:
        self.peers.add(self.client_address)
        said = (200, b'{"ApiVersion": "%s"}' % self.speaks.encode())
        status, body = said if self.path == "/version" else ANSWERS[self.path]
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[docker.Client]:
    """One whose channels lead to a server of ours instead of through SSH."""
    Daemon.peers = set()
    with ThreadingHTTPServer(("127.0.0.1", 0), Daemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(
            docker, "SSHConnectionPool", lambda **_: HTTPConnectionPool("127.0.0.1", server.server_port)
        )
        made = docker.client(SimpleNamespace(client=None, name="a"))  # type: ignore[arg-type] # all that it looks at
        yield made
        made.close()
        server.shutdown()


def test_questions_share_a_connection(client: docker.Client) -> None:
    assert client.inspect_volume("there") == {"Name": "there"}
    assert client.inspect_volume("there") == {"Name": "there"}
    assert len(Daemon.peers) == 1


def test_a_client_that_was_closed_connects_again(client: docker.Client) -> None:
    client.inspect_volume("there")
    client.close()
    assert client.inspect_volume("there") == {"Name": "there"}
    assert len(Daemon.peers) == 2


def test_what_is_no_json_is_an_error_of_the_host(client: docker.Client) -> None:
    with pytest.raises(CommandFailed, match="is invalid"):
        client.inspect_volume("deep")


def test_what_a_daemon_complains_of_is_plain_text(client: docker.Client) -> None:
    with pytest.raises(docker_py.errors.APIError) as refused:
        client.inspect_volume("odd")
    assert "no" in refused.value.explanation
    assert "\x1b" not in refused.value.explanation


def test_an_answer_without_an_end_is_given_up(client: docker.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(docker, "ANSWER_LIMIT", 1024)
    with pytest.raises(HostUnreachable, match="does not end"):
        client.inspect_volume("large")


def test_a_container_is_created_as_it_is_described(client: docker.Client) -> None:
    assert client.create({"Image": "one"}, "new") == "34cd"
    with pytest.raises(docker_py.errors.APIError, match="it is taken"):
        client.create({"Image": "one"}, "taken")


def test_an_older_daemon_is_spoken_to_as_it_speaks(
    client: docker.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Daemon, "speaks", "1.44")
    assert client.create({"Image": "one"}, "new") == "12ab"
