"""The logs of a failed migration, kept on the controller: on the hosts they go with the migration."""

from __future__ import annotations

import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from sealift.errors import CommandFailed, MigrationFailed, SealiftError
from sealift.paths import state_dir
from sealift_agent.protocol import ReadDestinationLogs, ReadSourceLogs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.migration.parties import Parties

TIMEOUT_S = 3
KEPT = 20
"""Migrations whose logs are kept. Those of older ones are removed."""


def keep(parties: Parties, migration: str, failed: SealiftError) -> None:
    """Fetch the logs from both hosts before they are closed, and name their directory in the error's remedy.

    Nothing if it has not failed on a host, or if no host has any. A host that can't be asked is left out.
    """
    if not isinstance(failed, MigrationFailed | CommandFailed):
        return
    logs = dict(_fetched(parties))
    if not logs:
        return
    directory = state_dir() / "failed" / migration
    try:
        directory.mkdir(parents=True, mode=0o700, exist_ok=True)
        for name, text in logs.items():
            path = directory / name
            path.touch(mode=0o600)
            path.write_text(text, errors="surrogateescape")
    except OSError as full:
        failed.remedy = f"{failed.remedy or 'Migrate again'}. The logs could not be kept: {full}"
        return
    for older in sorted(directory.parent.iterdir())[:-KEPT]:  # names begin with the time
        shutil.rmtree(older, ignore_errors=True)
    failed.remedy = f"{failed.remedy or 'Migrate again'}. CRIU's logs are in {directory}"


def _fetched(parties: Parties) -> Iterator[tuple[str, str]]:
    for party, order in (
        (parties.opened_source, ReadSourceLogs()),
        (parties.opened_destination, ReadDestinationLogs()),
    ):
        if party is not None:
            with suppress(SealiftError):  # it is lost, or has come to nothing that has logs
                for name, text in party.agent.call(order, timeout_s=TIMEOUT_S).items():
                    yield f"{order.ROLE}-{_safe(name)}", text


def _safe(name: str) -> str:
    """A name that a host has chosen, as that of a file in the directory."""
    return "".join(each if each.isalnum() or each in "-._" else "_" for each in name)[-100:]
