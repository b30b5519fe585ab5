"""The Debian mirror: the one in this machine's APT configuration.

APT itself reads that configuration (one-line and deb822, options, disabled stanzas): `apt-get update --print-uris`
lists the files that it would fetch, and fetches nothing. The Release file of an earlier `apt-get update` says which
of them is Debian's own archive. If there is no Release file yet, the names decide.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.errors import PrerequisiteMissing
from sealift.process import run

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

_RELEASE_URI = re.compile(
    r"^'(?P<uri>[^']+?)/?/dists/(?P<suite>[^']+)/InRelease' (?P<name>\S+)", re.MULTILINE
)
_SIDE_SUITE = re.compile(r"[-/](security|updates|proposed-updates|backports|backports-sloppy|debug)\b")
_FORWARDED_OPTION = re.compile(
    r'^(?P<name>Acquire::(?:https?::.*|Retries|Check-Valid-Until|Max-FutureTime)) "(?P<value>[^"]+)";$'
)


@dataclass(frozen=True)
class Source:
    """A suite that APT fetches here; `origin` and `label` are None if its Release file is missing."""

    uri: str
    suite: str
    origin: str | None
    label: str | None


def debian_mirror(apt_options: Sequence[str] = ()) -> str:
    """The base address of the Debian archive that this machine uses, without a final slash.

    `apt_options` are passed to APT (tests use their own configuration). Raises PrerequisiteMissing if APT names no such
    archive.
    """
    return choose(configured_sources(apt_options)).uri


def configured_sources(apt_options: Sequence[str] = ()) -> list[Source]:
    """All suites in APT's configuration, in its order."""
    listed = run(["apt-get", *apt_options, "--print-uris", "update"]).stdout
    lists = Path(_apt_path("Dir::State::lists/d", apt_options))
    return [
        Source(_resolve(found["uri"]), found["suite"], *_origin_and_label(lists / found["name"]))
        for found in _RELEASE_URI.finditer(listed)
    ]


def choose(sources: Iterable[Source]) -> Source:
    """Debian's main archive: neither its security archive, nor another archive with a suite of the same name."""
    main = [source for source in sources if not _SIDE_SUITE.search(source.suite)]
    for source in main:
        if source.origin == "Debian" and source.label == "Debian":
            return source
    for source in main:
        if source.origin is None and source.uri.endswith("/debian"):
            return source
    raise PrerequisiteMissing(
        "APT on this machine names no Debian mirror",
        remedy="Add one to /etc/apt/sources.list.d and run `apt-get update`",
    )


def forwarded_options(apt_options: Sequence[str] = ()) -> list[str]:
    """How this machine fetches (proxies, retries), as lines of an apt.conf."""
    dump = run(["apt-config", *apt_options, "dump"]).stdout
    found = (_FORWARDED_OPTION.match(line) for line in dump.splitlines())
    return [f'{option["name"]} "{option["value"]}"' for option in found if option]


def _apt_path(item: str, apt_options: Sequence[str]) -> str:
    shell = run(["apt-config", *apt_options, "shell", "FOUND", item]).stdout
    return shell.strip().removeprefix("FOUND='").removesuffix("'")


def _origin_and_label(release: Path) -> tuple[str | None, str | None]:
    try:
        text = release.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None, None
    fields = dict(re.findall(r"^(Origin|Label): *(.*?) *$", text, re.MULTILINE))
    return fields.get("Origin", ""), fields.get("Label", "")


def _resolve(uri: str) -> str:
    """`mirror+file:` names a list on this machine (cloud images of Debian have one): take its first entry."""
    if uri.startswith("mirror+file:"):
        try:
            lines = Path(uri.removeprefix("mirror+file:")).read_text(encoding="utf-8").splitlines()
        except OSError:
            return uri
        entries = (line.partition("#")[0].split() for line in lines)
        uri = next((entry[0] for entry in entries if entry), uri)
    return uri.rstrip("/")
