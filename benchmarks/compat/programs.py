"""All programs of the table."""

from __future__ import annotations

from benchmarks.compat.servers import SERVERS
from sealift.errors import UnusableInput

PROGRAMS = {program.name: program for program in (*SERVERS,)}
