"""Runs on a host (`python3 - PORT BEHAVIOUR`): stands in for the guest's program, with an answer that is not its own.

BEHAVIOUR is JSON: `forward` (HOST:PORT that the question goes to), `replay` (a line to answer with, whatever is asked),
`alter` (fields to replace in the answer). It says "ready" once it listens.
"""

from __future__ import annotations

import json
import random
import socket
import sys


def asked(place: str, line: bytes) -> bytes:
    """Put the question to somebody else."""
    host, _, port = place.partition(":")
    # From a port that only root has: the rule that leads SSH's connections astray lets these through.
    own = ("", random.randrange(600, 1024))
    with socket.create_connection((host, int(port)), timeout=20, source_address=own) as peer:
        peer.sendall(line)
        return peer.makefile("rb").readline()


def main(port: int, behaviour: dict) -> None:
    """Answer for ever."""
    listener = socket.create_server(("0.0.0.0", port))
    print("ready", flush=True)
    while True:
        peer, _ = listener.accept()
        with peer:
            line = peer.makefile("rb").readline()
            if "replay" in behaviour:
                answer = behaviour["replay"].encode()
            else:
                answer = asked(behaviour.get("forward", "127.0.0.1:7741"), line)
            said = json.loads(answer)
            said["result"].update(behaviour.get("alter", {}))
            peer.sendall(json.dumps(said).encode() + b"\n")


main(int(sys.argv[1]), json.loads(sys.argv[2]))
