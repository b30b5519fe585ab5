"""Send the container's image to the destination, while the container runs."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from .. import docker_api, messages
from ..memory.relay import CHUNK_BYTES, Pace
from ..wire import AgentError, Link

if TYPE_CHECKING:
    from ..protocol import Endpoint


def send_image(reference: str, endpoint: Endpoint, bandwidth: int | None = None) -> int:
    """Stream an image (`docker save`) to the destination. Returns the bytes sent; `bandwidth` limits their rate."""
    pace = Pace(bandwidth)
    link = Link.connect(endpoint.address, endpoint.port, endpoint.token)
    connection, response = docker_api.request("GET", f"/images/{reference}/get", timeout=600)
    sent = 0
    try:
        if response.status != 200:
            raise AgentError(f"Docker refuses to save the image {reference}", "sync")
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side says why below
            while chunk := response.read(1 << 20 if bandwidth is None else CHUNK_BYTES):
                link.socket.sendall(chunk)
                sent += len(chunk)
                pace.spent(len(chunk))
            link.socket.shutdown(socket.SHUT_WR)
        answer = link.receive(600)
        if (refused := messages.refusal(answer)) is not None:
            raise AgentError(refused, "sync")
        messages.loaded(answer)
    finally:
        connection.close()
        link.close()
    return sent
