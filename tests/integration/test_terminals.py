"""Containers with a terminal (`docker run -t`), terminals made inside, and what `docker exec` has left behind."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from hosts import untouched

from sealift.lab import images
from sealift.migration.request import Strategy

if TYPE_CHECKING:
    from hosts import Hosts

pytestmark = [pytest.mark.root, pytest.mark.netns]

THERE, BACK = ("source", "destination"), ("destination", "source")
BOTH = pytest.mark.parametrize(
    "strategy", [Strategy.AUTO, pytest.param(Strategy.POST_COPY, marks=pytest.mark.whole)]
)

CLIENT = r"""
import fcntl, json, os, pty, select, struct, sys, termios, time

name, rows, columns, leaves, dialogue = json.loads(sys.argv[1])
pid, master = pty.fork()
if pid == 0:
    fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))
    os.execvp("docker", ["docker", "attach", name])
seen = b""

def read(until_s):
    global seen
    if not select.select([master], [], [], max(0, until_s - time.monotonic()))[0]:
        return False
    try:
        got = os.read(master, 4096)
    except OSError:
        got = b""
    seen += got
    return bool(got)

for words, expected in dialogue:
    time.sleep(0.5)  # whoever reads what was typed before has changed the terminal's settings by now
    begin, until_s = len(seen), time.monotonic() + 15
    os.write(master, words.encode())
    while expected.encode() not in seen[begin:]:
        if not read(until_s):
            sys.exit(f"no {expected!r} after {words!r}: {seen!r}")
    print(f"{expected!r} after {words!r}", file=sys.stderr)
if leaves:
    os.write(master, b"\x10\x11")
while read(time.monotonic() + 60):
    pass
print(seen.decode(errors="replace"))
os.kill(pid, 9)
"""


def attach(hosts: Hosts, host: str, *dialogue: tuple[str, str], size: tuple[int, int] = (24, 80)) -> str:
    """`docker attach` to the box: type words, and wait for what is to be seen then. Returns all that was seen."""
    asked = json.dumps(["box", *size, True, dialogue])
    return hosts[host].run(["python3", "-c", CLIENT, asked], timeout_s=120).stdout


def start(hosts: Hosts, *words: str, options: str = "-dit") -> None:
    """The box on the source, with a terminal."""
    tag = images.provide(hosts["source"], images.PYTHON, say=print)
    network = ["--network", hosts.network, "--ip", hosts.address()]
    hosts.docker("source", "run", options, "--name", "box", *network, tag, *words)


@BOTH
def test_a_shell_goes_on(hosts: Hosts, strategy: Strategy) -> None:
    start(hosts, "sh")
    attach(hosts, "source", ("there=7\n", "there=7"), ("stty rows 33 columns 77 erase ^A -echoctl\n", "#"))
    attach(hosts, "source", ("stty -a > /tmp/before; tty\n", "/dev/pts/0"), size=(33, 77))
    for source, destination in (THERE, BACK, THERE):
        hosts.engine("box", None, source, destination, strategy=strategy)
        attach(hosts, destination, ("stty -a > /tmp/after; echo $((there * there))\n", "49"), size=(33, 77))
        attach(hosts, destination, ("cmp /tmp/before /tmp/after && echo sa''me\n", "same"), size=(33, 77))
        attach(hosts, destination, ("sleep 1000 &\n", "["), ("kill %1; echo go''ne\n", "gone"))
        assert not hosts.sh(source, "docker ps -aq")
    attach(hosts, "destination", ("exit 3\n", "exit 3"))
    assert hosts.docker("destination", "wait", "box") == "3"


@BOTH
def test_what_is_in_the_foreground_stays_there(hosts: Hosts, strategy: Strategy) -> None:
    start(hosts, "sh")
    attach(hosts, "source", ("cat\n", "cat"), ("heard\n", "heard\r\nheard"))
    for source, destination in (THERE, BACK):
        hosts.engine("box", None, source, destination, strategy=strategy)
        attach(hosts, destination, ("again\n", "again\r\nagain"))
    attach(hosts, "source", ("\x03", "#"), ("echo o''ver\n", "over"))


def test_a_child_opens_the_terminal_of_its_session(hosts: Hosts) -> None:
    start(hosts, "sh")
    attach(
        hosts, "source", ("exec 7<>/dev/tty 8<>/dev/tty\n", "#"), ("sh\n", "#"), ("echo n''ow >&8\n", "now")
    )
    for source, destination in (THERE, BACK):
        hosts.engine("box", None, source, destination)
        attach(hosts, destination, ("echo fr''esh >/dev/tty; echo o''ld >&7\n", "fresh\r\nold"))
    attach(hosts, "source", ("exit\n", "#"), ("echo en''ded >&8\n", "ended"))


SCREEN = """
import os, signal, sys, termios, tty
before = termios.tcgetattr(0)
tty.setraw(0)
def size(*_):
    columns, rows = os.get_terminal_size()
    os.write(1, f"\\x1b[2J\\x1b[H{rows} by {columns}.".encode())
signal.signal(signal.SIGWINCH, size)
while (key := os.read(0, 1)) != b"q":
    os.write(1, b"<%d>" % key[0])
termios.tcsetattr(0, termios.TCSANOW, before)
print("end", flush=True)
"""


def test_a_program_with_the_whole_screen_goes_on(hosts: Hosts) -> None:
    start(hosts, "python3", "-c", SCREEN)
    attach(hosts, "source", ("a", "<97>"), ("\x03", "<3>"))
    for source, destination in (THERE, BACK):
        hosts.engine("box", None, source, destination)
        attach(hosts, destination, ("b", "<98>"), ("\r", "<13>"), ("\x03", "<3>"))
        attach(hosts, destination, ("", "31 by 91."), size=(31, 91))
    hosts.engine("box")
    attach(hosts, "destination", ("q", "end\r\n"))
    assert hosts.docker("destination", "wait", "box") == "0"


COUNTER = "import itertools\nfor n in itertools.count(): print(n, 'x' * 40); import time; time.sleep(0.002)"


@BOTH
def test_what_it_prints_is_in_the_log_once(hosts: Hosts, strategy: Strategy) -> None:
    start(hosts, "python3", "-u", "-c", COUNTER, options="-dt")
    for source, destination in (THERE, BACK):
        time.sleep(1)
        hosts.engine("box", None, source, destination, strategy=strategy)
    time.sleep(1)
    hosts.docker("source", "pause", "box")
    printed = hosts.docker("source", "logs", "box").splitlines()
    assert len(printed) > 100
    assert printed == [f"{number} {'x' * 40}" for number in range(len(printed))]


def test_whoever_was_attached_at_the_source_hears_that_it_is_over(hosts: Hosts) -> None:
    start(hosts, "sh")
    asked = json.dumps(["box", 24, 80, False, [["echo he''re\n", "here"]]])
    client = hosts["source"].open(["python3", "-c", CLIENT, asked])
    time.sleep(2)
    report = hosts.engine("box")
    assert any("docker attach" in warning for warning in report.warnings)
    client.settimeout(20)
    while client.recv(4096):
        pass


def test_a_roll_back_leaves_the_terminal_as_it_is(hosts: Hosts) -> None:
    start(hosts, "sh")
    attach(hosts, "source", ("here=5\n", "here=5"))

    def fail(_: object) -> None:
        raise RuntimeError("on purpose")

    with untouched(hosts, "box"), pytest.raises(RuntimeError, match="on purpose"):
        hosts.engine("box", {"armed": fail})
    attach(hosts, "source", ("echo $((here * here))\n", "25"))
    hosts.engine("box")
    attach(hosts, "destination", ("echo $((here + here))\n", "10"))


LOOP = "while :; do echo $$; date; echo >> /tmp/left; sleep 0.2; done"
ON_TERMINAL = "import pty, sys; pty.spawn(sys.argv[1:])"


def left(hosts: Hosts, host: str) -> int:
    """How often the loop has been run."""
    return int(hosts.docker(host, "exec", "box", "sh", "-c", "wc -l < /tmp/left"))


@pytest.mark.parametrize("own", ["-d", "-dt"])
@pytest.mark.parametrize("words", [["-i"], ["-t"]])
def test_what_a_session_has_left_behind_moves_and_the_session_ends(
    hosts: Hosts, words: list[str], own: str
) -> None:
    start(hosts, "sleep", "1000", options=own)
    session = ["docker", "exec", *words, "box", "sh", "-c", f"trap '' HUP; ({LOOP} &); sleep 1000"]
    client = hosts["source"].open(["python3", "-c", ON_TERMINAL, *session])
    hosts.sh("source", "until docker exec box test -s /tmp/left; do sleep 0.2; done")
    report = hosts.engine("box")
    assert any("they move" in warning for warning in report.warnings)
    client.settimeout(20)
    while client.recv(4096):
        pass
    for source, destination in (BACK, THERE):
        before = left(hosts, source)
        time.sleep(1)
        assert left(hosts, source) > before
        hosts.engine("box", None, source, destination)


PTYS = """
import fcntl, json, os, pty, struct, termios, time, tty

def waiting(end):
    return struct.unpack("i", fcntl.ioctl(end, termios.FIONREAD, b"0000"))[0]

def outcome(read, *arguments):
    try:
        return read(*arguments).decode()
    except OSError as failed:
        return failed.errno

over, its = os.openpty()
os.close(over)                               # a slave whose master is closed
alone, slave = os.openpty()
os.close(slave)                              # a master whose slave is closed
master, slave = os.openpty()
tty.setraw(slave)
os.write(master, b"asked")
os.write(slave, b"answer")                   # both directions wait
packets, packeted = os.openpty()
tty.setraw(packeted)
fcntl.ioctl(packets, termios.TIOCPKT, struct.pack("i", 1))
child, script = pty.fork()                   # as script(1): a session that has its terminal open as /dev/tty
if child == 0:
    again = os.open("/dev/tty", os.O_RDWR)
    while True:
        os.write(again, b"said " if os.tcgetpgrp(again) == os.getpgrp() else b"behind ")
        time.sleep(0.05)
while True:
    os.write(packeted, b"p")
    print(json.dumps([
        outcome(os.read, its, 1), outcome(os.write, its, b"x"), outcome(os.read, alone, 1),
        waiting(master), waiting(slave), outcome(os.read, packets, 9),
        sorted(set(os.read(script, 99).split()))[-1].decode(),
    ]), flush=True)
    time.sleep(0.2)
"""


@BOTH
def test_terminals_made_inside_stay_as_they_are(hosts: Hosts, strategy: Strategy) -> None:
    hosts.python("box", PTYS)
    hosts.sh("source", "until [ $(docker logs box | wc -l) -gt 3 ]; do sleep 0.1; done")
    before = json.loads(hosts.docker("source", "logs", "--tail", "1", "box"))
    assert before == ["", 5, 5, 6, 5, "\x00p", "said"]
    for source, destination in (THERE, BACK):
        hosts.engine("box", None, source, destination, strategy=strategy)
        time.sleep(1)
        assert json.loads(hosts.docker(destination, "logs", "--tail", "1", "box")) == before
