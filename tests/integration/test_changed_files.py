"""Whatever a container does to its files between the last live pass and the freeze is there after the migration."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift.lab import images

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

PLACES = ("/var/tmp", "/home/workload")
LISTING = r"""
import hashlib, os, stat
for top in ("/var/tmp", "/usr", "/home/workload"):
    for place, directories, names in os.walk(top):
        directories.sort()
        if "__pycache__" in directories:
            directories.remove("__pycache__")
        for name in sorted(directories + names):
            path = os.path.join(place, name)
            seen = os.lstat(path)
            said = [ascii(path), oct(seen.st_mode), seen.st_uid]
            if stat.S_ISREG(seen.st_mode):
                said += [seen.st_mtime_ns, seen.st_nlink, hashlib.sha256(open(path, "rb").read()).hexdigest()[:16]]
            print(*said)
"""

BEGIN = """
import os, shutil, sys
if len(sys.argv) > 1:
    os.chdir(sys.argv[1])

def write(name, text, mode="w"):
    with open(name, mode) as file:
        file.write(text)
"""
MAKE = """
for number in range(1, 9):
    write(f"file {number}", str(number))
os.makedirs("folder/deep")
write("folder/deep/file", "deep")
os.link("file 8", "linked")
"""
BY_NAME = """
write("file 1", "more", "a")
os.unlink("file 2")
os.rename("file 3", "renamed")
os.chmod("file 4", 0o600)
write("new \\udcff", "new")
write("folder/deep/file", "more", "a")
os.symlink("new", "symlink")
write(".aside", "aside")
os.replace(".aside", "file 5")
os.utime("folder/deep", (1_000_000_007, 1_000_000_007))
"""
BY_DIRECTORY = """
os.makedirs("one/two")
write("one/two/file", "here")
os.rename("folder", "moved")
write("linked", "more", "a")
shutil.rmtree("one")
os.mkdir("one")
os.link("file 7", "again")
"""
IN_THE_IMAGE = """
own = os.path.dirname(os.__file__)
write(f"{own}/this.py", "# changed", "a")
os.unlink(f"{own}/antigravity.py")
os.chmod(f"{own}/tabnanny.py", 0o600)
write(f"{own}/json/new.py", "new")
os.makedirs("/usr/share/made/anew")
write("/usr/share/made/anew/file", "deep")
"""


@pytest.mark.parametrize(
    ("change", "elsewhere"),
    [(BY_NAME, ""), (BY_NAME, IN_THE_IMAGE), (BY_DIRECTORY, "")],
    ids=["names", "image", "trees"],
)
def test_late_changes_come_along(hosts: Hosts, change: str, elsewhere: str) -> None:
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    run = ["run", "-d", "--name", "box", "--network", hosts.network, "--ip", hosts.address()]
    command = ["python3", "-c", "import time; time.sleep(1e9)"]
    hosts.docker("source", *run, "--volume", "box:/home/workload", tag, *command)

    def inside(host: str, script: str, *words: str) -> str:
        return hosts.docker(host, "exec", "box", "python3", "-B", "-c", BEGIN + script, *words)

    for place in PLACES:
        inside("source", MAKE, place)
    before: list[str] = []

    def late(_: object) -> None:
        for place in PLACES:
            inside("source", change, place)
        inside("source", elsewhere)
        before.append(inside("source", LISTING))

    hosts.engine("box", {"armed": late})
    assert inside("destination", LISTING) == before[0]
