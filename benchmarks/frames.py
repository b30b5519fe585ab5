"""Results as data frames: one row per measured point and repeat, fixed columns, stored as Parquet.

Every row says where it comes from (machine, versions, revision, lab, accelerator, evidence), so that frames of
different days and machines can be put together and taken apart again. A missing value means "not
measured" or "does not apply".
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from sealift.errors import UnusableInput

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

FORMAT = b"1"
FORMAT_KEY = b"sealift.bench"
"""In the file's own metadata: a Parquet file without it is somebody else's."""


@dataclass(frozen=True)
class Column:
    """A column: its pandas type and what it holds."""

    dtype: str
    holds: str


TEXT, REAL, COUNT, TIME = "string", "Float64", "Int64", "datetime64[us, UTC]"

COLUMNS: dict[str, Column] = {
    "row": Column(TEXT, "Key: a hash of the point, and the number of its repeat."),
    "sweep": Column(TEXT, "Name of the sweep."),
    "started": Column(TIME, "When the measurement of this row began."),
    "system": Column(TEXT, "sealift, docker, runc-script, podman, whole-vm, floor."),
    "strategy": Column(TEXT, "How memory got across: pre-copy, stop-and-copy, post-copy, in place."),
    "asked_strategy": Column(TEXT, "What Sealift was asked for."),
    "workload": Column(TEXT, "Name of the workload (benchmarks.workloads.catalogue)."),
    "memory_bytes": Column(COUNT, "Size of the workload's data, as asked for."),
    "dirty_mb_s": Column(REAL, "Megabytes of pages written in a second, as asked for."),
    "locality": Column(REAL, "Part of the memory that is written to."),
    "link_mbit_s": Column(REAL, "Rate that the hosts' links were held to; missing: not held."),
    "latency_ms": Column(REAL, "Delay added to the source's link; missing: none."),
    "at_once": Column(
        COUNT, "How many migrations ran at the same time; client columns are the worst of them."
    ),
    "path": Column(TEXT, "tunnel: WireGuard between the hosts; plain: beside it, not encrypted."),
    "small_files": Column(COUNT, "Files in the writable layer that nobody touched."),
    "volume_bytes": Column(COUNT, "Size of a volume that nobody touched."),
    "driver": Column(TEXT, "Who called Sealift's steps: flow; engine, without Prefect."),
    "repeat": Column(COUNT, "From 0."),
    "outcome": Column(TEXT, "committed, failed, absent."),
    "error": Column(TEXT, "Why it failed or is absent."),
    "client_gap_ms": Column(REAL, "Longest response time from a second before the move to the end."),
    "client_before_ms": Column(REAL, "Longest response time before the move: what noise looks like."),
    "client_median_ms": Column(REAL, "Median response time."),
    "operations": Column(COUNT, "Answers in all."),
    "lost": Column(
        COUNT, "Answers that were not the expected ones: lost, repeated, reordered (10 are counted)."
    ),
    "client_error": Column(TEXT, "What ended the client's connection."),
    "rate_before": Column(REAL, "Answers a second before the move."),
    "rate_during": Column(REAL, "Answers a second from the first step to the last."),
    "rate_after": Column(REAL, "Answers a second after the move."),
    "frozen_ms": Column(REAL, "No process of the container ran, by the source's clock."),
    "cut_ms": Column(REAL, "No packet of the container passed, by the source's clock."),
    "stall_ms": Column(
        REAL, "Of the process that waited most for its memory after the freeze: all its waits."
    ),
    "longest_wait_ms": Column(REAL, "The longest wait of a process for one page after the freeze."),
    "complete_ms": Column(REAL, "From the restore's end until the last page of memory was there."),
    "total_ms": Column(REAL, "From the first step to the last."),
    "preflight_ms": Column(REAL, "Step: hosts and container looked at."),
    "attest_ms": Column(REAL, "Step: evidence fetched and verified."),
    "provision_ms": Column(REAL, "Step: keys released."),
    "sync_ms": Column(REAL, "Step: image and files while the container runs."),
    "pre_dump_ms": Column(REAL, "Step: rounds of memory while the container runs."),
    "final_dump_ms": Column(REAL, "Step: frozen, the rest dumped."),
    "transfer_ms": Column(REAL, "Step: what was dumped gets across."),
    "restore_ms": Column(REAL, "Step: processes made of it."),
    "network_switch_ms": Column(REAL, "Step: the address moves."),
    "finish_ms": Column(REAL, "Step: put away."),
    "criu_dump_ms": Column(REAL, "CRIU's own count: frozen for the final dump."),
    "criu_restore_ms": Column(REAL, "CRIU's own count: forking and restoring."),
    "rounds": Column(COUNT, "Pre-dumps."),
    "pages_bytes": Column(COUNT, "Memory pages sent; for peers everything that their script sent."),
    "last_bytes": Column(COUNT, "Those of Sealift's that were sent in the freeze."),
    "metadata_bytes": Column(COUNT, "CRIU's images other than pages."),
    "image_bytes": Column(COUNT, "Image layers."),
    "file_bytes": Column(COUNT, "Writable layer, volumes, log."),
    "sampled_bytes": Column(COUNT, "Zeros that measured the link beforehand."),
    "tunnel_bytes": Column(
        COUNT, "What left the source by the tunnel, by the interface's counter, headers and all."
    ),
    "uplink_bytes": Column(COUNT, "What left the source's other interfaces, the encrypted tunnel included."),
    "throughput_mb_s": Column(REAL, "Payload by the time of the steps that move it, in megabytes a second."),
    "tunnel_mb_s": Column(REAL, "The tunnel's rate, by iperf3 (rows of the floor)."),
    "cpu_source_s": Column(
        REAL, "Processor time of the source's processes, from start to end of the client."
    ),
    "cpu_destination_s": Column(REAL, "The same of the destination."),
    "cpu_gateway_s": Column(REAL, "The same of the gateway."),
    "peak_source_bytes": Column(COUNT, "Most memory above that before the move."),
    "peak_destination_bytes": Column(COUNT, "The same of the destination."),
    "peak_gateway_bytes": Column(COUNT, "The same of the gateway."),
    "lab": Column(TEXT, "netns, vm, real."),
    "accelerator": Column(TEXT, "What ran the lab's VMs: kvm, tcg, none."),
    "evidence": Column(TEXT, "The destination's evidence: real, emulated, absent."),
    "machine": Column(TEXT, "The machine's processor and how many it has."),
    "load": Column(REAL, "The machine's load average when the row began."),
    "kernel": Column(TEXT, "The source's kernel."),
    "versions": Column(TEXT, "Sealift, Python, and the source's Docker, runc, CRIU."),
    "revision": Column(TEXT, "Git revision; with a + where the tree had changes."),
}


def frame(rows: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a frame of exactly the documented columns and types. ValueError for a column that is not documented."""
    listed = list(rows)
    unknown = {name for row in listed for name in row} - COLUMNS.keys()
    if unknown:
        raise ValueError(f"not documented in benchmarks.frames.COLUMNS: {', '.join(sorted(unknown))}")
    return pd.DataFrame(
        {
            name: pd.Series([row.get(name) for row in listed], dtype=column.dtype)
            for name, column in COLUMNS.items()
        }
    )


def write(rows: pd.DataFrame, path: Path) -> None:
    """Store a frame: whole or not at all, even if this is killed."""
    table = pa.Table.from_pandas(rows, preserve_index=False)
    table = table.replace_schema_metadata({**(table.schema.metadata or {}), FORMAT_KEY: FORMAT})
    path.parent.mkdir(parents=True, exist_ok=True)
    making = path.with_name(f".{path.name}.{os.getpid()}")
    with making.open("wb") as file:
        pq.write_table(table, file, compression="zstd")
        file.flush()
        os.fsync(file.fileno())
    making.rename(path)


def read(path: Path) -> pd.DataFrame:
    """A stored frame. UnusableInput, naming the file, where it is missing, empty, cut short, or somebody else's."""
    remedy = "Name a file that `sealift bench run` has written"
    try:
        if not path.stat().st_size:
            raise UnusableInput(f"{path} is empty", remedy=remedy)
        table = pq.read_table(path)
    except FileNotFoundError as missing:
        raise UnusableInput(f"there is no result file {path}", remedy=remedy) from missing
    except (OSError, pa.ArrowException) as unreadable:
        reason = str(unreadable).splitlines()[0]
        raise UnusableInput(f"{path} is damaged or no Parquet file: {reason}", remedy=remedy) from unreadable
    made = (table.schema.metadata or {}).get(FORMAT_KEY)
    if made is None:
        raise UnusableInput(f"{path} is a Parquet file, but none of Sealift's results", remedy=remedy)
    if made != FORMAT:
        raise UnusableInput(
            f"{path} has format {made.decode(errors='replace')}; this version reads {FORMAT.decode()}",
            remedy="Read it with the version that wrote it",
        )
    return _typed(table.to_pandas(), path)


def load(*paths: Path | str) -> pd.DataFrame:
    """All rows of result files and of folders of them; without a path, of the newest results in `./results`.

    A row that is in several (a sweep that was killed while it put its rows together) counts once.
    """
    chosen: Sequence[Path] = [Path(path) for path in paths] or [Path("results")]
    frames = [read(file) for path in chosen for file in _files(path)]
    rows = pd.concat(frames, ignore_index=True) if frames else frame([])
    return rows.drop_duplicates(["sweep", "row", "started"], ignore_index=True)


def _files(path: Path) -> list[Path]:
    if not path.is_dir():
        return [path]
    found = sorted(path.rglob("*.parquet"))
    if not found:
        raise UnusableInput(
            f"{path} holds no result files", remedy="`sealift bench quick` makes some in five minutes"
        )
    return found


def _typed(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    missing = COLUMNS.keys() - set(rows.columns)
    if "row" in missing or "system" in missing:
        raise UnusableInput(f"{path} lacks the columns {', '.join(sorted(missing))}")
    # A file of before a column was thought of has nothing in it.
    nothing = [None] * len(rows)
    typed = {name: pd.Series(rows.get(name, nothing), dtype=column.dtype) for name, column in COLUMNS.items()}
    return pd.DataFrame(typed)


def ways(rows: pd.DataFrame) -> pd.Series[str]:
    """Who moved the container, with what was asked for where it was not left open: `sealift, post-copy`."""
    way = rows["system"].astype("string")
    for column, usual in (("asked_strategy", "auto"), ("driver", "flow")):
        chosen = rows[column].astype("string").fillna(usual)
        way = way.where(chosen == usual, way + ", " + chosen)
    return way
