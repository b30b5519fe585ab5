"""The mirror is the one that this machine's own APT uses, however that is written down."""

import shutil

import pytest

from sealift.errors import PrerequisiteMissing
from sealift.machine.mirror import Source, choose, configured_sources, debian_mirror, forwarded_options

needs_apt = pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt-get is not installed")

DEB822 = """\
Types: deb
URIs: http://mirror.example.org/debian-security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://off.example.org/debian
Suites: bookworm
Components: main

Types: deb
URIs: http://mirror.example.org/debian/
Suites: bookworm bookworm-updates
Components: main contrib
"""

ONE_LINE = """\
# deb http://commented.example.org/debian bookworm main
deb [arch=amd64] http://vendor.example.org/apt bookworm main
deb http://mirror.example.org/debian-security bookworm-security main
deb [trusted=no] http://lines.example.org/debian bookworm main contrib # ours
"""

VENDOR = "Origin: Vendor\nLabel: Debian\nSuite: stable\nCodename: bookworm\n"
DEBIAN = "Origin: Debian\nLabel: Debian\nSuite: stable\nCodename: bookworm\n"


@pytest.fixture
def apt(tmp_path):
    """APT with a configuration of the test's own, as options."""

    class Apt:
        lists = tmp_path / "lists"
        sources = tmp_path / "sources.list"
        parts = tmp_path / "sources.list.d"
        options = (
            *("-o", f"Dir::Etc::sourcelist={sources}", "-o", f"Dir::Etc::sourceparts={parts}"),
            *("-o", f"Dir::State::lists={lists}"),
        )

        def fetched(self, name, release):
            (self.lists / name).write_text(release)

    Apt.lists.mkdir()
    Apt.parts.mkdir()
    return Apt()


@needs_apt
def test_deb822_sources_are_understood(apt):
    (apt.parts / "debian.sources").write_text(DEB822)
    assert debian_mirror(apt.options) == "http://mirror.example.org/debian"


@needs_apt
def test_one_line_sources_are_understood(apt):
    apt.sources.write_text(ONE_LINE)
    assert debian_mirror(apt.options) == "http://lines.example.org/debian"


@needs_apt
def test_disabled_and_commented_sources_are_not_seen(apt):
    (apt.parts / "debian.sources").write_text(DEB822)
    apt.sources.write_text(ONE_LINE)
    seen = {source.uri for source in configured_sources(apt.options)}
    assert not any("off." in uri or "commented." in uri for uri in seen)


@needs_apt
def test_the_release_file_tells_debian_from_who_borrows_its_names(apt):
    apt.sources.write_text(
        "deb http://vendor.example.org/debian bookworm main\ndeb http://plain.example.org/pub bookworm main\n"
    )
    apt.fetched("vendor.example.org_debian_dists_bookworm_InRelease", VENDOR)
    apt.fetched("plain.example.org_pub_dists_bookworm_InRelease", DEBIAN)
    assert debian_mirror(apt.options) == "http://plain.example.org/pub"


@needs_apt
def test_a_list_of_mirrors_gives_its_first(apt, tmp_path):
    mirrors = tmp_path / "debian.list"
    mirrors.write_text(
        "# nearest first\nhttp://near.example.org/debian/\tpriority:1\nhttp://far.example.org/debian\n"
    )
    apt.sources.write_text(f"deb mirror+file:{mirrors} bookworm main\n")
    assert debian_mirror(apt.options) == "http://near.example.org/debian"


@needs_apt
def test_a_proxy_is_handed_on(apt):
    options = (
        *apt.options,
        "-o",
        "Acquire::http::Proxy=http://proxy.example.org:3128",
        "-o",
        "Acquire::Retries=4",
    )
    assert {'Acquire::http::Proxy "http://proxy.example.org:3128"', 'Acquire::Retries "4"'} <= set(
        forwarded_options(options)
    )


def test_no_debian_mirror_is_one_clear_sentence():
    security = Source(
        "http://mirror.example.org/debian-security", "bookworm-security", "Debian", "Debian-Security"
    )
    vendor = Source("http://vendor.example.org/debian", "bookworm", "Vendor", "Vendor")
    with pytest.raises(PrerequisiteMissing, match="names no Debian mirror"):
        choose([security, vendor])
