"""What a flow run ends with is the migration's own, even if Prefect's API has gone away and can't be told of it."""

from __future__ import annotations

import sys
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from httpx import TransportError

from flows import scheduler
from sealift.errors import HostUnreachable, SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable

Made = TypeVar("Made")

_kept: ContextVar[list[Any] | None] = ContextVar("kept", default=None)

UNTOLD = "Prefect's API has gone away: the flow run's end is not on its record"


def keep(made: Made) -> Made:
    """Keep what a flow is about to return, for `run`: all that comes after it is Prefect's."""
    if (kept := _kept.get()) is not None:
        kept.append(made)
    return made


def run(flow: Callable[..., Made], *arguments: Any) -> Made:
    """Run a flow that keeps what it returns. Returns or raises what its body did, whatever Prefect does after it.

    HostUnreachable if the API does not answer at the beginning.
    """
    kept: list[Made] = []
    token = _kept.set(kept)
    try:
        return flow(*arguments)
    except SealiftError:
        raise
    except Exception as untold:
        own = _own(untold)
        if kept or own is not None:
            sys.stderr.write(f"{UNTOLD}\n")
            scheduler.give_up()
        if kept:
            return kept[-1]
        if own is not None:
            raise own from None
        if isinstance(untold, TransportError):
            raise HostUnreachable(
                f"Prefect's API does not answer ({untold})",
                remedy="Start its server, or take PREFECT_API_URL away: then one is started for the command",
            ) from untold
        raise
    finally:
        _kept.reset(token)


def _own(untold: BaseException) -> BaseException | None:
    """What the flow's body ended with, if Prefect's error came while that was being reported."""
    behind: list[BaseException | None] = [untold]
    seen: set[int] = set()
    while behind:
        one = behind.pop()
        if isinstance(one, SealiftError | KeyboardInterrupt):
            return one
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            behind += [one.__cause__, one.__context__]
    return None
