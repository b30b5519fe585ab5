"""All workloads by name, made to measure: how much memory, how fast it changes, how many of what."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from benchmarks.workloads import nginx, postgresql, redis, service
from benchmarks.workloads.client import Client
from benchmarks.workloads.workload import SCRIPTS, Workload
from sealift.errors import UnusableInput
from sealift.lab import images

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.host.ssh import Connection

PORT = 7000
PAUSE_S = 0.001
"""Between two questions: the gap is known to a millisecond, and the service has a processor left to work with."""

PROCESSES = 50
CONNECTIONS = 200


def make(name: str, memory_mb: float, dirty_mb_s: float, locality: float, count: int | None) -> Workload:
    """The workload of that name.

    `memory_mb` is the size of its data; `dirty_mb_s` how much of it changes in a second and `locality` the part that
    the changes fall into, where the workload can choose; `count` how many processes or connections. UnusableInput for a
    name that is not there.
    """
    makers: dict[str, Callable[[], Workload]] = {
        "redis": lambda: _redis(memory_mb),
        "postgresql": _postgresql,
        "nginx": lambda: _nginx(memory_mb),
        "service": _service,
        "memory": lambda: _python("memory", "memory_writer", [memory_mb, dirty_mb_s, locality]),
        "files": lambda: _python("files", "file_writer", [memory_mb, dirty_mb_s]),
        "processes": lambda: _python("processes", "processes", [count or PROCESSES, memory_mb]),
        "connections": lambda: _python(
            "connections",
            "memory_writer",
            [memory_mb, dirty_mb_s, locality],
            connections=count or CONNECTIONS,
        ),
    }
    if name not in makers:
        raise UnusableInput(f"there is no workload {name!r}", remedy=f"Workloads are: {', '.join(makers)}")
    return makers[name]()


def _redis(memory_mb: float) -> Workload:
    return Workload(
        "redis",
        images.REDIS,
        [*images.REDIS.command, "--enable-debug-command", "local"],
        lambda host, address, _: redis.client(host, address, PAUSE_S),
        redis.fill_command(int(memory_mb)),
    )


def _postgresql() -> Workload:
    return Workload(
        "postgresql",
        images.POSTGRESQL,
        images.POSTGRESQL.command,
        lambda host, address, _: postgresql.client(host, address),
        postgresql.TABLES_COMMAND,
    )


def _nginx(memory_mb: float) -> Workload:
    return Workload(
        "nginx",
        images.NGINX,
        nginx.serve_command(int(memory_mb)),
        nginx.client,
        nginx.READY_COMMAND,
    )


def _service() -> Workload:
    scripts = {"service.py": _script("service")}
    return Workload(
        "service",
        images.PYTHON,
        ["python3", "-u", f"{SCRIPTS}/service.py", str(PORT)],
        lambda host, address, _: service.client(host, address),
        _wait_for_port(),
        scripts,
    )


def _python(name: str, script: str, arguments: list[float], connections: int = 1) -> Workload:
    def watch(host: Connection, address: str, _: str) -> Client:
        return Client(host, "line_watch.py", address, str(PORT), str(connections), str(PAUSE_S))

    scripts = {f"{one}.py": _script(one) for one in ("answering", script)}
    command = ["python3", "-u", f"{SCRIPTS}/{script}.py", str(PORT), *(f"{value:g}" for value in arguments)]
    return Workload(name, images.PYTHON, command, watch, _wait_for_port(), scripts)


def _script(name: str) -> bytes:
    return (files("benchmarks.workloads") / "services" / f"{name}.py").read_bytes()


def _wait_for_port() -> list[str]:
    wait = f"import socket,time\nwhile socket.socket().connect_ex(('127.0.0.1', {PORT})): time.sleep(0.05)"
    return ["python3", "-c", wait]
