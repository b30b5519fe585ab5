"""Move the stock programs of the compatibility table, and show what came of them."""

from __future__ import annotations

import sys
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path  # noqa: TC003 - Prefect reads the annotations
from typing import Annotated

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from pydantic import Field

from benchmarks.compat import matrix, page
from flows.admission import admit_without_inventory
from flows.publish import UNSEEN
from sealift.errors import Refused


@flow(name="compat", flow_run_name="compat {names}")
def compat(
    results: Annotated[
        Path, Field(description="File of rows; those that were as they must be are not tried again.")
    ],
    names: Annotated[list[str] | None, Field(description="Programs of the table. Default: all.")] = None,
    dockers: Annotated[
        list[str] | None, Field(description="Versions of Docker: 26, 28 or 26:28. Default: 26 and 28.")
    ] = None,
    dated: Annotated[bool, Field(description="Try anew, into a file of today's date beside it.")] = False,
) -> Path:
    """Move each program there, back and there, with its client.

    Returns the file of all rows. Raises UnusableInput for a name that is none, Refused if a row is not as it must be.
    """
    admit_without_inventory()
    if dated:
        results = results.with_name(f"{results.stem}-{datetime.now(UTC):%Y-%m-%d}{results.suffix}")
    found = matrix.stored(results)
    tried = matrix.keep(
        matrix.chosen(names or []),
        dockers or matrix.DOCKERS,
        found=found,
        results=results,
        say=lambda text: print(text, file=sys.stderr),  # noqa: T201 - for the worker's log
    )
    with suppress(*UNSEEN):
        create_markdown_artifact(key="compat", markdown=page.markdown(tried), description=str(results))
    if wrong := [f"{row.key}: {matrix.wrong(row)}" for row in tried if matrix.wrong(row)]:
        raise Refused(
            "not as it must be: " + "; ".join(wrong),
            step="compat",
            remedy="CRIU's logs of the last failed migrations are in ~/.local/state/sealift/failed",
        )
    return results
