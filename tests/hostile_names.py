"""Names of files that a tool may take for something else, made, changed and listed: `hostile_names.py WHAT PLACE…`.

A script for inside a container, or for a host: the standard library only. `list` prints one line for each file, equal
where names, kinds, modes, owners, times, attributes, contents, targets and hard links are.
"""

import contextlib
import hashlib
import os
import socket
import stat
import sys

NAMES = [
    b"#innodb_redo", b"#", b";", b"# x", b";x", b"-", b"--", b"-x", b"--delete", b"--files-from=-", b"+", b"+ ",
    b"- ", b"+ x", b"- x", b"- *", b"!", b"! ", b". x", b": x", b":", b"::", b":x", b"a:b", b" ", b"  ", b" x",
    b"x ", b"\t", b"a\tb", b"\n", b"\nx", b"x\n", b"a\nb", b"\r", b"a\rb", b"\x0b", b"\x0c", b"\x1c", b"~",
    b"~root", b"x~", b"\\", b"a\\b", b"\\n", b"\\#012", b"\\040", b"\\012", b"'", b'"', b"a'b", b'a"b', b"*", b"?",
    b"[", b"]", b"[a]", b"*.*", b"{a,b}", b"**", b"***", b"`id`", b"$HOME", b"$(id)", b"|", b"&", b"<", b">", b"%",
    b"%s", b"%n", b"%RSYNC_USER_NAME%", b"^", b"=", b",", b"a=b", b"a,b", b"Total bytes sent: 0", b"core", b"\xff",
    b"\xc3", b"\xed\xa0\x80", b"\xc3\xa4", b"a\xcc\x88", b"\xc3\x84", b"\xe2\x80\xa8", b"a\xc2\x85b",
    b"a\xc2\xa0b", b"\x7f", b"\x1b[2J", b"\x01", b"Case", b"case", b"CASE", b"...", b"..x", b". .", b".x", b"x",
    b"CVS", b".rsync-filter", b".cvsignore", b".~tmp~", b".rsync-partial", b"x.part", b"link_remap.1",
    b"link_remap.", b"x (deleted)", b"n" * 255, b"\xff" * 255, b"#" + b"n" * 254,
]  # fmt: skip

DEEP, LEVELS = b"#" * 200, 18
"""Directories in each other, up to 400 bytes below PATH_MAX: the host's own path to them is longer by as much."""


def write(name, content, mode="ab"):
    with open(name, mode) as file:
        file.write(content)


def down(name, levels):
    """Go down, making what is not there: a path as a whole may be longer than any that can be opened."""
    for _ in range(levels):
        if not os.path.isdir(name):
            os.mkdir(name)
        os.chdir(name)


def make(place):
    """Of each name: files, a directory with a file, a link, hard links."""
    os.chdir(place)
    for kind in (b"changed", b"removed", b"renamed", b"links", b"#folder", b"several", b"; folder"):
        os.mkdir(kind)
    for number, name in enumerate(NAMES):
        write(name, b"%d" % number)
        for kind in (b"changed", b"removed", b"renamed", b"several"):
            write(kind + b"/" + name, b"%d" % number)
        os.symlink(name, b"links/" + name)
        os.link(b"several/" + name, b"several/" + name[:253] + b".2")
        os.mkdir(b"#folder/" + name)
        write(b"#folder/" + name + b"/" + name, b"deep")
    os.chdir(place)
    down(DEEP, LEVELS)
    write(b"#deepest", b"deep")


def by_name(place):
    """Changes that names tell: written, made (also FIFOs and sockets), removed, renamed, other owners, attributes."""
    os.chdir(place)
    for number, name in enumerate(NAMES):
        write(name, b"more")
        os.utime(name, ns=(1_000_000_007, 1_000_000_007 + number))
        write(b"#folder/" + name + b"/" + name, b"more")
        for kind in (b"changed",):
            write(kind + b"/" + name, b"more")
        os.chmod(b"changed/" + name, 0o600 + number % 8)
        os.chown(b"changed/" + name, number, number + 1)
        os.unlink(b"removed/" + name)
        os.rename(b"renamed/" + name, b"renamed/new" + name[:252])
        os.unlink(b"links/" + name)
        os.symlink(b"#folder/" + name, b"links/" + name)
        if number % 3 == 0:
            os.mkfifo(b"; folder/" + name)
        elif number % 3 == 1 and len(name) < 100:
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(b"; folder/" + name)
        else:
            write(b"; folder/" + name, b"new")
        with contextlib.suppress(OSError):  # where the file system has none
            os.setxattr(b"changed/" + name, b"user.#" + name[:200], name[:200])
    down(DEEP, LEVELS)
    write(b"#deepest", b"more")


def by_directory(place):
    """Changes that only a comparison of the trees tells: directories and hard links come and go."""
    by_name(place)
    os.chdir(place)
    for number, name in enumerate(NAMES):
        write(b"several/" + name, b"more")
        os.rename(b"#folder/" + name, b"; folder/dir" + name[:250])
        os.mkdir(b"removed/" + name)
        write(b"removed/" + name + b"/" + name, b"new")
        if number % 2:
            os.unlink(b"several/" + name[:253] + b".2")
            os.link(b"several/" + name, b"#folder/" + name)


def entries(handle, place):
    """Every file below an open directory, with the descriptor of its own."""
    for name in sorted(os.fsencode(entry) for entry in os.listdir(handle)):
        seen = os.stat(name, dir_fd=handle, follow_symlinks=False)
        yield handle, place + b"/" + name, name, seen
        if stat.S_ISDIR(seen.st_mode):
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
            yield from entries(inner, place + b"/" + name)
            os.close(inner)


def attributes(handle, name, seen):
    """Extended attributes: asked of a file that is opened, since its path may be too long."""
    if not (stat.S_ISREG(seen.st_mode) or stat.S_ISDIR(seen.st_mode)):
        return []
    opened = os.open(name, os.O_RDONLY, dir_fd=handle)
    try:
        found = sorted(name for name in os.listxattr(opened) if name.startswith("user."))
        return [(ascii(name), os.getxattr(opened, name)) for name in found]
    finally:
        os.close(opened)


def show(place):
    """Print each file of a tree."""
    first = {}
    top = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
    for handle, path, name, seen in entries(top, b"."):
        said = [ascii(path), oct(seen.st_mode), seen.st_uid, seen.st_gid, seen.st_mtime_ns, seen.st_rdev]
        said += attributes(handle, name, seen)
        if not stat.S_ISDIR(seen.st_mode):
            said += [seen.st_nlink, ascii(first.setdefault((seen.st_dev, seen.st_ino), path))]
        if stat.S_ISREG(seen.st_mode):
            opened = os.open(name, os.O_RDONLY, dir_fd=handle)
            with os.fdopen(opened, "rb") as file:
                said.append(hashlib.sha256(file.read()).hexdigest())
        elif stat.S_ISLNK(seen.st_mode):
            said.append(ascii(os.readlink(name, dir_fd=handle)))
        print(*said)
    os.close(top)


if __name__ == "__main__":
    what, *places = sys.argv[1:]
    done = {"make": make, "by-name": by_name, "by-directory": by_directory, "list": show}[what]
    for place in places:
        print(place)
        done(place)
