"""A migration of a real program, with a client that notices everything, between two namespaced hosts."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hosts import DOCKER_HOSTS, counting, until_same

from benchmarks.workloads import nginx, postgresql, service
from sealift.lab import images
from sealift.migration.request import Options
from sealift.model import Step

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns, pytest.mark.usefixtures("prefect_api")]

GAP_MS = 2000


def test_longest_gap_of_a_redis_of_100_mb_is_at_most_two_seconds(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=100)
    with counting(hosts, address) as found:
        time.sleep(1)
        report = hosts.migrate("redis")
        time.sleep(1)
    print(found[0].summary(), f"frozen {report.frozen_ms:.0f} ms, cut {report.cut_ms:.0f} ms")
    assert found[0].intact, found[0].summary()
    assert found[0].longest_gap_ms <= GAP_MS
    assert report.memory_bytes > 100_000_000


def test_ten_migrations_back_and_forth_leave_nothing_on_either_host(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=5)
    before = {host: hosts.state(host) for host in (*DOCKER_HOSTS, "gateway", "client")}
    with counting(hosts, address) as found:
        hosts.migrate("redis")
        hosts.migrate("redis", "destination", "source")
        # The image has come to the destination for good: what follows is compared with this.
        after_two = {host: hosts.state(host) for host in DOCKER_HOSTS}
        for _ in range(4):
            hosts.engine("redis")
            hosts.engine("redis", source="destination", destination="source")
    print(found[0].summary())
    assert found[0].intact, found[0].summary()
    assert hosts.owner(address) == "source"
    assert hosts.inspect("source", "redis")["State"]["Running"]
    for host in before:
        left = until_same(hosts, host, after_two.get(host, before[host]))
        assert not left, f"{host}: {left}"
    image = frozenset({"layers"})
    for host in DOCKER_HOSTS:
        left = until_same(hosts, host, before[host], allow=image)
        assert not left, f"{host}: {left}"


def test_a_service_keeps_memory_files_offsets_identity_and_clocks(hosts: Hosts) -> None:
    address = hosts.address()
    options = [
        "--env",
        "COLOUR=blue",
        "--workdir",
        "/home/workload",
        "--user",
        "1000:33",
        "--hostname",
        "itself",
    ]
    service.start(hosts["source"], "service", address, hosts.network, say=print, options=options)
    with service.client(hosts["client"], address) as client:
        time.sleep(1)
        hosts.migrate("service")
        time.sleep(1)
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()
    first, last = found.raw["first"], found.raw["last"]
    assert first["uid"] == last["uid"] == 1000
    assert last["gid"] == 33
    assert last["cwd"] == "/home/workload"
    assert last["hostname"] == "itself"
    assert last["environment"]["COLOUR"] == "blue"
    assert len(last["threads"]) == 7
    assert all(later > earlier for earlier, later in zip(first["counts"], last["counts"], strict=True))
    assert last["mappings"]["volume"]["number"] > first["mappings"]["volume"]["number"]
    assert last["files"]["deleted"]["numbers"] > first["files"]["deleted"]["numbers"]


def test_every_row_that_postgresql_acknowledged_to_eight_writers_is_there_afterwards(hosts: Hosts) -> None:
    address = hosts.address()
    postgresql.start(hosts["source"], "postgresql", address, hosts.network, say=print)
    with postgresql.client(hosts["client"], address) as client:
        time.sleep(1)
        hosts.migrate("postgresql")
        time.sleep(1)
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()


def test_a_download_from_nginx_goes_on_and_has_the_right_content(hosts: Hosts) -> None:
    address = hosts.address()
    digest = nginx.start(hosts["source"], "nginx", address, hosts.network, 60, say=print)
    with nginx.client(hosts["client"], address, digest) as client:
        report = hosts.migrate("nginx")
        found = client.findings()
    print(found.summary())
    assert found.intact, found.raw["faults"] or found.summary()
    assert report.file_bytes > 60_000_000


def test_name_labels_environment_mounts_limits_restart_policy_and_address_are_kept(hosts: Hosts) -> None:
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    address = hosts.address()
    hosts.sh("source", "mkdir -p /srv/here && echo bound >/srv/here/file && chown 1000 /srv/here/file")
    hosts.sh("destination", "mkdir -p /srv/there")
    script = "import time; print('first', flush=True); time.sleep(1e9)"
    options = [
        *(
            "--label",
            "colour=blue",
            "--env",
            "WORD=two words",
            "--restart",
            "unless-stopped",
            "--memory",
            "200m",
        ),
        *("--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=1000:2000", "--cap-drop", "NET_RAW"),
        *("--read-only", "--tmpfs", "/scratch:size=1m", "--workdir", "/tmp", "--hostname", "itself"),
        *(
            "--volume",
            "kept:/data",
            "--volume",
            "/srv/here:/bound:ro",
            "--stop-signal",
            "INT",
            "--shm-size",
            "32m",
        ),
        *("--log-opt", "max-size=1m", "--network-alias", "other"),
    ]
    network = ["--network", hosts.network, "--ip", address]
    hosts.docker("source", "run", "-d", "--name", "box", *network, *options, tag, "python3", "-c", script)
    hosts.docker("source", "exec", "box", "sh", "-c", "echo volume >/data/file; echo memory >/scratch/file")
    before = hosts.inspect("source", "box")
    source = hosts.inventory.hosts["source"].model_copy(update={"binds": {"d": Path("/srv/here")}})
    destination = hosts.inventory.hosts["destination"].model_copy(update={"binds": {"d": Path("/srv/there")}})
    bound = hosts.inventory.model_copy(update={"hosts": {"source": source, "destination": destination}})
    dataclasses.replace(hosts, inventory=bound).engine("box")
    after = hosts.inspect("destination", "box")
    assert after["Name"] == before["Name"]
    assert after["Image"] == before["Image"]
    same = set(before["Config"]) - {"Image"}
    assert {key: after["Config"].get(key) for key in same} == {key: before["Config"][key] for key in same}
    same = set(before["HostConfig"]) - {"Binds", "Runtime"}
    kept = {key: before["HostConfig"][key] for key in same}
    assert {key: after["HostConfig"][key] or None for key in same} == {key: kept[key] or None for key in same}
    endpoint = after["NetworkSettings"]["Networks"][hosts.network]
    assert endpoint["IPAddress"] == address
    assert "other" in endpoint["Aliases"]
    mounts = {
        mount["Destination"]: (mount["Type"], mount["RW"], mount["Source"]) for mount in after["Mounts"]
    }
    assert mounts["/data"][:2] == ("volume", True)
    assert mounts["/bound"] == ("bind", False, "/srv/there")
    shown = hosts.docker(
        "destination", "exec", "box", "sh", "-c", "cat /data/file /bound/file /scratch/file; id -u"
    )
    assert shown.split() == ["volume", "bound", "memory", "0"]
    assert hosts.sh("destination", "stat -c %u /srv/there/file") == "1000"


def test_docker_logs_exec_stats_and_stop_work_at_the_destination(hosts: Hosts) -> None:
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    script = "import time,sys\nfor n in range(10**9): print('line', n, flush=True); time.sleep(0.01)"
    network = ["--network", hosts.network, "--ip", hosts.address()]
    hosts.docker("source", "run", "-d", "--name", "box", "--init", *network, tag, "python3", "-c", script)
    time.sleep(1)
    hosts.engine("box")
    time.sleep(0.5)
    lines = hosts.docker("destination", "logs", "box").splitlines()
    assert [line.split() for line in lines] == [["line", str(number)] for number in range(len(lines))]
    assert len(lines) > 100
    assert hosts.docker("destination", "exec", "box", "sh", "-c", "echo inside") == "inside"
    stats = json.loads(hosts.docker("destination", "stats", "--no-stream", "--format", "{{json .}}", "box"))
    assert int(stats["PIDs"]) >= 2
    assert not stats["MemUsage"].startswith("0B")
    hosts.docker("destination", "stop", "--time", "5", "box")
    state = hosts.inspect("destination", "box")["State"]
    assert (state["Status"], state["OOMKilled"]) == ("exited", False)
    hosts.docker("destination", "start", "box")
    assert hosts.inspect("destination", "box")["State"]["Running"]


def test_restart_policy_works_at_the_destination(hosts: Hosts) -> None:
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    network = ["--network", hosts.network, "--ip", hosts.address(), "--restart", "always"]
    hosts.docker(
        "source", "run", "-d", "--name", "box", *network, tag, "python3", "-c", "import time; time.sleep(1e9)"
    )
    hosts.engine("box")
    pid = hosts.inspect("destination", "box")["State"]["Pid"]
    hosts.sh("destination", 'kill -9 "$1"', str(pid))
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        state = hosts.inspect("destination", "box")["State"]
        if state["Running"] and state["Pid"] not in {0, pid}:
            break
        time.sleep(0.2)
    assert state["Running"]
    assert state["Pid"] != pid


def test_each_step_is_a_task_run_and_the_artifacts_are_there(hosts: Hosts) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterFlowRunId,
        FlowRunFilter,
        FlowRunFilterId,
    )

    hosts.redis("redis")
    report = hosts.migrate("redis")
    with get_client(sync_client=True) as client:
        run = max(client.read_flow_runs(), key=lambda one: one.created)
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
        artifacts = client.read_artifacts(
            artifact_filter=ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
        )
    assert run.name == "migrate redis: source to destination"
    assert run.parameters["container"] == "redis"
    assert {task.name.rpartition("-")[0] for task in tasks} == {step.value for step in Step}
    assert all(task.state.is_completed() for task in tasks)
    assert {artifact.type for artifact in artifacts} == {"table", "image", "progress"}
    assert [record.step for record in report.steps] == list(Step)


WITHOUT_PREFECT = """
import sys
from cli.main import main
try:
    main()
finally:
    assert "prefect" not in sys.modules
"""


@pytest.mark.parametrize("scheduled", [True, False], ids=["a flow run", "without Prefect"])
def test_command_line_migrates_and_prints_the_report_as_json(
    hosts: Hosts, prefect_api: str, scheduled: bool, tmp_path: Path
) -> None:
    """Where no API is configured Prefect is not loaded at all: its start takes longer than the migration."""
    address = hosts.redis("redis")
    command = [
        sys.executable,
        "-m",
        "cli",
        "migrate",
        "redis",
        "--from",
        "source",
        "--to",
        "destination",
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    if scheduled:
        environment["PREFECT_API_URL"] = prefect_api
    else:
        environment |= {"PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(Path(__file__).parents[2])}
        command[1:3] = ["-c", WITHOUT_PREFECT]
    with counting(hosts, address) as found:
        done = subprocess.run(
            [*command, "--json"], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
        )
    assert done.returncode == 0, done.stderr
    assert found[0].intact, found[0].summary()
    report = json.loads(done.stdout)
    assert [step["step"] for step in report["steps"]] == [step.value for step in Step]
    assert all({"started", "duration_ms", "sent_bytes"} <= set(step) for step in report["steps"])
    assert report["rounds"] == []
    assert report["frozen_ms"] > 0
    assert (report["strategy"], report["evidence"]) == ("stop-and-copy", "emulated")
    assert "does not track dirty pages" in report["why"]
    assert (report["lab"], report["accelerator"], report["outcome"]) == ("netns", "none", "committed")
    for step in Step:
        assert step.value in done.stderr, "the steps are said while they happen"


@pytest.mark.parametrize("streams", [pytest.param(1, marks=pytest.mark.whole), 3])
def test_a_compressed_migration_sends_less(hosts: Hosts, streams: int) -> None:
    address = hosts.redis("redis", memory_mb=20)
    with counting(hosts, address) as found:
        report = hosts.engine("redis", compress=True, streams=streams)
    assert found[0].intact, found[0].summary()
    assert report.packed_bytes is not None
    assert 0 < report.packed_bytes < report.memory_bytes / 4


def test_pages_go_over_several_connections_if_asked_for(hosts: Hosts) -> None:
    address = hosts.redis("redis", memory_mb=20)
    with counting(hosts, address) as found:
        report = hosts.engine("redis", streams=4)
    assert found[0].intact, found[0].summary()
    assert report.packed_bytes is None
    assert report.last_bytes > 20_000_000


BREAKS_ONCE = """#!/bin/sh
[ "$1" = swrk ] || exec /usr/sbin/criu "$@"
# runc asks for CRIU's version first, while it is armed; the second call is the restore.
[ -e /run/asked ] || { : >/run/asked; exec /usr/sbin/criu "$@"; }
rm -f /run/asked /usr/local/sbin/criu
echo "Error (broken): out of order" >&2
exit 1
"""


def test_a_cutover_that_was_rolled_back_is_tried_again_if_asked_for(hosts: Hosts) -> None:
    from flows.migrate import migrate

    address = hosts.redis("redis", memory_mb=5)
    hosts["destination"].put("/usr/local/sbin/criu", BREAKS_ONCE.encode(), mode=0o755)
    with counting(hosts, address) as found:
        report = migrate(
            "redis",
            "source",
            "destination",
            Options(evidence=hosts.evidence("destination")),
            hosts.path,
            retries=1,
        )
    assert found[0].intact, found[0].summary()
    assert report.outcome == "committed"
    assert any("rolled back at first" in warning and "restore" in warning for warning in report.warnings)
    assert hosts.owner(address) == "destination"


@pytest.mark.parametrize("how", ["lost", "given-to-another", "lost-at-both"])
def test_an_image_that_is_there_under_another_name_is_the_image(hosts: Hosts, how: str) -> None:
    hosts.redis("redis", memory_mb=1)
    identity = hosts.inspect("source", "redis")["Image"]
    tag = images.provide(hosts["destination"], images.REDIS, say=print)
    nameless = ("source", "destination") if how == "lost-at-both" else ("destination",)
    for host in nameless:
        hosts.docker(host, "tag", tag, "kept:1")
        hosts.docker(host, "rmi", tag)
    if how == "given-to-another":
        other = images.provide(hosts["destination"], images.PYTHON, say=print)
        hosts.docker("destination", "tag", other, tag)
    try:
        hosts.engine("redis")
        moved = hosts.inspect("destination", "redis")
        assert moved["Image"] == identity
        assert moved["Config"]["Image"] == (tag if how == "lost" else identity)
        inspect = ("image", "inspect", "--format", "{{.Id}}", tag)
        named = hosts.docker("destination", *inspect, check=False)
        assert (named == identity) is (how == "lost"), "a name that means something else keeps its meaning"
    finally:
        for host in nameless:
            hosts.docker(host, "tag", identity, tag)
            hosts.docker(host, "rmi", "kept:1")


RESTS = """CMD ["python3", "-c", "import time; time.sleep(1000)"]"""


def test_layers_that_the_destination_has_are_not_sent_again(hosts: Hosts) -> None:
    images.provide(hosts["destination"], images.PYTHON, say=print)  # another image there, of the same layer
    hosts.python("maker", "import os; open('/small', 'wb').write(os.urandom(60_000))")
    hosts.docker("source", "wait", "maker")
    identity = hosts.docker("source", "commit", "--change", RESTS, "maker", "changed:1")
    hosts.docker("source", "rm", "maker")
    network = ["--network", hosts.network, "--ip", hosts.address()]
    hosts.docker("source", "run", "-d", "--name", "box", *network, "changed:1")
    try:
        report = hosts.engine("box")
        assert hosts.inspect("destination", "box")["Image"] == identity
        assert 60_000 < report.image_bytes < 200_000
        size = ["python3", "-c", "import os; print(os.path.getsize('/small'))"]
        assert hosts.docker("destination", "exec", "box", *size) == "60000"
    finally:
        for host in ("source", "destination"):
            hosts.docker(host, "rm", "-f", "box", check=False)
            hosts.docker(host, "rmi", identity, check=False)


def test_an_image_without_a_name_is_sent_as_what_it_is(hosts: Hosts) -> None:
    hosts.python("box", "import time; time.sleep(1e9)")
    identity = hosts.docker("source", "commit", "box")  # nobody gives it a name
    hosts.docker("source", "rm", "-f", "box")
    network = ["--network", hosts.network, "--ip", hosts.address()]
    hosts.docker("source", "run", "-d", "--name", "box", *network, identity)
    try:
        hosts.engine("box")
        assert hosts.inspect("destination", "box")["Image"] == identity
    finally:
        for host in ("source", "destination"):
            hosts.docker(host, "rm", "-f", "box", check=False)
            hosts.docker(host, "rmi", identity)
