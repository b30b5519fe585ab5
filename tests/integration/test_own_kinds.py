"""What a container makes of its own mounts, memory, devices, sockets and watches moves as plain CRIU moves it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift.model import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

MAY_MOUNT = ("--cap-add", "SYS_ADMIN", "--security-opt", "seccomp=unconfined")
MAY_OPEN_MAPPED = (
    "--cap-add",
    "SYS_ADMIN",
    "--cap-add",
    "CHECKPOINT_RESTORE",
    "--security-opt",
    "seccomp=unconfined",
)

TOOLS = r"""
import ctypes, errno, mmap, os, signal, socket, struct, time

libc = ctypes.CDLL(None, use_errno=True)
BIND, SHARED, SLAVE = 1 << 12, 1 << 20, 1 << 19
os.makedirs("/srv", exist_ok=True)
asked = []
signal.signal(signal.SIGUSR1, lambda *_: asked.append(True))

def mount(source, point, kind=None, flags=0):
    os.makedirs(point, exist_ok=True) if not os.path.exists(point) else None
    words = [word and word.encode() for word in (source, point, kind)]
    if libc.mount(*words, flags, None):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), point)

def seen():
    # Mounts below /srv, with their propagation. The kernel numbers groups anew, so only equal and different counts.
    groups, found = {}, []
    for line in open("/proc/self/mountinfo"):
        left, right = (half.split() for half in line.split(" - "))
        if left[4].startswith("/srv"):
            words = [word.split(":") for word in left[6:]]
            marks = [(word, groups.setdefault(number, len(groups))) for word, number in words]
            found.append((left[4], left[3], left[5], marks, right[0]))
    return sorted(found)

def wait():
    print("up", flush=True)
    while not asked:
        time.sleep(0.05)
    asked.clear()

def say(**facts):
    print(" ".join(f"{name}={value}" for name, value in facts.items()), flush=True)
"""
END = "\nwhile True:\n    time.sleep(1)\n"

BOUND = r"""
os.makedirs("/srv/a/below")
open("/srv/a/file", "w").write("content")
mount("/srv/a", "/srv/plain", flags=BIND)
mount("/srv/plain/below", "/srv/below", flags=BIND)
mount("/srv/a", "/srv/shared", flags=BIND)
mount(None, "/srv/shared", flags=SHARED)
mount("/srv/shared", "/srv/peer", flags=BIND)
mount("/srv/shared", "/srv/slave", flags=BIND)
mount(None, "/srv/slave", flags=SLAVE)
mount("tmpfs", "/srv/shared/below", "tmpfs")
open("/srv/shared/below/within", "w").write("memory")
mount("/srv/a", "/srv/over", flags=BIND)
mount("tmpfs", "/srv/over", "tmpfs")
before = seen()
wait()
open("/srv/plain/new", "w").write("written")
mount("tmpfs", "/srv/peer/later", "tmpfs")
say(
    file=open("/srv/plain/file").read(),
    same=seen() != before and [one for one in seen() if "later" not in one[0]] == before,
    within=[open(f"/srv/{place}/below/within").read() for place in ("peer", "slave")],
    new=open("/srv/a/new").read(),
    later=[os.path.ismount(f"/srv/{place}/later") for place in ("shared", "slave", "plain")],
    over=os.listdir("/srv/over"),
)
"""
DELETED = r"""
os.makedirs("/srv/directory")
mount("/srv/directory", "/srv/kept", flags=BIND)
open("/srv/file", "w").close()
open("/srv/file kept", "w").close()
mount("/srv/file", "/srv/file kept", flags=BIND)
os.rmdir("/srv/directory")
os.unlink("/srv/file")
before = seen()
wait()
open("/srv/file kept", "a").write("written")
say(same=seen() == before, file=open("/srv/file kept").read(), kept=os.listdir("/srv/kept"))
"""
VOLUME = r"""
os.makedirs("/data/below")
open("/data/below/file", "w").write("content")
mount("/data/below", "/srv/below", flags=BIND)
mount("/data", "/srv/data", flags=BIND)
before = seen()
wait()
open("/srv/data/new", "w").write("written")
say(same=seen() == before, file=open("/srv/below/file").read(), new=open("/data/new").read())
"""
MAPPED = r"""
memory = mmap.mmap(-1, 8192)
memory[:6] = b"before"
place = next(line.split()[0] for line in open("/proc/self/maps") if "/dev/zero" in line)
opened = os.open(f"/proc/self/map_files/{place}", os.O_RDWR)
wait()
told = os.pread(opened, 6, 0).decode()
memory[:6] = b"behind"
os.pwrite(opened, b"second", 4096)
say(told=told, behind=os.pread(opened, 6, 0).decode(), second=memory[4096:4102].decode())
"""
CONSOLE = r"""
os.mknod("/srv/console", 0o20600, os.makedev(5, 1))
console = os.open("/srv/console", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)
wait()
say(console=os.fstat(console).st_rdev == os.makedev(5, 1), name=os.readlink(f"/proc/self/fd/{console}"))
"""
PACKET = r"""
SOCK_PACKET, IP = 10, 0x0800
listening = socket.socket(socket.AF_PACKET, SOCK_PACKET, socket.htons(IP))
wait()
one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
one.sendto(b"a datagram", ("127.0.0.1", 9))
listening.settimeout(5)
say(kind=listening.getsockopt(socket.SOL_SOCKET, socket.SO_TYPE), heard=b"a datagram" in listening.recv(1000))
"""
RAW = r"""
TCP, UDP = socket.IPPROTO_TCP, socket.IPPROTO_UDP
raw = {number: socket.socket(family, socket.SOCK_RAW, number)
       for number, family in ((TCP, socket.AF_INET), (UDP, socket.AF_INET6), (255, socket.AF_INET))}
raw[TCP].setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 8)
wait()
with socket.create_server(("127.0.0.1", 0)) as server:
    socket.create_connection(server.getsockname())
raw[TCP].settimeout(5)
say(
    heard=len(raw[TCP].recv(1000)) > 40,
    tos=raw[TCP].getsockopt(socket.IPPROTO_IP, socket.IP_TOS),
    protocols=[one.getsockopt(socket.SOL_SOCKET, 38) for one in raw.values()],
)
"""
PASSED = r"""
reader, writer = os.pipe()
kept, sent = os.pipe()
left, right = socket.socketpair()
os.write(writer, b"in the pipe")
socket.send_fds(left, [b"both"], [reader, sent])
os.close(reader)
os.close(sent)
wait()
_, (reader, sent), _, _ = socket.recv_fds(right, 4, 2)
os.write(sent, b"back")
say(read=os.read(reader, 100).decode(), back=os.read(kept, 100).decode(), written=os.write(writer, b"more"))
"""
WATCHED = r"""
CREATE, UNREADY = 0x100, 0o4000
watching = libc.inotify_init1(UNREADY)
for place in ("/dev/shm", "/dev/mqueue", "/dev/pts", "/dev/pts/ptmx", "/proc", "/sys"):
    assert libc.inotify_add_watch(watching, place.encode(), CREATE) > 0, place
wait()
for place in ("/dev/shm", "/dev/mqueue"):
    open(f"{place}/made", "w").close()
events, numbers = os.read(watching, 4096), []
while events:
    number, _, _, length = struct.unpack("iIII", events[:16])
    numbers.append(number)
    events = events[16 + length :]
watches = open(f"/proc/self/fdinfo/{watching}").read().count("inotify wd")
say(numbers=numbers, watches=watches)
"""

KINDS = {
    "bound": (
        BOUND,
        MAY_MOUNT,
        "file=content same=True within=['memory', 'memory'] new=written later=[True, True, False] over=[]",
    ),
    "deleted": (DELETED, MAY_MOUNT, "same=True file=written kept=[]"),
    "volume": (VOLUME, (*MAY_MOUNT, "--volume", "box:/data"), "same=True file=content new=written"),
    "mapped": (MAPPED, MAY_OPEN_MAPPED, "told=before behind=behind second=second"),
    "console": (CONSOLE, (), "console=True name=/srv/console"),
    "packet": (PACKET, (), "kind=10 heard=True"),
    "raw": (RAW, (), "heard=True tos=8 protocols=[6, 17, 255]"),
    "passed": (PASSED, (), "read=in the pipe back=back written=4"),
    "watched": (WATCHED, (), "numbers=[1, 2] watches=6"),
}


@pytest.mark.parametrize(
    "strategy", [Strategy.AUTO, pytest.param(Strategy.POST_COPY, marks=pytest.mark.whole)]
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_that_plain_criu_moves_moves(hosts: Hosts, kind: str, strategy: Strategy) -> None:
    program, options, expected = KINDS[kind]
    hosts.python("box", TOOLS + program + END, options=options)
    hosts.sh("source", "until docker logs box 2>&1 | grep -qx up; do sleep 0.1; done")
    hosts.engine("box", strategy=strategy)
    hosts.docker("destination", "kill", "--signal", "USR1", "box")
    hosts.sh(
        "destination",
        "for _ in $(seq 50); do docker logs box 2>&1 | tail -1 | grep -q = && break; sleep 0.2; done",
    )
    assert hosts.docker("destination", "logs", "box", check=False).splitlines()[1:] == [expected]


REPLACED = r"""
open("/srv/file", "w").write("content")
mount("/srv/file", open("/srv/kept", "w").name, flags=BIND)
os.unlink("/srv/file")
wait()
"""


def test_content_that_only_a_mount_still_has_is_refused_by_name(hosts: Hosts) -> None:
    hosts.python("box", TOOLS + REPLACED + END, options=MAY_MOUNT)
    hosts.sh("source", "until docker logs box 2>&1 | grep -qx up; do sleep 0.1; done")
    assert "/srv/kept (a file with content that was deleted where it was)" in str(hosts.refuse("box"))


BINFMT = r"""
mount("binfmt_misc", "/srv/formats", "binfmt_misc")
wait()
say(formats=sorted(set(os.listdir("/srv/formats")) & {"register", "status"}))
"""


def test_a_mount_of_binfmt_misc_moves(hosts: Hosts) -> None:
    hosts.python("box", TOOLS + BINFMT + END, options=MAY_MOUNT)
    hosts.sh("source", "until docker logs box 2>&1 | grep -qx up; do sleep 0.1; done")
    hosts.engine("box")
    hosts.docker("destination", "kill", "--signal", "USR1", "box")
    hosts.sh(
        "destination",
        "for _ in $(seq 50); do docker logs box 2>&1 | tail -1 | grep -q = && break; sleep 0.2; done",
    )
    said = hosts.docker("destination", "logs", "box", check=False).splitlines()
    assert said[1:] == ["formats=['register', 'status']"]


GROUP = r"""
mount("cgroup2", "/srv/groups", "cgroup2")
os.mkdir("/srv/groups/made")
watching = libc.inotify_init1(0)
assert libc.inotify_add_watch(watching, b"/srv/groups/made/cgroup.events", 2) > 0
wait()
"""


def test_a_watch_on_a_group_that_was_made_inside_is_refused_by_name(hosts: Hosts) -> None:
    hosts.python("box", TOOLS + GROUP + END, options=(*MAY_MOUNT, "--cgroupns", "private"))
    hosts.sh("source", "until docker logs box 2>&1 | grep -qx up; do sleep 0.1; done")
    assert "(inotify on a control group that was made inside)" in str(hosts.refuse("box"))
