"""The gateway: where the one decision of a migration is taken, written down, and carried out.

A workload's address belongs to one host. Moving it is the commit of a migration: first the new owner is on disk, then
the WireGuard peers are changed, in one operation of the kernel's (or wireguard-go's) table. A migration that was called
off can't commit any more, and one that has committed can't be called off: whoever asks first decides.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import messages
from .admission import Admission
from .journal import Journal
from .network import firewall, userspace
from .network.hold import Hold, sweep
from .places import Places
from .wire import WAITING, AgentError, Controller, Link, serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    Record = dict[str, dict[str, Any]]

STATE = Path("/var/lib/sealift/gateway")
NETWORK = Path("/etc/sealift/network.env")
INTERFACE = "sealift-wg"
LOOK_FOR_OTHERS_S, WAIT_FOR_OTHERS_S = 0.002, 5
"""How often it looks whether the last of a group has asked, and after how long it says that it still has not."""


class Routes:
    """The durable record: `routes` (address to peer), `decisions` (migration to outcome).

    Of a group that is not decided: `groups` (each migration to all of them) and `asked` (those that are ready, each
    with the move that it asks for).
    """

    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self.file = state / "routes.json"

    def assign(self, address: str, peer: str, host: str) -> dict[str, str]:
        """Give an address to a host outside of any migration."""
        _checked(address)
        with self._locked() as record:
            record["routes"][address] = {"peer": peer, "host": host}
            self._save(record)
            apply(record["routes"])
            route: dict[str, str] = record["routes"][address]
        return route

    def release(self, address: str) -> None:
        """Take an address back."""
        with self._locked() as record:
            gone = record["routes"].pop(address, None)
            self._save(record)
            apply(record["routes"], also=[gone["peer"]] if gone else [])

    def adopt(self, host: str, peer: str, tunnel: str, endpoint: str) -> None:
        """A host has a new WireGuard key: it takes the place of the one before, with all addresses of that host."""
        _checked(tunnel)
        with self._locked() as record:
            for route in record["routes"].values():
                if route["host"] == host:
                    route["peer"] = peer
            record.setdefault("peers", {})[host] = {"peer": peer, "tunnel": tunnel, "endpoint": endpoint}
            self._save(record)
            seat(record["peers"][host], record["routes"])

    def bind(self, members: list[str]) -> None:
        """Give several migrations one decision: they commit together, once each has asked, or not at all."""
        with self._locked() as record:
            undecided = [member for member in members if member not in record["decisions"]]
            record.setdefault("groups", {}).update(dict.fromkeys(undecided, members))
            self._save(record)

    def switch(self, migration: str, address: str, origin: str, peer: str, host: str) -> str:
        """Commit: move the address from the peer `origin` to `peer`. Returns the outcome that holds.

        The outcome is WAITING as long as others of its group have not asked; then ask again.
        """
        with self._locked() as record:
            if migration in record["decisions"]:
                return str(record["decisions"][migration])
            owner = record["routes"].get(address, {}).get("peer")
            if owner != origin:
                raise AgentError(f"{address} does not belong to the source any more", "network switch")
            asked = record.setdefault("asked", {})
            known = migration in asked
            asked[migration] = {"address": address, "origin": origin, "peer": peer, "host": host}
            members = record.get("groups", {}).get(migration, [migration])
            if any(member not in asked for member in members):
                if not known:
                    self._save(record)
                return WAITING
            moves = [asked[member] for member in members]
            for move in moves:
                record["routes"][move["address"]] = {"peer": move["peer"], "host": move["host"]}
            self._decide(record, members, "committed")
            if not all(userspace.move(INTERFACE, move["address"], move["peer"]) for move in moves):
                apply(record["routes"], also=[move["origin"] for move in moves])
        return "committed"

    def call_off(self, migration: str) -> str:
        """Call a migration off, and all of its group, unless it has committed. Returns the outcome that holds."""
        with self._locked() as record:
            if migration not in record["decisions"]:
                self._decide(record, record.get("groups", {}).get(migration, [migration]), "rolled back")
            outcome: str = record["decisions"][migration]
        return outcome

    def _decide(self, record: Record, members: list[str], outcome: str) -> None:
        """One outcome for all of them, on disk in one write."""
        for member in members:
            record["decisions"][member] = outcome
            for undecided in ("asked", "groups"):
                record.get(undecided, {}).pop(member, None)
        self._save(record)

    def restore(self) -> None:
        """After a start of the gateway: give WireGuard what the record says."""
        with self._locked() as record:
            for seated in record.get("peers", {}).values():
                seat(seated, record["routes"])
            apply(record["routes"])

    def show(self) -> Record:
        """The whole record."""
        with self._locked() as record:
            return record

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Record]:
        self.state.mkdir(parents=True, exist_ok=True)
        with (self.state / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._load()

    def _load(self) -> Record:
        try:
            record: Record = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {"routes": {}, "decisions": {}}
        return record

    def _save(self, record: Record) -> None:
        fresh = self.file.with_suffix(".new")
        with fresh.open("w") as file:
            json.dump(record, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        fresh.rename(self.file)
        directory = os.open(self.state, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def apply(routes: dict[str, Any], also: Sequence[str] = ()) -> None:
    """Make WireGuard's allowed IPs those of the record, in one call of `wg`.

    A peer's list is given whole: its tunnel address, which it has already, and its workloads. An address that another
    peer had moves over in the same operation.
    """
    held = _allowed_ips()
    arguments: list[str] = []
    for peer in {*(route["peer"] for route in routes.values()), *also}:
        if peer not in held:
            raise AgentError(f"WireGuard has no peer {peer}", "network switch")
        tunnel = [ip for ip in held[peer] if ip.removesuffix("/32") not in routes and not _is_workload(ip)]
        mine = [f"{address}/32" for address, route in routes.items() if route["peer"] == peer]
        arguments += ["peer", peer, "allowed-ips", ",".join(tunnel + mine)]
    if arguments:
        _wg("set", INTERFACE, *arguments)


def seat(seated: dict[str, str], routes: dict[str, Any]) -> None:
    """Make a key the one that WireGuard knows for a tunnel address; whoever had that address is no peer any more."""
    peer, own = seated["peer"], f"{seated['tunnel']}/32"
    arguments: list[str] = []
    for other, addresses in _allowed_ips().items():
        if own in addresses and other != peer:
            arguments += ["peer", other, "remove"]
    mine = [f"{address}/32" for address, route in routes.items() if route["peer"] == peer]
    allowed = ",".join([own, *mine])
    _wg("set", INTERFACE, *arguments, "peer", peer, "endpoint", seated["endpoint"], "allowed-ips", allowed)


def _is_workload(allowed: str) -> bool:
    for line in NETWORK.read_text().splitlines():
        if line.startswith("WORKLOADS="):
            network = ipaddress.ip_network(line.partition("=")[2])
            return ipaddress.ip_network(allowed).subnet_of(network)  # type: ignore[arg-type]
    return False


def _allowed_ips() -> dict[str, list[str]]:
    held = {}
    for line in _wg("show", INTERFACE, "allowed-ips").splitlines():
        peer, *addresses = line.split()
        held[peer] = [address for address in addresses if address != "(none)"]
    return held


def _wg(*arguments: str) -> str:
    done = subprocess.run(["wg", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AgentError(f"`wg {arguments[0]}` failed: {done.stderr.strip()}", "network switch")
    return done.stdout


def _checked(address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError as invalid:
        raise AgentError(f"{address!r} is not an IPv4 address") from invalid


class Decider(threading.Thread):
    """Answers the two hosts of one migration through the tunnel until told to end; holds packets in between."""

    def __init__(self, address: str, token: str, facts: dict[str, str], port: int = 0) -> None:
        super().__init__(daemon=True)
        self.facts = facts
        self.routes = Routes()
        self.hold: Hold | None = None
        self.admission = Admission(address, token, slots=None, port=port)
        self.port = self.admission.port

    def run(self) -> None:
        """Answer whoever knows the token."""
        while True:
            try:
                link = Link(self.admission.take())
            except OSError:
                return  # it was ended
            threading.Thread(target=self._answer, args=(link,), daemon=True).start()

    def end(self) -> None:
        """No more answers, and nothing held any more."""
        if self.hold is not None:
            self.hold.end()
        self.admission.close()

    def release(self) -> int:
        """Hold nothing any more. Returns how many packets were held."""
        return self.hold.release() if self.hold is not None else 0

    def _answer(self, link: Link) -> None:
        while True:
            try:
                question = messages.question(link.receive())
            except AgentError:
                link.close()
                return
            try:
                link.send(**getattr(self, f"_{question}")())
            except AgentError as failure:
                link.send(error=str(failure))
            except OSError:
                return
            if question in FINAL and self.hold is not None:
                self.hold.end()  # the answer does not wait for it

    def _prepare(self) -> dict[str, Any]:
        if self.hold is None:
            self.hold = Hold(self.facts["address"])
        return {"prepared": True}

    def _hold(self) -> dict[str, Any]:
        self._prepare()
        if self.hold is not None:
            self.hold.hold()
        return {"holding": True}

    def _switch(self) -> dict[str, Any]:
        until = time.monotonic() + WAIT_FOR_OTHERS_S
        while (outcome := self.routes.switch(**self.facts)) == WAITING and time.monotonic() < until:
            time.sleep(LOOK_FOR_OTHERS_S)
        return {"outcome": outcome}

    def _release(self) -> dict[str, Any]:
        return {"held": self.release()}

    def _call_off(self) -> dict[str, Any]:
        outcome = self.routes.call_off(self.facts["migration"])
        self.release()
        return {"outcome": outcome}


def restore_routes(_: Controller) -> None:
    """What `network up` runs when the gateway starts: WireGuard gets what the record says."""
    Routes().restore()


def stay(archive: Path, state: Path = STATE) -> None:
    """Leave this program where a restarted gateway finds it (`restore_routes`)."""
    state.mkdir(parents=True, exist_ok=True)
    content, there = archive.read_bytes(), state / "agent.pyz"
    if not there.exists() or there.read_bytes() != content:
        fresh = there.with_suffix(f".{os.getpid()}")
        fresh.write_bytes(content)
        fresh.rename(there)


def main(controller: Controller) -> None:
    """Serve one controller. A decider outlives it: the two hosts may still have to ask.

    Who starts finds the routes as the record has them: a gateway that was restarted has forgotten them.
    """
    stay(Path(sys.argv[0]))
    routes, journal, places = Routes(), Journal(), Places()
    with contextlib.suppress(AgentError, subprocess.CalledProcessError):
        routes.restore()
    deciders: list[Decider] = []

    def decide(
        address: str, token: str, facts: dict[str, str], members: list[str] | None = None, port: int = 0
    ) -> int:
        if members:
            routes.bind(members)
        decider = Decider(address, token, facts, port)
        decider.start()
        deciders.append(decider)
        return decider.port

    def gone() -> None:
        mine = journal.let_go()
        until = time.monotonic() + ASK_UNTIL_S
        while deciders and any(map(journal.is_open, mine)) and time.monotonic() < until:
            time.sleep(LOOK_AGAIN_S)
        end()

    def end() -> None:
        while deciders:
            deciders.pop().end()

    handlers: dict[str, Callable[..., Any]] = {
        "adopt": routes.adopt,
        "assign": routes.assign,
        "release": routes.release,
        "show": routes.show,
        "call_off": routes.call_off,
        "decide": decide,
        "end": end,
        "sweep": sweep,
        "guarded": firewall.stands,
        "enter": places.enter,
        "note": journal.note,
        "unfinished": journal.unfinished,
        "take": journal.take,
    }
    serve(handlers, controller, gone)


FINAL = {"release", "call_off"}
"""Questions after which nothing is held any more."""

ASK_UNTIL_S = 120
"""How long a gateway without its controller still answers the hosts, unless somebody else ends the migration."""

LOOK_AGAIN_S = 0.05
