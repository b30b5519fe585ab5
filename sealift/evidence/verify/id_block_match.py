"""Whether a report is of the guest that an id block and its keys name."""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealift.evidence.formats.id_block import IdAuth, IdBlock
    from sealift.evidence.formats.snp_report import SnpReport


def disagreements(report: SnpReport, block: IdBlock, auth: IdAuth) -> list[str]:
    """The names of the report's fields that differ from the id block and its keys."""
    pairs = {
        "measurement": (report.measurement, block.launch_digest),
        "family_id": (report.family_id, block.family_id),
        "image_id": (report.image_id, block.image_id),
        "id_key_digest": (report.id_key_digest, auth.id_key_digest),
        "author_key_digest": (report.author_key_digest, auth.author_key_digest),
    }
    found = [name for name, (left, right) in pairs.items() if not hmac.compare_digest(left, right)]
    numbers = {
        "guest_svn": (report.guest_svn, block.guest_svn),
        "policy": (report.policy, block.policy),
        "author_key_enabled": (report.author_key_enabled, auth.has_author),
    }
    return found + [name for name, (left, right) in numbers.items() if left != right]
