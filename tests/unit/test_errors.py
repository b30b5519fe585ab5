"""Errors say where and what next, and survive what Prefect does to them."""

from __future__ import annotations

import pickle

import pytest

from sealift import errors


def test_message_has_host_step_and_remedy() -> None:
    error = errors.Refused("no room", host="destination", step="preflight", remedy="Free some")
    assert str(error) == "destination, preflight: no room. Free some"


@pytest.mark.parametrize(
    "error",
    [
        errors.SealiftError("plain"),
        errors.CommandFailed("failed", status=3, output="text", host="source", step="sync", remedy="Try"),
        errors.Refused("no", reasons=("one", "two"), step="preflight"),
        errors.HostUnreachable("gone", host="source"),
        errors.OutcomeUnknown("who knows"),
    ],
)
def test_an_error_is_the_same_after_pickling(error: errors.SealiftError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_bad_input_exits_with_1_and_a_missing_prerequisite_with_2() -> None:
    assert {kind.exit_status for kind in (errors.UnusableInput, errors.Refused, errors.HostUnreachable)} == {
        1
    }
    assert errors.PrerequisiteMissing.exit_status == 2


def test_what_python_calls_an_error_is_left_out() -> None:
    failed = errors.SealiftError(
        f"Docker does not answer: {ConnectionRefusedError(111, 'Connection refused')}"
    )
    assert str(failed) == "Docker does not answer: Connection refused"
