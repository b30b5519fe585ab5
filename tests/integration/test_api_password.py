"""Prefect's API beside a worker that is root: nothing is started without its password, nor with any inventory."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

ROOT = Path(__file__).parents[2]
START_S = 240
RUN_S = 90
BUSY_S = 30
PLANNED_S = 120
"""The scheduler looks at new deployments every few seconds, and at all of them once a minute."""
INVENTORY = """
[hosts.source]
address = "192.0.2.1"
host_key = "ssh-ed25519 AAAA"
key_file = "/dev/null"
[hosts.destination]
address = "192.0.2.2"
host_key = "ssh-ed25519 AAAA"
key_file = "/dev/null"
[gateway]
address = "192.0.2.3"
host_key = "ssh-ed25519 AAAA"
key_file = "/dev/null"
"""


class Served:
    """What `deployments/start` has started."""

    def __init__(self, home: Path, port: int) -> None:
        self.home = home
        self.api = f"http://127.0.0.1:{port}/api"
        self.inventories = home / "inventories"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "SEALIFT_PREFECT": str(home / "prefect"),
            "SEALIFT_PREFECT_PORT": str(port),
            "SEALIFT_INVENTORIES": str(self.inventories),
            "PREFECT_WORKER_QUERY_SECONDS": "1",
        }

    @property
    def password(self) -> str:
        return (self.home / "prefect" / "password").read_text().strip()

    @property
    def log(self) -> str:
        return (self.home / "log").read_text(errors="replace")

    def ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        user, _, password = self.password.partition(":")
        deadline = time.monotonic() + BUSY_S
        while True:
            answer = httpx.request(
                method, self.api + path, json=body or None, auth=(user, password), timeout=20
            )
            if answer.status_code != 503 or time.monotonic() > deadline:  # its database is busy
                answer.raise_for_status()
                return answer.json()
            time.sleep(0.5)

    def start(self, **parameters: Any) -> str:
        """A run of `migrate` as the UI starts one; its id."""
        deployed = {one["name"]: one["id"] for one in self.ask("/deployments/filter")}
        made = self.ask(
            f"/deployments/{deployed['migrate']}/create_flow_run",
            state={"type": "SCHEDULED"},
            parameters={"container": "c", "source": "source", "destination": "destination", **parameters},
        )
        return made["id"]

    def failure(self, run: str) -> str:
        """Why a run failed."""
        deadline = time.monotonic() + RUN_S
        while time.monotonic() < deadline:
            state = self.ask(f"/flow_runs/{run}", "GET")["state"]
            if state["type"] in {"COMPLETED", "FAILED", "CRASHED"}:
                assert state["type"] == "FAILED", state
                return state["message"]
            time.sleep(0.5)
        pytest.fail(f"the run does not end: {state}; {self.log[-2000:]}")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with started(Served(tmp_path_factory.mktemp("served"), port)) as one:
        yield one


@contextmanager
def started(one: Served) -> Iterator[Served]:
    one.inventories.mkdir()
    (one.inventories / "sealift.toml").write_text(INVENTORY)
    with (one.home / "log").open("wb") as log:
        process = subprocess.Popen(
            [ROOT / "deployments" / "start"], env=one.environment, cwd="/", stdout=log, stderr=log
        )
    try:
        deadline = time.monotonic() + START_S
        while "Worker" not in one.log or "started!" not in one.log:
            assert process.poll() is None, one.log
            assert time.monotonic() < deadline, one.log
            time.sleep(0.5)
        yield one
    finally:
        process.terminate()
        process.wait(60)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{one.api}/health")


def test_a_local_user_without_the_password_is_told_nothing_and_starts_nothing(served: Served) -> None:
    for method, path in (("GET", "/admin/version"), ("POST", "/deployments/filter"), ("POST", "/flow_runs/")):
        for given in (None, ("sealift", "guessed")):
            answer = httpx.request(method, served.api + path, json={}, auth=given, timeout=20)
            assert answer.status_code == 401, (path, answer.text)
    assert all(run["auto_scheduled"] for run in served.ask("/flow_runs/filter"))
    assert {"recover", "migrate", "migrate-group"} <= {
        one["name"] for one in served.ask("/deployments/filter")
    }


def test_the_scheduler_plans_the_runs_of_every_schedule(served: Served) -> None:
    """Prefect 3.8's cannot with SQLAlchemy 2.1: it logs an error in each turn, and nothing is ever run."""
    deployed = {one["id"]: one["name"] for one in served.ask("/deployments/filter")}
    deadline = time.monotonic() + PLANNED_S
    while True:
        runs = [run for run in served.ask("/flow_runs/filter") if run["auto_scheduled"]]
        if {deployed[run["deployment_id"]] for run in runs} == {"nightly", "nightly-compat", "weekly-peers"}:
            return
        assert time.monotonic() < deadline, served.log[-3000:]
        time.sleep(1)


def test_the_server_listens_on_the_loopback_interface_only(served: Served) -> None:
    port = f"{int(served.api.rpartition(':')[2].removesuffix('/api')):04X}"
    places = [
        line.split()[1:4]
        for table in ("tcp", "tcp6")
        for line in Path("/proc/net", table).read_text().splitlines()
    ]
    assert {local for local, _, state in places if local.endswith(f":{port}") and state == "0A"} == {
        f"0100007F:{port}"
    }


def test_the_password_is_in_no_command_line_and_no_log(served: Served) -> None:
    assert (served.home / "prefect" / "password").stat().st_mode & 0o777 == 0o600
    _, _, password = served.password.partition(":")
    assert len(password) == 64
    assert password not in served.log
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            words = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        assert password.encode() not in words, words


def test_a_run_has_no_inventory_from_elsewhere_and_does_not_go_without_evidence_unasked(
    served: Served,
) -> None:
    elsewhere = served.home / "mine.toml"
    elsewhere.write_text(INVENTORY)
    allowing = served.inventories / "allowing.toml"
    allowing.write_text(f'{INVENTORY}\n[worker]\nwithout_evidence = ["destination"]\n')
    runs = [
        served.start(inventory=str(elsewhere)),
        served.start(options={"evidence": "none"}),
        served.start(options={"evidence": "none"}, inventory="allowing.toml"),
    ]
    outside, unasked, asked = [served.failure(run) for run in runs]
    assert f"{elsewhere} is not below {served.inventories}" in outside, outside
    assert "may not ask for evidence none" in unasked, unasked
    assert "host_key in the inventory is not an SSH public key" in asked, (
        asked
    )  # it has come as far as to connect


COMMAND_LINE = """
import sys
from flows import scheduler
scheduler.set_up()
from flows.ephemeral import demand_password
demand_password()
import httpx
from prefect import flow
from prefect.client.orchestration import get_client

@flow
def asking():
    with get_client(sync_client=True) as client:
        url = str(client.api_url).rstrip("/")
        print(client.read_flow_runs(limit=1)[0].name != "", httpx.post(url + "/flow_runs/filter", json={}).status_code)

asking()
"""


def test_the_server_of_a_command_line_asks_for_a_password_too(tmp_path: Path) -> None:
    """It listens on the loopback interface, where any local user could ask it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", COMMAND_LINE],
        env={**environment, "PREFECT_HOME": str(tmp_path), "PREFECT_PROFILES_PATH": str(tmp_path / "p.toml")},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.stdout.split() == ["True", "401"], done.stderr
