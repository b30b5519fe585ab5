"""Pre-dump: pages go ahead in rounds while the container runs, until another round no longer pays."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from sealift.model import Round

if TYPE_CHECKING:
    from sealift.migration.session import Session

PAGE_BYTES = 4096
SMALL_BYTES = 1 << 20
"""What is this little costs less in the final dump than another round."""

PAYS = 0.7
"""A round pays if it leaves at most this share of what the round before had to send."""


def pre_dump_round(session: Session) -> Round:
    """One round. CRIU sends what has changed since the last one straight to the destination's page server."""
    number = len(session.found.rounds) + 1
    name = f"round-{number}"
    started_ns = time.monotonic_ns()
    port = session.receiver.call("start_page_server", name=name, previous=session.found.last_images)
    stats = session.sender.call("pre_dump", name=name, port=port)
    session.receiver.call("finish_page_server")
    made = Round(
        number=number,
        duration_ms=(time.monotonic_ns() - started_ns) / 1e6,
        sent_bytes=stats.get("pages_written", 0) * PAGE_BYTES,
        skipped_bytes=stats.get("pages_skipped", 0) * PAGE_BYTES,
    )
    session.found.last_images = name
    session.found.rounds.append(made)
    return made


def another_pays(rounds: list[Round], most: int) -> bool:
    """Whether to do another round after these."""
    if len(rounds) >= most:
        return False
    if len(rounds) < 2:
        return not rounds or rounds[-1].sent_bytes > SMALL_BYTES
    return rounds[-1].sent_bytes > SMALL_BYTES and rounds[-1].sent_bytes <= PAYS * rounds[-2].sent_bytes
