"""One answer of a key server, with limits for time and size. The server limits its clients, and it is not trusted."""

from __future__ import annotations

import http.client
import queue
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from sealift.errors import HostUnreachable
from sealift.evidence.fetch.cache import SIZE_LIMIT

_BUSY = {429, 503}
_DOUBLINGS = 5
_PIECE = 16 * 1024
_REMEDY = "It limits requests: wait and retry, use a cache, or give the certificates as files"


@dataclass(frozen=True, slots=True)
class Patience:
    """`request_s`: for one request and its whole answer. `busy_s`: for all requests, if the server asks to wait."""

    request_s: float = 20.0
    busy_s: float = 60.0
    pause_s: float = 1.0


DEFAULT_PATIENCE = Patience()


def download(url: str, what: str, name: str | None, patience: Patience) -> bytes:
    """The content at an http or https address. HostUnreachable for an error or an answer of an impossible size."""
    deadline = time.monotonic() + patience.busy_s
    tried = 0
    while True:
        outcome = _ask(url, patience.request_s)
        if isinstance(outcome, bytes):
            if not outcome or len(outcome) > SIZE_LIMIT:
                raise HostUnreachable(
                    "the key server's answer has an impossible size", host=name, remedy="Retry"
                )
            return outcome
        said = f"the key server {_said(outcome)} for {what}"
        if not isinstance(outcome, urllib.error.HTTPError) or outcome.code not in _BUSY:
            raise HostUnreachable(said, host=name, remedy=_REMEDY) from outcome
        # If the server names no time: twice as long each time, and with a random part, so that clients spread.
        own = patience.pause_s * 2 ** min(tried, _DOUBLINGS) * random.uniform(0.75, 1.25)  # noqa: S311 - no secret
        asked = retry_after_s(outcome.headers.get("Retry-After"))
        wait_s = own if asked is None else max(asked, patience.pause_s)
        if time.monotonic() + wait_s > deadline:
            raise HostUnreachable(
                f"{said}, and asks to wait for {wait_s:.0f} s", host=name, remedy=_REMEDY
            ) from outcome
        time.sleep(wait_s)
        tried += 1


def retry_after_s(text: str | None) -> float | None:
    """The seconds in a Retry-After: a number or a date (RFC 9110, section 10.2.3); None for anything else."""
    if text is None:
        return None
    if text.strip().isascii() and text.strip().isdecimal():
        return float(text.strip()[:9])
    try:
        moment = parsedate_to_datetime(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
        return max(0.0, (moment - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _said(fault: Exception) -> str:
    if isinstance(fault, urllib.error.HTTPError):
        return f"answers {fault.code}"
    return "does not answer in full" if isinstance(fault, TimeoutError) else "does not answer"


def _ask(url: str, limit_s: float) -> bytes | Exception:
    """One request, in its own thread, because a server that sends single bytes never meets a socket's timeout."""
    answers: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()
    given_up = threading.Event()

    def work() -> None:
        request = urllib.request.Request(url, headers={"Accept": "*/*"})  # noqa: S310 - the caller checked the scheme
        try:
            with urllib.request.urlopen(request, timeout=limit_s) as answer:  # noqa: S310 - as above
                content = b""
                while len(content) <= SIZE_LIMIT and (piece := answer.read1(_PIECE)):
                    content += piece
                    if given_up.is_set():
                        return
            answers.put(content)
        except urllib.error.HTTPError as error:
            error.close()
            answers.put(error)
        except (OSError, ValueError, http.client.HTTPException) as error:
            answers.put(error)

    threading.Thread(target=work, daemon=True).start()
    try:
        return answers.get(timeout=limit_s)
    except queue.Empty:
        given_up.set()
        return TimeoutError()
