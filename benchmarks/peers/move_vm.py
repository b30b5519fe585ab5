"""Runs in the provider (`python3 - VM`): QEMU's live migration of a VM into a second QEMU beside it. Prints JSON.

The second is started by the first one's own command line, on the same disks, with another tap in the same bridge.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from qemu.qmp import QMPClient, QMPError

BESIDE = "-beside"
"""What the second QEMU's tap and sockets have behind their names. The next move goes back to those without."""

START_TIMEOUT_S = 60
MOVE_TIMEOUT_S = 600
CHECK_AGAIN_S = 0.02


def command_line(vm: str) -> list[str]:
    """The arguments of the QEMU that runs the VM."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes().decode().split("\0")[:-1]
        except OSError:
            continue
        if words and "qemu-system" in words[0] and f"guest={vm}" in words:
            return words
    sys.exit(f"no QEMU runs the VM {vm}")


def other(name: str) -> str:
    """The name of the other QEMU's tap or socket."""
    return name.removesuffix(BESIDE) if name.endswith(BESIDE) else name + BESIDE


def place(words: list[str]) -> str:
    """Where a QEMU's monitor listens."""
    monitor = next(word for word in words if word.startswith("socket,id=qmp,"))
    return next(part for part in monitor.split(",") if part.startswith("path=")).removeprefix("path=")


def moved(words: list[str]) -> list[str]:
    """The second QEMU's arguments."""
    made = []
    for word in words:
        if word.startswith(("socket,id=qmp,", "file,id=console,")):
            parts = [f"path={other(p[5:])}" if p.startswith("path=") else p for p in word.split(",")]
            made.append(",".join(parts))
        elif word.startswith('{"type": "tap"'):
            device: dict[str, Any] = json.loads(word)
            made.append(json.dumps({**device, "ifname": other(device["ifname"])}))
        else:
            made.append(word)
    return made


def tap_of(words: list[str]) -> str:
    """The tap that a QEMU has."""
    return next(str(json.loads(word)["ifname"]) for word in words if word.startswith('{"type": "tap"'))


def make_tap(name: str, like: str) -> None:
    """A tap in the same bridge as another one."""
    bridge = Path(f"/sys/class/net/{like}/master").resolve().name
    mtu = Path(f"/sys/class/net/{like}/mtu").read_text().strip()
    if not Path(f"/sys/class/net/{name}").exists():
        subprocess.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"], check=True)
    subprocess.run(["ip", "link", "set", name, "mtu", mtu, "master", bridge, "up"], check=True)


def start_second(words: list[str], incoming: Path) -> subprocess.Popen[bytes]:
    """Start the QEMU that the VM is to come to. Returns it once it waits there."""
    make_tap(other(tap_of(words)), tap_of(words))
    log = Path(f"{incoming}.log")
    with log.open("wb") as said:
        second = subprocess.Popen(
            [*moved(words), "-incoming", f"unix:{incoming}"],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_TIMEOUT_S
    while not incoming.exists():
        if second.poll() is not None or time.monotonic() > deadline:
            second.kill()
            sys.exit(f"the second QEMU does not wait for the VM: {log.read_text().strip()[-300:]}")
        time.sleep(CHECK_AGAIN_S)
    return second


async def migrate(words: list[str], incoming: Path, second: subprocess.Popen[bytes]) -> dict[str, Any]:
    """Move it. Times in milliseconds, amounts in bytes, as QEMU counts them."""
    first = QMPClient("whole-vm")
    await first.connect(place(words))
    # Without a bound on the rate; a guest that writes faster than that is slowed down.
    await first.execute("migrate-set-parameters", {"max-bandwidth": 0})
    await first.execute(
        "migrate-set-capabilities", {"capabilities": [{"capability": "auto-converge", "state": True}]}
    )
    await first.execute("migrate", {"uri": f"unix:{incoming}"})
    deadline = time.monotonic() + MOVE_TIMEOUT_S
    while True:
        state: Any = await first.execute("query-migrate")
        if state.get("status") == "completed":
            break
        if state.get("status") in {"failed", "cancelled"} or time.monotonic() > deadline:
            second.kill()
            sys.exit(
                f"QEMU's migration ended as {state.get('status')}: {state.get('error-desc', 'no reason')}"
            )
        await asyncio.sleep(CHECK_AGAIN_S)
    await first.execute("quit")
    await first.disconnect()
    return {
        "total_ms": state["total-time"],
        "frozen_ms": state["downtime"],
        "pages_bytes": state["ram"]["transferred"],
        "rounds": state["ram"]["dirty-sync-count"],
    }


def main(vm: str) -> None:
    """Move the VM to the other QEMU, and print how it went."""
    words = command_line(vm)
    incoming = Path(f"{place(words)}.incoming")
    second = start_second(words, incoming)
    try:
        print(json.dumps(asyncio.run(migrate(words, incoming, second))))  # noqa: T201 - its result
    except QMPError as refused:
        second.kill()
        sys.exit(f"QEMU refuses: {refused}")
    finally:
        incoming.unlink(missing_ok=True)
    if (unused := tap_of(words)).endswith(BESIDE):
        subprocess.run(["ip", "link", "delete", unused], check=True)


if __name__ == "__main__":
    main(sys.argv[1])
