"""What the measurements say, held against other witnesses: tcpdump, CRIU's own files, the interfaces' counters."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from benchmarks import frames
from benchmarks.evaluate import evaluate
from benchmarks.faults.orchestrator import Orchestrator
from benchmarks.peers import ssh_path
from benchmarks.point import Point
from benchmarks.testbed import DOCKER_HOSTS, Testbed
from flows import scheduler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hosts import Hosts

    from sealift.inventory import Inventory

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]

ROOT = Path(__file__).parents[2]
CAPTURED = re.compile(r"^(\d+\.\d+) .*? IP [\d.]+\.(\d+) > [\d.]+\.(\d+): .*length (\d+)")
GAP_AGREES_MS = 5
CRIU_AGREES_MS = 10
BYTES_AGREE = 0.02


@pytest.fixture(scope="module")
def testbed(netns_lab: Inventory) -> Iterator[Testbed]:
    with Testbed.open(netns_lab, say=print) as opened:
        yield opened


def migrating(*arguments: Any) -> Any:
    from flows.migrate import migrate

    return migrate(*arguments)


@contextmanager
def captured(testbed: Testbed, port: int) -> Iterator[list[str]]:
    """What tcpdump sees at the client's host, a line a packet."""
    lines: list[str] = []
    words = ["tcpdump", "-i", "any", "-nn", "-tt", "-l", "-s", "96", f"tcp port {port}"]
    channel = testbed["client"].open(words)
    errors = channel.makefile_stderr("rb")
    while b"listening on" not in errors.readline():
        pass
    try:
        yield lines
        testbed.sh("client", "pkill -INT -x tcpdump")
        lines += channel.makefile("rb").read().decode().splitlines()
    finally:
        channel.close()


def longest_silence_ms(lines: list[str], port: int) -> float:
    """The longest time from a question on the wire to its answer."""
    asked: float | None = None
    longest = 0.0
    for line in lines:
        found = CAPTURED.match(line)
        if not found or found[4] == "0":
            continue
        at = float(found[1])
        if int(found[3]) == port and asked is None:  # again: the same question once more
            asked = at
        elif int(found[2]) == port and asked is not None:
            longest = max(longest, (at - asked) * 1000)
            asked = None
    return longest


def test_the_gap_agrees_with_tcpdump_and_the_bytes_with_the_interfaces_counters(testbed: Testbed) -> None:
    with captured(testbed, 6379) as lines:
        measured = evaluate(testbed, Point(workload="redis", memory_mb=40), 0, migrating)
    row = measured.row
    assert row["outcome"] == "committed", row
    on_the_wire = longest_silence_ms(lines, 6379)
    print(f"gap {row['client_gap_ms']:.1f} ms, tcpdump {on_the_wire:.1f} ms")
    assert row["client_gap_ms"] == pytest.approx(on_the_wire, abs=GAP_AGREES_MS)
    kinds = ("pages_bytes", "metadata_bytes", "image_bytes", "file_bytes", "sampled_bytes")
    payload = sum(row[name] for name in kinds)
    print(f"{payload} bytes, {row['tunnel_bytes']} by the tunnel's counter")
    assert payload == pytest.approx(row["tunnel_bytes"], rel=BYTES_AGREE)
    assert row["lost"] == 0
    assert row["cpu_source_s"] > 0
    assert row["peak_destination_bytes"] > 40_000_000
    frames.frame([row])  # every column is a documented one


def varints(data: bytes) -> dict[int, int | bytes]:
    """A protobuf message's fields, read by the wire format's own rules and not by the agents' code."""
    fields: dict[int, int | bytes] = {}
    rest = list(data)

    def number() -> int:
        value = shift = 0
        while True:
            byte = rest.pop(0)
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while rest:
        key = number()
        if key % 8 == 0:
            fields[key // 8] = number()
        else:
            length = number()
            fields[key // 8] = bytes(rest[:length])
            del rest[:length]
    return fields


def statistics(hosts: Hosts, host: str, pattern: str) -> dict[int, int]:
    """The one message in a statistics file of CRIU (images/stats.proto), by field numbers."""
    content = bytes.fromhex(hosts.sh(host, f"od -An -v -tx1 {pattern} | tr -d ' \\n'"))
    outer = varints(content[12:])
    (inner,) = outer.values()
    assert isinstance(inner, bytes)
    return {number: value for number, value in varints(inner).items() if isinstance(value, int)}


def test_dump_and_restore_agree_with_the_statistics_that_criu_has_written(hosts: Hosts) -> None:
    hosts.redis("redis", memory_mb=40)
    found: dict[str, dict[int, int]] = {}

    def look(name: str, host: str, pattern: str) -> Any:
        return lambda _: found.update({name: statistics(hosts, host, pattern)})

    report = hosts.engine(
        "redis",
        {
            "dumped": look("dump", "source", "/run/sealift/dumps/*/final/stats-dump"),
            "restored": look("restore", "destination", "/run/sealift/restore/*/stats-restore"),
        },
    )
    dump_ms = found["dump"][2] / 1000
    restore_ms = (found["restore"][3] + found["restore"][4]) / 1000
    print(f"dump {dump_ms:.1f} of {report.criu_dump_ms:.1f} ms, restore {restore_ms:.1f} ms")
    assert report.criu_dump_ms == pytest.approx(dump_ms, abs=CRIU_AGREES_MS)
    assert report.criu_restore_ms == pytest.approx(restore_ms, abs=CRIU_AGREES_MS)
    assert 0 < report.criu_dump_ms + report.criu_restore_ms < report.frozen_ms + CRIU_AGREES_MS


@pytest.mark.parametrize(
    "system",
    [
        "runc-script",
        *(pytest.param(other, marks=pytest.mark.whole) for other in ("docker", "podman", "floor")),
    ],
)
def test_peers_move_the_same_work_under_the_same_client(testbed: Testbed, system: Any) -> None:
    row = evaluate(testbed, Point(system=system, workload="redis", memory_mb=5), 0, migrating).row
    assert row["outcome"] == "committed", row["error"]
    assert (row["lost"], row["client_error"]) == (0, None)
    assert row["client_gap_ms"] > 0
    assert row["pages_bytes"] > 5_000_000
    if system == "floor":
        assert 0 < row["criu_dump_ms"] < row["final_dump_ms"]
        assert row["tunnel_mb_s"] > 0


def test_the_way_between_the_hosts_ends_with_the_testbed(hosts: Hosts, netns_lab: Inventory) -> None:
    def left() -> str:
        keys = hosts.sh("destination", "cat /root/.ssh/authorized_keys")
        return keys + "".join(hosts.sh(host, "mount") for host in DOCKER_HOSTS)

    with Testbed.open(netns_lab, say=print) as opened:
        ssh_path.open_path(opened)
        assert ssh_path.MARK in left()
        assert ssh_path.FOLDER in left()
    assert ssh_path.MARK not in left()
    assert ssh_path.FOLDER not in left()


def test_what_cannot_be_measured_is_a_row_with_the_reason(testbed: Testbed) -> None:
    row = evaluate(testbed, Point(system="whole-vm"), 0, migrating).row
    assert (row["outcome"], row["lab"], row["evidence"]) == ("absent", "netns", "absent")
    assert "no VM" in row["error"]
    row = evaluate(testbed, Point(workload="redis", memory_mb=1, strategy="pre-copy"), 0, migrating).row
    if row["outcome"] != "committed":  # this kernel does not track dirty pages
        assert row["outcome"] == "failed"
        assert row["error"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "SEALIFT_HOME": str(ROOT), **more}


@pytest.mark.whole
def test_the_notebook_runs(hosts: Hosts, prefect_api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import nbformat
    from nbclient import NotebookClient

    for name, value in environment(PREFECT_API_URL=prefect_api).items():
        monkeypatch.setenv(name, value)
    notebook = nbformat.read(ROOT / "notebooks" / "evaluation.ipynb", as_version=4)
    NotebookClient(notebook, timeout=200, resources={"metadata": {"path": str(ROOT)}}).execute()
    pictures = [
        output
        for cell in notebook.cells
        for output in cell.get("outputs", [])
        if "image/png" in output.get("data", {})
    ]
    assert len(pictures) == 3


def until(check: Any, timeout_s: float) -> Any:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if found := check():
                return found
        except OSError:
            pass
        time.sleep(0.5)
    raise AssertionError(f"not within {timeout_s} s")


@pytest.mark.whole
def test_a_sweep_that_is_killed_goes_on_where_it_was(hosts: Hosts, tmp_path: Path) -> None:
    plan, results = tmp_path / "plan.toml", tmp_path / "results"
    plan.write_text('name = "killed"\nrepeats = 3\n[[axes]]\nmemory_mb = [1]\n')
    command = [
        sys.executable,
        "-m",
        "cli",
        "bench",
        "run",
        str(plan),
        "--results",
        str(results),
        "--json",
    ]
    env = environment(PREFECT_HOME=str(tmp_path / "prefect"), PREFECT_API_URL="")
    with subprocess.Popen(command, env=env, cwd=ROOT, stdout=subprocess.DEVNULL) as doomed:
        until(lambda: list(results.glob("*.parquet")), 120)
        assert scheduler.servers(str(doomed.pid)), "its own Prefect server runs"
        doomed.kill()
    until(lambda: not scheduler.servers(str(doomed.pid)), 20)
    before = frames.load(results)
    assert 0 < len(before) < 3
    done = subprocess.run(
        command, env=env, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    after = frames.load(results)
    assert sorted(after["repeat"]) == [0, 1, 2]
    assert list(after["outcome"]) == ["committed"] * 3
    kept = after.set_index("row").loc[list(before["row"])]
    assert list(kept["started"]) == list(before["started"]), "measured again"
    left = [line for line in hosts.state("source")["containers"] if line]
    assert not left


@pytest.mark.whole
def test_schedules_are_deployed_and_a_worker_runs_one_to_its_end(
    hosts: Hosts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEALIFT_RESULTS", str(tmp_path / "results"))
    plan = tmp_path / "plan.toml"
    plan.write_text('name = "tiny"\nrepeats = 1\n[[axes]]\nmemory_mb = [1]\n')
    with Orchestrator.ready() as orchestrator:
        orchestrator.serve()
        orchestrator.deploy("--all")
        deployed = {one["name"]: one for one in orchestrator.ask("/deployments/filter")}
        crons = {
            name: (one["schedules"][0]["schedule"]["cron"], one["schedules"][0]["active"])
            for name, one in deployed.items()
            if one["schedules"]
        }
        assert crons == {
            "nightly": ("0 2 * * *", True),
            "nightly-compat": ("0 22 * * *", True),
            "weekly-peers": ("0 4 * * 0", True),
            "recover": ("*/10 * * * *", False),
        }
        assert {"migrate", "migrate-group"} <= deployed.keys()
        scheduled = orchestrator.ask(
            f"/deployments/{deployed['nightly']['id']}/create_flow_run",
            state={"type": "SCHEDULED"},
            parameters={"plan": str(plan), "results": str(tmp_path / "results")},
        )
        orchestrator.start_worker()

        def ended() -> Any:
            run = orchestrator.ask(f"/flow_runs/{scheduled['id']}", "GET")
            return run if run["state_type"] in {"COMPLETED", "FAILED", "CRASHED"} else None

        run = until(ended, 200)
        assert run["state_type"] == "COMPLETED", run["state"]
        artifacts = {one["key"] for one in orchestrator.ask("/artifacts/filter")}
    rows = frames.load(tmp_path / "results")
    assert list(rows["outcome"]) == ["committed"], list(rows["error"])
    assert {"sweep-results", "migration-steps", "migration-timeline"} <= artifacts
