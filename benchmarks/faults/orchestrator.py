"""Prefect for the matrix, started when it is first needed: a server that can be killed, and a worker."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

from sealift.errors import CommandFailed, UnusableInput
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
DEPLOYMENTS = "deployments/prefect.yaml"
DEPLOYMENT = "migrate"
POOL = "sealift"
USER = "sealift"
HELD = "benchmarks/faults/held.py:migrate"
START_S = 120
END_S = 20
BUSY_S = 30


class Orchestrator:
    """Use as `with Orchestrator.ready() as orchestrator`. Both processes have ended at the end of the block."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._server: subprocess.Popen[bytes] | None = None
        self._worker: subprocess.Popen[bytes] | None = None
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.api = f"http://127.0.0.1:{probe.getsockname()[1]}/api"
        self._password = secrets.token_urlsafe(32)
        self._deployment: str | None = None

    @classmethod
    @contextmanager
    def ready(cls) -> Iterator[Orchestrator]:
        """Starts nothing before it is needed."""
        with tempfile.TemporaryDirectory(prefix="sealift-prefect-") as home:
            orchestrator = cls(Path(home))
            try:
                yield orchestrator
            finally:
                for process in (orchestrator._worker, orchestrator._server):
                    _end(process, signal.SIGTERM)

    @property
    def environment(self) -> dict[str, str]:
        """The environment of processes that use this server."""
        return {
            **os.environ,
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_API_AUTH_STRING": f"{USER}:{self._password}",
            "PREFECT_API_AUTH_STRING": f"{USER}:{self._password}",
            "PREFECT_HOME": str(self._home),
            "PREFECT_PROFILES_PATH": str(self._home / "profiles.toml"),
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PYTHONPATH": str(ROOT),
            "SEALIFT_HOME": str(ROOT),
        }

    def serve(self) -> None:
        """Start the server if it does not run. After a kill it uses the same database."""
        if self._server is not None and self._server.poll() is None:
            return
        port = self.api.removesuffix("/api").rpartition(":")[2]
        self._server = self._start("server", "start", "--host", "127.0.0.1", "--port", port)
        deadline = time.monotonic() + START_S
        while True:
            with suppress(httpx.HTTPError):
                httpx.get(f"{self.api}/health", timeout=5).raise_for_status()
                return
            if self._server.poll() is not None or time.monotonic() > deadline:
                raise CommandFailed(f"Prefect's server does not start: {self.log()}", step="fault")
            time.sleep(0.2)

    def kill_server(self) -> None:
        """SIGKILL to the server. No server answers at its address after that."""
        _end(self._server, signal.SIGKILL)

    def worker_deployment(self) -> str:
        """Start a worker for runs of the deployment `migrate` if there is none. Returns the deployment's id.

        Its flow is loaded through `held`, so that a run can be held. Everything else is as in
        `deployments/prefect.yaml`.
        """
        self.serve()
        if self._deployment is None:
            self.deploy("--name", DEPLOYMENT)
            (made,) = self.ask("/deployments/filter", limit=1)
            self.ask(f"/deployments/{made['id']}", "PATCH", entrypoint=HELD)
            self._deployment = str(made["id"])
        self.start_worker()
        return self._deployment

    def deploy(self, *which: str) -> None:
        """Make the work pool and these deployments of `deployments/prefect.yaml`: `--all`, or `--name` and a name."""
        if not (ROOT / DEPLOYMENTS).is_file():
            raise UnusableInput(f"{ROOT} has no {DEPLOYMENTS}", remedy="Run this from a checkout")
        self._prefect("work-pool", "create", "--type", "process", POOL)
        self._prefect("deploy", *which, "--prefect-file", DEPLOYMENTS)

    def start_worker(self) -> None:
        """Start a worker if there is none."""
        if self._worker is None or self._worker.poll() is not None:
            self._worker = self._start("worker", "start", "--pool", POOL, "--type", "process")

    def ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        """Send a request to the API, as the UI does. Returns the answer. CommandFailed if there is none."""
        deadline = time.monotonic() + BUSY_S
        try:
            while True:
                answer = httpx.request(
                    method, f"{self.api}{path}", json=body or None, auth=(USER, self._password), timeout=10
                )
                if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > deadline:
                    break
                time.sleep(0.5)  # its database is busy; Prefect's own client tries again, too
            answer.raise_for_status()
        except httpx.HTTPError as failed:
            raise CommandFailed(f"Prefect's API: {method} {path}: {failed}", step="fault") from failed
        return answer.json() if answer.content else None

    def log(self) -> str:
        """The last output of server and worker."""
        return "; ".join(path.read_text(errors="replace")[-300:] for path in self._home.glob("*.log"))

    def _prefect(self, *words: str) -> None:
        command = [sys.executable, "-m", "prefect", "--no-prompt", *words]
        run(command, env=self.environment, cwd=ROOT, timeout_s=START_S)

    def _start(self, *words: str) -> subprocess.Popen[bytes]:
        with (self._home / f"{words[0]}.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "prefect", *words],
                env=self.environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )


def _end(process: subprocess.Popen[bytes] | None, how: signal.Signals) -> None:
    """End a process and its children, by force if they take too long."""
    if process is None or process.poll() is not None:
        return
    with suppress(ProcessLookupError):
        os.killpg(process.pid, how)
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
