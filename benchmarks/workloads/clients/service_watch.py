"""Questions the service over one TCP connection, without pause, until standard input ends.

Runs on the client's host with the standard library only. Arguments: ADDRESS PORT. Prints `ready`, then one JSON object:
what must not change between two reports and did, what must grow and did not.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time
from typing import Any

from responses import Responses

SAME = ("pid", "uid", "gid", "groups", "cwd", "environment", "argv", "hostname", "threads", "memory")
PAUSE_S = 0.01


def faults_between(old: dict[str, Any], new: dict[str, Any]) -> list[Any]:
    """What is wrong with a report, given the one before."""
    found: list[Any] = [[name, old[name], new[name]] for name in SAME if old[name] != new[name]]
    found += [
        [clock, old[clock], new[clock]]
        for clock in ("monotonic_ns", "boottime_ns")
        if new[clock] < old[clock]
    ]
    if any(new["steps_back"].values()):
        found.append(["steps_back", new["steps_back"]])
    if any(later < earlier for earlier, later in zip(old["counts"], new["counts"], strict=True)):
        found.append(["counts", old["counts"], new["counts"]])
    if not new["memory_whole"]:
        found.append(["memory_whole"])
    for name, file in new["files"].items():
        if not (file["whole"] and file["offset_kept"]) or file["numbers"] < old["files"][name]["numbers"]:
            found.append(["files", name, old["files"][name], file])
    for name, mapping in new["mappings"].items():
        if not mapping["whole"] or mapping["number"] < old["mappings"][name]["number"]:
            found.append(["mappings", name, old["mappings"][name], mapping])
    return found


def main(address: str, port: str) -> None:
    """Question until standard input ends."""
    connection = socket.create_connection((address, int(port)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.settimeout(300)
    answers = connection.makefile("rb")

    def ask() -> dict[str, Any]:
        connection.sendall(b"\n")
        answer: dict[str, Any] = json.loads(answers.readline())
        return answer

    first = last = ask()
    faults: list[Any] = []
    error = None
    kept = Responses()
    print("ready", flush=True)
    try:
        while not select.select([sys.stdin], [], [], PAUSE_S)[0]:
            sent = time.monotonic()
            answer = ask()
            kept.add(sent, time.monotonic())
            faults += faults_between(last, answer)
            last = answer
    except (OSError, ValueError) as lost:
        error = repr(lost)
    found = kept.findings(len(kept.at), faults, error)
    print(json.dumps({**found, "first": first, "last": last}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
