"""Hold two result sets against each other: a table of changes, and a failed run where one is a regression."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - Prefect reads the annotations
from typing import Annotated

from prefect import flow
from pydantic import Field

from benchmarks import frames
from benchmarks.compare import changes
from benchmarks.flows.publish import publish_comparison
from sealift.errors import Refused


@flow(name="compare", flow_run_name="compare {before} with {after}")
def compare(
    before: Annotated[Path, Field(description="Result file or folder to start from.")],
    after: Annotated[Path, Field(description="Result file or folder to judge.")],
) -> list[str]:
    """Compare two result sets.

    Args:
        before: Result file or folder to start from.
        after: Result file or folder to judge.

    Returns the changes, a line each. Raises Refused for a regression beyond the noise, UnusableInput for a file that is
    no result set.

    """
    found = changes(frames.load(before), frames.load(after))
    publish_comparison(found)
    worse = [str(change) for change in found if change.worse]
    if worse:
        raise Refused("slower than before: " + "; ".join(worse), step="compare", reasons=tuple(worse))
    return [str(change) for change in found]
