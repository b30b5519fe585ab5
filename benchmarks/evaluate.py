"""One point measured: the workload started, its client at work, the container moved, everything put away, a row."""

from __future__ import annotations

import os
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks import engine
from benchmarks.measure.link import shaped
from benchmarks.measure.origin import origin
from benchmarks.measure.watching import watching
from benchmarks.peers.system import Absent, Wish
from benchmarks.peers.systems import system
from benchmarks.testbed import CLIENT, DESTINATION, GATEWAY, SOURCE
from benchmarks.workloads import catalogue
from sealift.errors import SealiftError
from sealift.host import ssh

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.measure.watching import Watched
    from benchmarks.peers.system import Move
    from benchmarks.point import Point
    from benchmarks.testbed import Testbed
    from benchmarks.workloads.client import Findings, Responses
    from sealift.model import Report

BEFORE_S = 1.0
AFTER_S = 1.0
WARM_UP_S = 0.2
"""The client's first answers wait for addresses to be resolved and code to be read."""


@dataclass(frozen=True)
class Measured:
    """A row, and what the pictures of one migration need beside it."""

    row: dict[str, Any]
    responses: Responses | None = None
    report: Report | None = None


def evaluate(
    testbed: Testbed, point: Point, repeat: int, migrate: Callable[..., Report], *, sweep: str = ""
) -> Measured:
    """Measure a point once. What goes wrong with the system under measurement is a row too, with the reason."""
    point = point.settled()
    row: dict[str, Any] = {
        **_asked(point),
        **origin(testbed),
        "row": point.key(repeat),
        "sweep": sweep,
        "repeat": repeat,
        "started": datetime.now(UTC),
        "load": os.getloadavg()[0],
        "evidence": "absent",
    }
    try:
        measured, responses, report = _measure(testbed, point, migrate)
    except Absent as absent:
        return Measured({**row, "outcome": "absent", "error": str(absent)})
    except SealiftError as failed:
        return Measured({**row, "outcome": "failed", "error": str(failed)})
    return Measured({**row, **measured}, responses, report)


def _measure(
    testbed: Testbed, point: Point, migrate: Callable[..., Report]
) -> tuple[dict[str, Any], Responses, Report | None]:
    mover = system(point.system)
    workload = catalogue.make(point.workload, point.memory_mb, point.dirty_mb_s, point.locality, point.count)
    workload = replace(workload, small_files=point.small_files, volume_mb=point.volume_mb)
    mover.prepare(testbed, workload)
    wish = Wish(point.strategy, point.path == "plain", migrate if point.driver == "flow" else engine.alone)
    names = {f"b{secrets.token_hex(3)}": address for address in _addresses(testbed, point.at_once)}
    with ExitStack() as stack:
        stack.callback(_clean, testbed, mover, names)
        said = {}
        for name, address in names.items():
            testbed.assign(address, SOURCE)
            said[name] = mover.start(testbed, name, address, workload)
        stack.enter_context(shaped(testbed, point.link_mbit_s, point.latency_ms))
        with watching(testbed) as watched, ExitStack() as clients:
            at_work = {}
            for name, address in names.items():  # sshd takes ten commands at once over one connection
                host = clients.enter_context(ssh.connected(CLIENT, testbed.inventory.machine(CLIENT)))
                at_work[name] = clients.enter_context(workload.watch(host, address, said[name]))
            time.sleep(BEFORE_S)
            began = time.time()
            with ThreadPoolExecutor(point.at_once) as pool:
                moves = list(
                    pool.map(lambda pair: mover.move(testbed, pair[0], pair[1], wish), names.items())
                )
            ended = time.time()
            time.sleep(AFTER_S)
            found = [client.findings() for client in at_work.values()]
    worst = max(found, key=lambda findings: findings.longest_gap_ms)
    row = {**_moved(moves), **seen(found, began, ended), **_hosts(watched)}
    payload = sum(
        row.get(name) or 0 for name in ("pages_bytes", "metadata_bytes", "image_bytes", "file_bytes")
    )
    moving_s = sum(row.get(name) or 0 for name in MOVING) / 1000
    row["throughput_mb_s"] = payload / 1e6 / moving_s if moving_s else None
    return row, worst.responses, moves[0].report


def _addresses(testbed: Testbed, number: int) -> list[str]:
    """Addresses that nobody had lately: hosts remember for a minute which port an address was at.

    They come from the upper half of the workloads' network, which leaves the lower one to others.
    """
    network = testbed.inventory.network.workloads
    half = network.num_addresses // 2
    first = half + secrets.randbelow(half - number - 1)
    return [str(network[first + offset]) for offset in range(number)]


MOVING = ("sync_ms", "pre_dump_ms", "final_dump_ms", "transfer_ms")


def _clean(testbed: Testbed, mover: Any, names: dict[str, str]) -> None:
    for name, address in names.items():
        mover.clean(testbed, name)
        testbed.release(address)


def _asked(point: Point) -> dict[str, Any]:
    return {
        "system": point.system,
        "asked_strategy": point.strategy,
        "workload": point.workload,
        "memory_bytes": int(point.memory_mb * 1_000_000),
        "dirty_mb_s": point.dirty_mb_s,
        "locality": point.locality,
        "link_mbit_s": point.link_mbit_s,
        "latency_ms": point.latency_ms,
        "at_once": point.at_once,
        "path": point.path,
        "small_files": point.small_files,
        "volume_bytes": int(point.volume_mb * 1_000_000),
        "driver": point.driver,
    }


def _moved(moves: list[Move]) -> dict[str, Any]:
    """Of several moves at once: the longest times, the sums of bytes."""
    row: dict[str, Any] = {"strategy": moves[0].strategy}
    for name in dict.fromkeys(name for move in moves for name in move.facts):
        values = [move.facts[name] for move in moves if name in move.facts]
        if name == "cutover_unix":
            continue
        if name.endswith("_bytes"):
            row[name] = sum(values)
        elif isinstance(values[0], int | float):
            row[name] = max(values)
        else:
            row[name] = values[0]
    return row


def seen(found: list[Findings], began: float, ended: float) -> dict[str, Any]:
    """Columns of what the clients saw, of several the worst. The move lasted from `began` to `ended` (Unix time)."""
    during = [findings.responses.between(began, ended + AFTER_S) for findings in found]
    before = [
        findings.responses.between(findings.responses.began_unix + WARM_UP_S, began) for findings in found
    ]
    after = [findings.responses.between(ended, ended + AFTER_S) for findings in found]
    middle = [findings.responses.between(began, ended) for findings in found]
    errors = [findings.error for findings in found if findings.error]
    return {
        "client_gap_ms": max(
            *(part.longest_ms or 0.0 for part in during),
            *(_unanswered_ms(findings, ended) for findings in found),
        ),
        "client_before_ms": max(part.longest_ms or 0.0 for part in before),
        "client_median_ms": max(findings.median_ms for findings in found),
        "operations": sum(findings.operations for findings in found),
        "lost": sum(len(findings.faults) for findings in found),
        "client_error": "; ".join(errors) or None,
        "rate_before": sum(len(part.at_s) for part in before) / (BEFORE_S - WARM_UP_S),
        "rate_during": sum(len(part.at_s) for part in middle) / (ended - began),
        "rate_after": sum(len(part.at_s) for part in after) / AFTER_S,
    }


def _unanswered_ms(findings: Findings, ended: float) -> float:
    """How long a client whose connection was lost had no answer, at least: up to the end of the move."""
    responses = findings.responses
    if findings.error is None or not len(responses.at_s):
        return 0.0
    last = responses.began_unix + float((responses.at_s + responses.took_ms / 1000).max())
    return max(0.0, ended - last) * 1000


def _hosts(watched: Watched) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for host in (SOURCE, DESTINATION, GATEWAY):
        row[f"cpu_{host}_s"] = watched.cpu_s(host)
        row[f"peak_{host}_bytes"] = watched.peak_bytes(host)
    row["tunnel_bytes"] = watched.sent_bytes(SOURCE, tunnel=True)
    row["uplink_bytes"] = watched.sent_bytes(SOURCE, tunnel=False)
    return row
