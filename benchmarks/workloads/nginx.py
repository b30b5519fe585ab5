"""nginx serving one big file, slowly, and a client whose downloads of it are checked byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.workloads.client import Client
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.host.ssh import Connection

PORT = 80
RATE_MB = 8
"""Megabytes a second that a download is held to, so that it lasts as long as a migration."""

CONFIGURATION = f"""
user www-data;
worker_processes 2;
error_log stderr;
events {{}}
http {{
    access_log off;
    sendfile on;
    server {{ listen {PORT}; root /var/www; location / {{ limit_rate {RATE_MB}m; }} }}
}}
"""

_WAIT = (
    f"until wget -q --spider http://127.0.0.1:{PORT}/file 2>/dev/null; do sleep 0.1; done; "
    "sha256sum /var/www/file"
)
READY_COMMAND = ["sh", "-c", _WAIT]
"""Run in the container: waits for nginx and prints the file's SHA-256."""


def start(
    host: Connection, name: str, address: str, network: str, size_mb: int, *, say: Callable[[str], None]
) -> str:
    """Run nginx with a file of random bytes in its writable layer. Returns the file's SHA-256, in hexadecimal."""
    tag = images.provide(host, images.NGINX, say=say)
    host.run(
        [
            *("docker", "run", "--detach", "--name", name, "--network", network, "--ip", address),
            *(tag, *serve_command(size_mb)),
        ]
    )
    return host.run(["docker", "exec", name, *READY_COMMAND], timeout_s=60).stdout.split(maxsplit=1)[0]


def serve_command(size_mb: int) -> list[str]:
    """What the container runs: makes a file of random bytes and serves it."""
    prepare = (
        f"mkdir -p /var/www && head -c {size_mb * 1_000_000} /dev/urandom >/var/www/file && "
        'printf %s "$1" >/etc/nginx/nginx.conf && exec nginx -g "daemon off;"'
    )
    return ["sh", "-c", prepare, "nginx", CONFIGURATION]


def client(host: Connection, address: str, digest: str) -> Client:
    """The downloading client, on the client's host."""
    return Client(host, "http_download.py", address, str(PORT), digest.split(maxsplit=1)[0])
