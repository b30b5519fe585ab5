"""All programs of the table."""

from __future__ import annotations

from benchmarks.compat.data import DATA
from benchmarks.compat.directories import DIRECTORIES
from benchmarks.compat.languages import LANGUAGES
from benchmarks.compat.servers import SERVERS
from benchmarks.compat.services import SERVICES

PROGRAMS = {program.name: program for program in (*DATA, *LANGUAGES, *SERVERS, *SERVICES, *DIRECTORIES)}
"""By their names, in the order of the table."""
