"""Clients that connect while a container moves are served, each of them: none is refused, reset or forgotten."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

PORT = 7001
SERVER = r"""
import socket, sys, threading, time
port, pause_s = int(sys.argv[1]), float(sys.argv[2])
listener = socket.create_server(("0.0.0.0", port), backlog=64)
print("up", flush=True)

def serve(peer):
    with peer:
        while said := peer.recv(64):
            peer.sendall(said)

while True:
    peer, _ = listener.accept()
    threading.Thread(target=serve, args=(peer,), daemon=True).start()
    time.sleep(pause_s)
"""
CROWD = r"""
# So many clients at once: each connects, is served, and connects again, until a line comes. Prints what went wrong.
import json, socket, sys, threading, time
address, port, many = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
over, served, wrong = threading.Event(), [], []

def client(number):
    while not over.is_set():
        try:
            with socket.create_connection((address, port), timeout=60) as mine:
                for turn in range(3):
                    said = f"{number} {turn}".encode()
                    mine.sendall(said)
                    heard = mine.recv(64)
                    if heard != said:
                        raise OSError(f"{heard!r} instead of {said!r}")
            served.append(number)
        except OSError as failed:
            wrong.append(f"{type(failed).__name__}: {failed}")
        time.sleep(0.01)

clients = [threading.Thread(target=client, args=(number,)) for number in range(many)]
for each in clients:
    each.start()
sys.stdin.readline()
before = len(served)
sys.stdin.readline()
after = len(served)
over.set()
for each in clients:
    each.join()
print(json.dumps({"before": before, "after": after, "wrong": wrong}))
"""


@pytest.mark.parametrize(
    ("strategy", "pause_s", "many"),
    [
        (Strategy.AUTO, 0.0, 8),
        pytest.param(Strategy.POST_COPY, 0.0, 8, marks=pytest.mark.whole),
        pytest.param(Strategy.AUTO, 0.3, 3, marks=pytest.mark.whole),
    ],
    ids=["default", "post-copy", "a slow program"],
)
def test_every_client_is_served(hosts: Hosts, strategy: Strategy, pause_s: float, many: int) -> None:
    hosts.python("box", SERVER, str(PORT), str(pause_s))
    hosts.sh("source", "until docker logs box | grep -q up; do sleep 0.1; done")
    channel = hosts["client"].open(["python3", "-u", "-c", CROWD, hosts.assigned[-1], str(PORT), str(many)])
    hosts.sh("client", "sleep 1")
    hosts.engine("box", strategy=strategy)
    hosts.engine("box", source="destination", destination="source", strategy=strategy)
    channel.sendall(b"moved\n")
    hosts.sh("client", "sleep 2")
    channel.sendall(b"enough\n")
    found: dict[str, Any] = json.loads(channel.makefile("r").readline())
    channel.close()
    assert found["wrong"] == []
    assert found["after"] > found["before"] > 0, "they are served afterwards as well"
