"""Send the container's image to the destination, while the container runs."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING

from .. import docker_api, layers, messages
from ..memory.relay import CHUNK_BYTES, Pace
from ..protocol import ImageSent
from ..wire import AgentError, Link

if TYPE_CHECKING:
    from ..protocol import SendImage

UNPACED_BYTES = 1 << 20
"""How much is read and sent at a time where nothing limits the rate."""


def send_image(order: SendImage) -> ImageSent:
    """Stream an image (`docker save`) to the destination, at most at the rate that the order says."""
    endpoint, pace = order.endpoint, Pace(order.bandwidth)
    chunk_bytes = UNPACED_BYTES if order.bandwidth is None else CHUNK_BYTES
    link = Link.connect(endpoint.address, endpoint.port, endpoint.token)

    def send(data: bytes) -> None:
        link.socket.sendall(data)
        pace.spent(len(data))

    try:
        connection, response = docker_api.request("GET", f"/images/{order.reference}/get", timeout=600)
        with contextlib.closing(connection):
            if response.status != 200:
                raise AgentError(f"Docker refuses to save the image {order.reference}", "sync")
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side says why below
                layers.send_without(order.left_out, response, send, chunk_bytes)
                link.socket.shutdown(socket.SHUT_WR)
        answer = link.receive(600)
        refused = messages.refusal(answer)
        if refused is None:
            messages.loaded(answer)
    finally:
        link.close()
    return ImageSent(pace.amount, refused)
