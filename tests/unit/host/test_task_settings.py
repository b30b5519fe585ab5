"""Settings of threads that CRIU does not carry: read where they differ from the usual, and checked when they come."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from sealift_agent import cgroup, task_settings
from sealift_agent.messages import Misunderstood

SET = (
    "import ctypes, os, time\n"
    "os.sched_setaffinity(0, {0})\n"
    "ctypes.CDLL(None).prctl(29, 70000, 0, 0, 0)\n"
    "assert not ctypes.CDLL(None).syscall(251, 1, 0, 2 << 13 | 6)\n"
    "open('/proc/self/coredump_filter', 'w').write('0x7f')\n"
    "print('set', flush=True)\ntime.sleep(100)"
)


def never() -> int:
    raise AssertionError("something was set")


@pytest.mark.root
@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one processor is all processors")
def test_what_is_set_is_read_and_given_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        subprocess.Popen(["python3", "-c", SET], stdout=subprocess.PIPE) as one,
        subprocess.Popen(["sleep", "100"]) as other,
    ):
        assert one.stdout is not None
        one.stdout.readline()
        source = task_settings.Source()
        source.read([other.pid])
        source.write(tmp_path, [other.pid])
        assert not list(tmp_path.iterdir()), "all is as usual"
        source.write(tmp_path, [one.pid])
        listed = json.loads((tmp_path / task_settings.FILE).read_text())["threads"]
        assert listed == [[one.pid, one.pid, [0], 70000, 0x7F, 2 << 13 | 6]]
        listed[0][:2] = [other.pid, other.pid]
        (tmp_path / task_settings.FILE).write_text(json.dumps({"threads": listed}))
        monkeypatch.setattr(cgroup, "of_process", lambda _: Path("/nowhere"))
        monkeypatch.setattr(cgroup, "pids", lambda _: [other.pid])
        task_settings.put_back(tmp_path, lambda: other.pid)
        assert os.sched_getaffinity(other.pid) == {0}
        assert int(Path(f"/proc/{other.pid}/coredump_filter").read_text(), 16) == 0x7F
        one.kill()
        other.kill()


@pytest.mark.parametrize(
    "threads",
    [
        "all",
        [[1, 1, None, None, None]],
        [[0, 1, None, None, None, None]],
        [[1, "1", None, None, None, None]],
        [[1, True, None, None, None, None]],
        [[1, 1, 0, None, None, None]],
        [[1, 1, [-1], None, None, None]],
        [[1, 1, ["0"], None, None, None]],
        [[1, 1, None, -1, None, None]],
        [[1, 1, None, None, "0x7f", None]],
        [[1, 1, None, None, None, "6"]],
        [[1, 1, None, 1 << 63, None, None]],
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, threads: Any) -> None:
    (tmp_path / task_settings.FILE).write_text(json.dumps({"threads": threads}))
    with pytest.raises(Misunderstood):
        task_settings.put_back(tmp_path, never)


def test_no_list_is_nothing_to_do(tmp_path: Path) -> None:
    task_settings.put_back(tmp_path, never)
