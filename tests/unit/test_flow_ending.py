"""A flow ends with what its body made or raised, though Prefect's API is no longer there to be told."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

from flows import scheduler
from flows.ending import UNTOLD, keep, run
from sealift.errors import HostUnreachable, MigrationFailed

AWAY = httpx.ConnectError("Connection refused")


@pytest.fixture(autouse=True)
def given_up(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    told: list[bool] = []
    monkeypatch.setattr(scheduler, "give_up", lambda: told.append(True))
    return told


def test_what_was_made_is_returned(given_up: list[bool], capsys: pytest.CaptureFixture[str]) -> None:
    def flow() -> str:
        keep("report")
        raise AWAY  # as Prefect does, when it sets the run's state

    assert run(flow) == "report"
    assert given_up
    assert UNTOLD in capsys.readouterr().err


@pytest.mark.parametrize("own", [MigrationFailed("rolled back"), KeyboardInterrupt()])
def test_what_the_body_raised_is_raised(own: BaseException, given_up: list[bool]) -> None:
    def flow() -> str:
        try:
            raise own
        except BaseException:  # noqa: BLE001 - as Prefect catches it
            raise AWAY from OSError(111)  # a cause of its own, as httpx gives it

    with pytest.raises(type(own)) as raised:
        run(flow)
    assert raised.value is own
    assert given_up


def test_an_api_that_was_never_there_is_said_in_a_sentence(given_up: list[bool]) -> None:
    def flow() -> str:
        raise AWAY

    with pytest.raises(HostUnreachable, match="API does not answer"):
        run(flow)
    assert not given_up


def test_nothing_is_kept_from_one_run_to_the_next(given_up: list[bool]) -> None:
    assert run(lambda: keep("first")) == "first"

    def broken() -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(broken)
    assert not given_up


WAITING = """
import threading, time
from flows import scheduler
threading.Thread(target=time.sleep, args=(60,)).start()
print("the report")
scheduler.give_up()
scheduler.leave(3)
"""


def test_the_command_line_does_not_wait_for_what_nobody_takes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WAITING], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.returncode, done.stdout) == (3, "the report\n")
