"""`python -m sealift.provider [--settings FILE] [--processor NAME] ORDER|gate|serve`: it needs only Python."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from sealift.errors import SealiftError
from sealift.provider import gate
from sealift.provider.orders import ORDERS
from sealift.provider.service import Provider
from sealift.provider.settings import read_settings


def main(words: list[str] | None = None) -> int:
    """Execute one order, or the request of an SSH client."""
    parser = argparse.ArgumentParser(prog="sealift.provider", description=__doc__)
    parser.add_argument("--settings", type=Path, help="TOML; default: /etc/sealift/provider.toml")
    parser.add_argument("--processor", help="qemu or emulated; overrides the settings")
    parser.add_argument("order", choices=[*ORDERS, gate.SERVE, "gate"])
    options = parser.parse_args(words)
    try:
        order = gate.admit(os.environ.get(gate.ASKED)) if options.order == "gate" else options.order
        provider = Provider(read_settings(options.settings, processor=options.processor))
        return gate.answer(provider, order, sys.stdin.buffer, sys.stdout.buffer)
    except SealiftError as error:
        sys.stderr.write(f"sealift provider: {error}\n")
        return error.exit_status


if __name__ == "__main__":
    sys.exit(main())
