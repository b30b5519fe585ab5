"""A restore whose container is gone is ended, whatever state it is in."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift_agent import cgroup, dumps, proc
from sealift_agent.destination import afterwards

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.root, pytest.mark.skipif(os.geteuid() != 0, reason="control groups need root")]


@pytest.fixture
def group() -> Iterator[Path]:
    """A freezer group of the test's own."""
    root = cgroup.ROOT / "freezer" if (cgroup.ROOT / "freezer").is_dir() else cgroup.ROOT
    place = root / f"sealift-test-{os.getpid()}"
    try:
        place.mkdir()
        cgroup.is_frozen(place)
    except OSError as refused:
        if place.exists():
            place.rmdir()
        pytest.skip(f"no control group can be made here: {refused}")
    yield place
    deadline = time.monotonic() + 5
    while place.exists() and time.monotonic() < deadline:
        try:
            place.rmdir()
        except OSError:
            time.sleep(0.02)


@pytest.fixture
def restoring(tmp_path: Path) -> Iterator[tuple[Path, int, int]]:
    """A directory in which a runc waits for a CRIU: both are other programs by these names."""
    for name, program in (("runc", "sh"), ("criu", "sleep")):
        found = shutil.which(program)
        assert found is not None
        shutil.copy(Path(found).resolve(), tmp_path / name)
    place = tmp_path / "restore"
    place.mkdir()
    script = f"{tmp_path}/criu 1000 & echo $!; wait; wait"
    words = [str(tmp_path / "runc"), "-c", script, "restore", "--work-path", str(place)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as runc:
        assert runc.stdout is not None
        criu = int(runc.stdout.readline())
        while proc.stat(criu)[0] != "criu":
            time.sleep(0.01)
        yield place, runc.pid, criu
        runc.kill()
        for pid in (criu,):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


@pytest.mark.parametrize("frozen", [False, True])
def test_a_criu_and_the_runc_that_waits_for_it_end_also_where_they_are_frozen(
    restoring: tuple[Path, int, int], group: Path, frozen: bool
) -> None:
    place, runc, criu = restoring
    assert dumps.workers(place) == [runc]
    (group / "cgroup.procs").write_text(str(criu))
    if frozen:
        cgroup.freeze(group)
    try:
        afterwards._end_restore(place)
        assert dumps.workers(place) == []
        assert proc.stat(criu)[1][:1] in ([], ["Z"])
    finally:
        cgroup.thaw(group)


def test_nothing_is_waited_for_where_nothing_is_restored(tmp_path: Path) -> None:
    afterwards._end_restore(tmp_path)


@pytest.fixture
def forgotten() -> Iterator[tuple[str, int]]:
    """A container's groups, as Docker names them, with a process in a group that the container has made inside."""
    container = f"{os.getpid():064x}"
    controllers = [place for place in (cgroup.ROOT / "freezer", cgroup.ROOT / "pids") if place.is_dir()]
    groups = [root / "sealift-test" / container for root in controllers or [cgroup.ROOT]]
    try:
        with subprocess.Popen(["sleep", "1000"]) as process:
            try:
                for group in groups:
                    (group / "inner").mkdir(parents=True)
                    (group / "inner" / "cgroup.procs").write_text(str(process.pid))
                yield container, process.pid
            except OSError as refused:
                if refused.errno not in {errno.EROFS, errno.EACCES, errno.EPERM}:
                    raise
                pytest.skip(f"no control group can be made here: {refused}")
            finally:
                process.kill()
    finally:
        for group in groups:
            for place in (group / "inner", group, group.parent):
                if place.exists():
                    place.rmdir()


@pytest.mark.parametrize("frozen", [False, True])
def test_of_a_container_that_docker_has_forgotten_no_process_and_no_group_is_left(
    forgotten: tuple[str, int], frozen: bool
) -> None:
    container, pid = forgotten
    groups = cgroup.of_container(container)
    assert groups
    if frozen:
        cgroup.freeze(next(group for group in groups if "pids" not in group.parts))
    assert cgroup.end_container(container, 10) == 1
    assert proc.stat(pid)[1][:1] in ([], ["Z"])
    assert cgroup.of_container(container) == []
    assert cgroup.end_container(container, 10) == 0
