"""Talks to a program over one connection until standard input ends, and checks every answer.

Runs on the client's host with the standard library only. Argument: a JSON object with `talk`, the name of a
conversation, and what it takes. Waits until the program serves, prints `ready`, then one JSON object: an answer that is
not the expected one is a fault, a lost connection the error. The connection is opened once and never again.
"""

from __future__ import annotations

import json
import select
import sys
import time

import conversations
from responses import Responses

PATIENCE_S = 45
PAUSE_S = 0.02
RETRY_S = 0.3
WORST = 3


def opened(settings: dict[str, object]) -> conversations.Conversation:
    """The conversation, once the program answers its first question rightly."""
    deadline = time.monotonic() + PATIENCE_S
    kind = conversations.KINDS[str(settings.pop("talk"))]
    while True:
        talk = None
        try:
            talk = kind(**settings)
            talk.begin()
            fault = talk.turn(1)
            if fault is None:
                talk.begun()
                return talk
            problem = fault
        except (OSError, ValueError) as failed:
            problem = repr(failed)
        if talk is not None:
            talk.close()
        if time.monotonic() > deadline:
            sys.exit(f"it did not serve within {PATIENCE_S} s: {problem}")
        time.sleep(RETRY_S)


def main(text: str) -> None:
    """Talk until standard input ends."""
    talk = opened(json.loads(text))
    kept = Responses()
    faults: list[str] = []
    error = None
    number = 1
    print("ready", flush=True)
    try:
        while not select.select([sys.stdin], [], [], talk.pause_s)[0]:
            number += 1
            sent = time.monotonic()
            fault = talk.turn(number)
            kept.add(sent, time.monotonic())
            if fault is not None:
                faults.append(f"turn {number}: {fault}")
        faults += talk.end(number)
    except (OSError, ValueError) as lost:
        error = f"turn {number}: {lost!r}"
    print(json.dumps(kept.findings(len(kept.at), faults, error)), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
