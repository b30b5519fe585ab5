"""Load the container's image into this host's Docker."""

from __future__ import annotations

import contextlib
import secrets
import threading

from .. import docker_api
from ..admission import Admission
from ..protocol import Endpoint
from ..wire import AgentError, Link

IMAGE_S = 60
"""How long the source may take to connect."""

NOT_UNPACKED = "Error unpacking image"
"""So Docker begins one line of a success, where containerd keeps its images, and the image can't be used."""


def receive_image(address: str) -> Endpoint:
    """Take one image from the source and load it. Returns where the source is to send it."""
    token = secrets.token_hex(16)
    admission = Admission(address, token)
    threading.Thread(target=_load_image, args=(admission,), daemon=True).start()
    return Endpoint(address, admission.port, token)


def _load_image(admission: Admission) -> None:
    with admission:
        try:
            link = Link(admission.take(IMAGE_S))
        except OSError:
            return  # the source says why
    try:
        headers = {"Content-Type": "application/x-tar"}  # the length is unknown, so http.client sends chunks
        connection, response = docker_api.request("POST", "/images/load?quiet=1", link.rest(), 600, headers)
        answer = response.read().decode(errors="replace")
        connection.close()
        if response.status != 200 or '"error"' in answer or NOT_UNPACKED in answer:
            link.send(error=f"Docker refuses to load the image: {answer[-300:]}")
        else:
            link.send(loaded=True)
    except (AgentError, OSError) as failure:
        with contextlib.suppress(OSError):  # the source is gone
            link.send(error=str(failure))
    finally:
        link.close()
