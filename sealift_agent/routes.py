"""The gateway's record: whose each workload's address is, and what was decided about each migration.

What is on record holds, whatever happens to who carries it out. Once a decision may be on the disk, nobody is told
anything else any more, and nobody is told it before it is there to stay: an error in between is no answer, and who
asked asks again.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import ipaddress
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import durable, locks, protocol
from .network import allowed, userspace
from .wire import WAITING, AgentError

if TYPE_CHECKING:
    from collections.abc import Iterator

    Record = dict[str, dict[str, Any]]
    Move = dict[str, str]

STATE = Path("/var/lib/sealift/gateway")
COMMITTED, ROLLED_BACK = "committed", "rolled back"
KEY_BYTES = 32


class Routes:
    """The durable record: `routes` (address to peer), `decisions` (migration to outcome), `peers` (host to key).

    Of a group that is not decided: `groups` (each migration to all of them) and `asked` (those that are ready, each
    with the move that it asks for). `behind` is what WireGuard did not do of it when it was last told: addresses,
    hosts, or the interface itself, each with why.
    """

    def __init__(self, state: Path = STATE) -> None:
        self.state = state
        self.file = state / "routes.json"
        self.behind: dict[str, str] = {}
        self._carried_out: set[str] = set()

    def assign(self, address: str, peer: str, host: str) -> protocol.Route:
        """Give an address to a host outside of any migration. AgentError, and nothing on record, for no such peer."""
        _checked(address)
        with self._locked() as record:
            if peer not in allowed.peers():
                raise AgentError(allowed.unknown(peer), allowed.STEP)
            record["routes"][address] = {"peer": peer, "host": host}
            self._save(record)
            self._carry_out(record)
            self._complain(address)
        return protocol.Route(peer, host)

    def release(self, address: str) -> None:
        """Take an address back."""
        with self._locked() as record:
            allowed.peers()  # a WireGuard that does not answer could not be told either
            record["routes"].pop(address, None)
            self._save(record)
            self._carry_out(record)
            self._complain(allowed.INTERFACE)

    def adopt(self, host: str, peer: str, tunnel: str, endpoint: str) -> None:
        """A host has a new WireGuard key: it takes the place of the one before, with all addresses of that host."""
        _checked(tunnel)
        if not _is_key(peer):
            raise AgentError(f"{peer[:80]!r} is no WireGuard key")
        with self._locked() as record:
            allowed.peers()
            for route in record["routes"].values():
                if route["host"] == host:
                    route["peer"] = peer
            record.setdefault("peers", {})[host] = {"peer": peer, "tunnel": tunnel, "endpoint": endpoint}
            self._save(record)
            self._seat(record)
            self._complain(host)

    def bind(self, members: list[str]) -> None:
        """Give several migrations one decision: they commit together, once each has asked, or not at all."""
        with self._locked() as record:
            undecided = [member for member in members if member not in record["decisions"]]
            record.setdefault("groups", {}).update(dict.fromkeys(undecided, members))
            self._save(record)

    def switch(self, wanted: protocol.Move) -> str:
        """Commit: move the address from the peer `origin` to `peer`. Returns the outcome that holds.

        The outcome is WAITING as long as others of its group have not asked; then ask again. An error says that nothing
        is decided, or that it can't be told yet what is: never that the answer is no. That WireGuard does not do it is
        none: see `behind`.
        """
        with self._locked() as record:
            migration = wanted.migration
            if migration in record["decisions"]:
                return self._recorded(record, migration)
            asked = record.setdefault("asked", {})
            known = migration in asked
            asked[migration] = {
                "address": wanted.address,
                "origin": wanted.origin,
                "peer": wanted.peer,
                "host": wanted.host,
            }
            members = record.get("groups", {}).get(migration, [migration])
            moves = [asked[member] for member in members if member in asked]
            for move in moves:
                if record["routes"].get(move["address"], {}).get("peer") != move["origin"]:
                    raise AgentError(
                        f"{move['address']} does not belong to the source any more", allowed.STEP
                    )
            if len(moves) < len(members):
                if not known:
                    self._save(record)
                return WAITING
            for move in moves:
                record["routes"][move["address"]] = {"peer": move["peer"], "host": move["host"]}
            self._decide(record, members, COMMITTED)
            self._carried_out.update(members)
            if _moved(moves):
                moved = {move["address"] for move in moves}
                self.behind = {name: why for name, why in self.behind.items() if name not in moved}
            else:
                self._carry_out(record)
        return COMMITTED

    def call_off(self, migration: str) -> str:
        """Call a migration off, and all of its group, unless it has committed. Returns the outcome that holds."""
        with self._locked() as record:
            if migration in record["decisions"]:
                return self._recorded(record, migration)
            self._decide(record, record.get("groups", {}).get(migration, [migration]), ROLLED_BACK)
        return ROLLED_BACK

    def _decide(self, record: Record, members: list[str], outcome: str) -> None:
        """One outcome for all of them, on disk in one write."""
        for member in members:
            record["decisions"][member] = outcome
            for undecided in ("asked", "groups"):
                record.get(undecided, {}).pop(member, None)
        self._save(record)

    def _recorded(self, record: Record, migration: str) -> str:
        """The outcome that was found on record.

        Who wrote it may not have come to see it on the disk, or to tell WireGuard.
        """
        durable.sync(self.file)
        durable.sync(self.state)
        outcome = str(record["decisions"][migration])
        if outcome == COMMITTED and migration not in self._carried_out:
            self._carried_out.add(migration)
            self._carry_out(record)
        return outcome

    def restore(self) -> dict[str, str]:
        """Give WireGuard what the record says: after a start, and where it did not do it. Returns `behind`."""
        with self._locked() as record:
            self._seat(record)
            return self.behind

    def check_peer(self, peer: str) -> None:
        """AgentError if WireGuard does not have it: an address that moved there would be nobody's."""
        if peer not in allowed.peers():
            raise AgentError(allowed.unknown(peer), allowed.STEP)

    def show(self) -> protocol.Record:
        """The whole record."""
        with self._locked() as record:
            peers, asked = record.get("peers", {}), record.get("asked", {})
            return protocol.Record(
                routes={address: _route(route) for address, route in record["routes"].items()},
                decisions={name: protocol.Outcome(outcome) for name, outcome in record["decisions"].items()},
                peers={
                    host: protocol.HostKey(key["peer"], key["tunnel"], key["endpoint"])
                    for host, key in peers.items()
                },
                groups=record.get("groups", {}),
                asked={name: _move(name, move) for name, move in asked.items()},
            )

    def _seat(self, record: Record) -> None:
        """Everything: each host's key, and all addresses."""
        failed = {}
        for host, seated in record.get("peers", {}).items():
            try:
                allowed.set_key(seated, record["routes"])
            except Exception as failure:  # noqa: BLE001 - one host's key keeps no other from its own
                failed[host] = str(failure)
        self._carry_out(record)
        self.behind = {**self.behind, **failed}

    def _carry_out(self, record: Record) -> None:
        """Have WireGuard do what the record says. What it does not is `behind`, and to be tried again."""
        try:
            self.behind = allowed.apply(record["routes"])
        except Exception as failure:  # noqa: BLE001 - the record holds, whatever comes in its way
            why = str(failure) or type(failure).__name__
            self.behind = dict.fromkeys([*record["routes"], allowed.INTERFACE], why)

    def _complain(self, concerned: str) -> None:
        if concerned in self.behind:
            raise AgentError(
                f"it is on record, but WireGuard does not do it yet: {self.behind[concerned]}", allowed.STEP
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Record]:
        durable.folder(self.state)
        with locks.alone(self.state / "lock", locks.MADE):
            yield self._load()

    def _load(self) -> Record:
        try:
            record: Record = json.loads(self.file.read_text())
        except FileNotFoundError:
            return {"routes": {}, "decisions": {}}
        return record

    def _save(self, record: Record) -> None:
        durable.replace(self.file, json.dumps(record, indent=1))


def _route(kept: dict[str, str]) -> protocol.Route:
    return protocol.Route(kept["peer"], kept["host"])


def _move(migration: str, kept: Move) -> protocol.Move:
    return protocol.Move(migration, kept["address"], kept["origin"], kept["peer"], kept["host"])


def _moved(moves: list[Move]) -> bool:
    """Whether wireguard-go has taken over all of them. The kernel's WireGuard is told by `wg`."""
    try:
        return all(userspace.move(allowed.INTERFACE, move["address"], move["peer"]) for move in moves)
    except Exception:  # noqa: BLE001 - it is decided: what does not work this way is tried by the other
        return False


def _checked(address: str) -> None:
    try:
        ipaddress.IPv4Address(address)
    except ValueError as invalid:
        raise AgentError(f"{address!r} is not an IPv4 address") from invalid


def _is_key(text: str) -> bool:
    try:
        return len(base64.b64decode(text, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        return False
