"""`sealift check`: a yes comes through, a no is named with its remedy, and nothing is changed by asking."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest
from hosts import untouched

from sealift.errors import Refused
from sealift.lab import images
from sealift.migration.check import check
from sealift.migration.checks.finding import Answer, Resource
from sealift.model import Step, Strategy

if TYPE_CHECKING:
    from hosts import Hosts

    from sealift.migration.check import Checked

pytestmark = [pytest.mark.root, pytest.mark.netns]

COMES_THROUGH = """
import ctypes, fcntl, mmap, os, pty, select, signal, socket, struct, time
libc = ctypes.CDLL(None, use_errno=True)
ticks = []
signal.signal(signal.SIGALRM, lambda *_: ticks.append(1))
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
timer = libc.syscall(283, 1, 0)
libc.syscall(286, timer, 0, struct.pack("qqqq", 0, 50_000_000, 0, 50_000_000), None)
poll = select.epoll()
poll.register(timer, select.EPOLLIN)
watch = libc.inotify_init()
libc.inotify_add_watch(watch, b"/etc", 0x100)
memory = mmap.mmap(-1, 65536, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory[:5] = b"hello"
libc.mlock(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.from_buffer(memory))), 65536)
segment = libc.shmget(99, 4096, 0o1600)
sealed = os.memfd_create("sealed")
os.write(sealed, b"memfd")
gone = open("/tmp/gone", "w+b")
gone.write(b"ghost"); gone.flush(); os.unlink("/tmp/gone")
left, right = socket.socketpair()
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); datagrams.bind(("127.0.0.1", 999))
routes = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0); routes.bind((0, 0))
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
path = os.open("/etc", os.O_PATH)
itself = os.pidfd_open(os.getpid())
master, slave = os.openpty()
of_image = open("/usr/lib/os-release"); os.unlink("/usr/lib/os-release"); read = os.pread(of_image.fileno(), 4096, 0)
lock = open("/tmp/lock", "w"); fcntl.flock(lock, fcntl.LOCK_EX)
def check():
    ticks.clear(); poll.poll(2); os.read(timer, 8); time.sleep(0.2); assert ticks, "timer"
    open(f"/etc/{time.time()}", "w").close()
    assert select.select([watch], [], [], 2)[0], "inotify"; os.read(watch, 4096)
    assert memory[:5] == b"hello" and "VmLck:\\t      64 kB" in open("/proc/self/status").read(), "memory"
    assert libc.shmget(99, 4096, 0) >= 0, "shm"
    assert os.pread(sealed, 5, 0) == b"memfd" and os.pread(gone.fileno(), 5, 0) == b"ghost", "files"
    assert read and os.pread(of_image.fileno(), 4096, 0) == read, "a file of the image"
    left.send(b"x"); assert right.recv(1) == b"x", "socket"
    os.write(slave, b"x"); assert os.read(master, 1) == b"x", "terminal"
    for number in (datagrams.fileno(), routes.fileno(), wire.fileno(), path, itself): os.fstat(number)
while True:
    check(); print("intact", flush=True); time.sleep(0.1)
"""

WRITES_10_MB_S = """
import time
memory = bytearray(64 << 20)
print("up", flush=True)
at = 0
while True:
    began = time.monotonic()
    for _ in range(122):
        memory[at] = (memory[at] + 1) & 255
        at = (at + 4096) % len(memory)
    time.sleep(max(0, 0.05 - (time.monotonic() - began)))
"""

STAYS = """
import ctypes, os, socket, time
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall(447, 0)
os.mkdir("/tmp/a blank")
os.symlink("a blank", "/tmp/link")
watch = libc.inotify_init(); libc.inotify_add_watch(watch, b"/tmp/link", 0x02000002)  # the link itself
multipath = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0); wire.bind(("eth0", 3))
packets = os.pipe2(os.O_DIRECT)
listener = socket.create_server(("127.0.0.1", 998)); caller = socket.create_connection(("127.0.0.1", 998))
print("holds", flush=True)
time.sleep(1e9)
"""


def start(hosts: Hosts, name: str, program: str, word: str, *options: str) -> None:
    """A Python program in a container of the workloads' network, up to where it prints a word."""
    hosts.python(name, program, options=options)
    hosts.sh(
        "source", f"timeout 20 sh -c 'until docker logs {name} 2>&1 | grep -q {word}; do sleep 0.1; done'"
    )


def look(hosts: Hosts, name: str) -> Checked:
    return check(hosts.inventory, hosts.request(name))


def against(checked: Checked) -> dict[Resource, str]:
    """What stands in the way, by resource."""
    found: dict[Resource, str] = {}
    for finding in checked.findings:
        if finding.answer is Answer.NO:
            assert finding.remedy, finding
            found[finding.resource] = f"{found.get(finding.resource, '')} {finding.what}"
    return found


def test_what_is_said_to_come_through_comes_through(hosts: Hosts) -> None:
    start(hosts, "box", COMES_THROUGH, "intact")
    with untouched(hosts, "box"):
        checked = look(hosts, "box")
    assert against(checked) == {}
    assert {one.answer for one in checked.findings if one.host == "source"} == {Answer.YES}
    hosts.engine("box")
    time.sleep(1)
    before = hosts.docker("destination", "logs", "box").count("intact")
    time.sleep(1)
    assert hosts.docker("destination", "logs", "box").count("intact") > before
    assert hosts.inspect("destination", "box")["State"]["Status"] == "running"


def test_what_stays_is_named_with_its_remedy_all_at_once(hosts: Hosts) -> None:
    start(hosts, "box", STAYS, "holds", "--device", "/dev/net/tun")
    hosts.docker("source", "exec", "-d", "box", "python3", "-c", "import time; time.sleep(1e9)")
    with untouched(hosts, "box"):
        checked = look(hosts, "box")
    found = against(checked)
    for part in ("inotify on inode", "packet mode"):
        assert part in found[Resource.FILES]
    assert "multipath TCP" in found[Resource.SOCKETS]
    assert "bound to an interface" in found[Resource.SOCKETS]
    assert "/dev/net/tun" in found[Resource.DEVICES]
    doubts = [one.what for one in checked.findings if one.answer is Answer.UNKNOWN]
    assert any("wait to be accepted" in what for what in doubts)
    assert any("docker exec" in what for what in doubts)


def command(*words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cli", "check", *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("options", [(), ("--device", "/dev/net/tun")])
def test_the_command_says_it_in_its_status_and_as_json(hosts: Hosts, options: tuple[str, ...]) -> None:
    start(hosts, "box", "import time; print('up', flush=True); time.sleep(1e9)", "up", *options)
    where = ("--from", "source", "--to", "destination")
    done = command("box", *where, "--json")
    said: dict[str, Any] = json.loads(done.stdout)
    assert done.returncode == (1 if options else 0), done.stderr
    assert said["movable"] is not bool(options)
    assert {finding["resource"] for finding in said["findings"]} >= {str(one) for one in Resource} - {
        "memory"
    }
    assert said["findings"][0]["resource"] == "evidence"


def test_a_freeze_that_is_predicted_too_long_is_refused_before_anything_is_touched(hosts: Hosts) -> None:
    address = hosts.redis("redis")
    with (
        untouched(hosts, "redis", address),
        pytest.raises(Refused, match=r"longer than the 1 ms allowed \(stop-and-copy \d+ ms.*--max-downtime"),
    ):
        hosts.engine("redis", max_downtime=0.001)
    report = hosts.engine("redis", max_downtime=60)
    assert report.strategy is Strategy.STOP_AND_COPY, "the least risky of those that keep to the limit"
    assert "60000 ms are allowed" in report.why
    assert report.estimate is not None
    assert report.estimate.link_how == "measured"
    assert report.estimate.of(report.strategy) is not None
    assert 0 < report.since_estimate_ms < report.total_ms
    hosts.redis("other")
    assert check(hosts.inventory, hosts.request("other")).estimate.learned, "the migration told the constants"


def test_a_writer_is_told_from_a_container_at_rest(hosts: Hosts) -> None:
    start(hosts, "rest", "import time; print('up', flush=True); time.sleep(1e9)", "up")
    start(hosts, "writer", WRITES_10_MB_S, "up")
    rest, writer = (look(hosts, name).estimate for name in ("rest", "writer"))
    assert rest.dirty_bytes_s is not None
    assert writer.dirty_bytes_s is not None
    assert rest.dirty_bytes_s < 3e6
    assert 5e6 < writer.dirty_bytes_s < 20e6
    assert writer.memory_bytes > 60e6


@pytest.mark.whole
def test_a_bandwidth_is_kept_before_the_freeze(hosts: Hosts) -> None:
    fill = "open('/tmp/filling', 'wb').write(__import__('os').urandom(6_000_000))"
    start(hosts, "box", f"{fill}; import time; print('up', flush=True); time.sleep(1e9)", "up")
    images.provide(hosts["destination"], images.PYTHON, say=print)
    report = hosts.engine("box", bandwidth=3_000_000)
    assert report.file_bytes > 6_000_000
    assert report.step(Step.SYNC).duration_ms > 1800


def test_a_destination_without_evidence_is_examined_and_reported_as_unverified(hosts: Hosts) -> None:
    start(hosts, "box", "import time; print('up', flush=True); time.sleep(1e9)", "up")
    plain = hosts.inventory.hosts["destination"].model_copy(update={"vm": None})
    entries = {**hosts.inventory.hosts, "destination": plain}
    inventory = hosts.inventory.model_copy(update={"hosts": entries})
    request = hosts.request("box")
    checked = check(inventory, request)
    assert checked.findings[0].resource is Resource.EVIDENCE
    assert checked.findings[0].answer is Answer.NO
    assert "not verified" in checked.findings[0].what
    assert any(one.host == "destination" and one.resource is Resource.CPU for one in checked.findings)
