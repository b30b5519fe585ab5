"""`python -m sealift.processor.emulated --state DIR --host SOCKET --guest SOCKET`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from pathlib import Path

from sealift.errors import SealiftError, UnusableInput
from sealift.processor.emulated.chip import Chip
from sealift.processor.emulated.firmware import Firmware
from sealift.processor.emulated.local import PROFILE_NAME, read_profile
from sealift.processor.emulated.service import serve

_LOG = logging.getLogger("sealift.emulated")


def main(words: list[str] | None = None) -> int:
    """Serve. Exit status 0 after a signal to end or the end of the VM, another for unusable arguments."""
    options = _options().parse_args(words)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s emulated: %(message)s")
    try:
        firmware = Firmware(
            Chip.open(options.state, options.authority), read_profile(options.state, options.profile)
        )
        host, guest = _listener(options.host), _listener(options.guest)
    except SealiftError as error:
        sys.stderr.write(f"sealift emulated processor: {error}\n")
        return error.exit_status
    asyncio.run(_run(firmware, host, guest, terminate=options.terminate))
    return 0


async def _run(firmware: Firmware, host: socket.socket, guest: socket.socket, *, terminate: bool) -> None:
    task = asyncio.ensure_future(serve(firmware, host, guest, terminate=terminate))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        _LOG.info("told to end")


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sealift.processor.emulated", description=__doc__)
    parser.add_argument(
        "--state", type=Path, required=True, help="the machine's chip; made if it does not exist"
    )
    parser.add_argument("--authority", type=Path, help="the lab's root, if it is not in the state folder")
    parser.add_argument("--profile", type=Path, help=f"settings in JSON; default: STATE/{PROFILE_NAME}")
    parser.add_argument("--host", required=True, help="the host's socket: a path, or fd:N that listens")
    parser.add_argument("--guest", required=True, help="the guest's socket: the same")
    parser.add_argument("--terminate", action="store_true", help="end when the guest's side is closed")
    return parser


def _listener(place: str) -> socket.socket:
    if place.startswith("fd:"):
        return socket.socket(fileno=int(place.removeprefix("fd:")))
    # Only its owner may connect, even in the moment between bind and chmod.
    before = os.umask(0o177)
    try:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(place)
    except OSError as error:
        raise UnusableInput(f"no socket can be made at {place}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    listener.listen()
    return listener


if __name__ == "__main__":
    sys.exit(main())
