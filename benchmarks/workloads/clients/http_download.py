"""Downloads a file over one TCP connection, again and again, until standard input ends; the last one is finished.

Runs on the client's host with the standard library only. Arguments: ADDRESS PORT SHA256. Prints `ready` with the first
bytes, then one JSON object: every download must have the expected hash; the gap is the time between two pieces of one.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import select
import sys
import time

from responses import Responses

PIECE_BYTES = 1 << 14


def main(address: str, port: str, expected: str) -> None:
    """Download until standard input ends."""
    connection = http.client.HTTPConnection(address, int(port), timeout=120)
    faults: list[list[str]] = []
    received = downloads = 0
    error = None
    kept = Responses()
    try:
        while not select.select([sys.stdin], [], [], 0)[0]:
            connection.request("GET", "/file")
            response = connection.getresponse()
            if connection.sock is None:
                raise OSError("the server wants to close the connection after one download")
            state = hashlib.sha256()
            last = time.monotonic()
            while piece := response.read1(PIECE_BYTES):
                now = time.monotonic()
                kept.add(last, now)
                last = now
                state.update(piece)
                if received == 0:
                    print("ready", flush=True)
                received += len(piece)
            downloads += 1
            if response.status != 200 or state.hexdigest() != expected:
                faults.append([expected, f"{response.status} {state.hexdigest()}"])
    except (OSError, http.client.HTTPException) as lost:
        error = repr(lost)
    print(json.dumps({**kept.findings(downloads, faults, error), "received_bytes": received}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
