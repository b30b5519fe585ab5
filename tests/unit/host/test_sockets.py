"""What CRIU loses of sockets: read from a program's own sockets, carried, and put back on other ones like them."""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

from sealift_agent import carried, cgroup, held, sockets, unread
from sealift_agent.carried import Carried
from sealift_agent.files import renamed
from sealift_agent.messages import Misunderstood
from sealift_agent.network import datagrams, options
from sealift_agent.wire import AgentError

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.root

STREAM = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
PACKETS = (socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
SET = {
    "TCP_USER_TIMEOUT": 7777,
    "TCP_CONGESTION": b"reno",
    "TCP_DEFER_ACCEPT": 7,
    "TCP_FASTOPEN": 16,
    "TCP_NOTSENT_LOWAT": 16384,
    "TCP_SYNCNT": 3,
    "TCP_LINGER2": 22,
    "SO_TIMESTAMP_OLD": 1,
    "IP_TRANSPARENT": 1,
    "IP_MTU_DISCOVER": 2,
}
SET_OF_UDP = {
    "IP_RECVTTL": 1,
    "SO_RXQ_OVFL": 1,
    "IP_MULTICAST_IF": socket.inet_aton("127.0.0.1"),
    "IP_MULTICAST_TTL": 3,
    "IP_MULTICAST_LOOP": 0,
    "IP_UNICAST_IF": socket.htonl(1),
}


@pytest.fixture(autouse=True)
def _only_of_this_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process has descriptors of other tests, too."""
    before = set(held.descriptors([os.getpid()]))
    every = held.descriptors
    monkeypatch.setattr(held, "descriptors", lambda pids: (one for one in every(pids) if one not in before))


def received(found: socket.socket) -> list[tuple[bytes, Any]]:
    found.settimeout(0.5)
    got = []
    while True:
        try:
            got.append(found.recvfrom(1 << 16))
        except TimeoutError:
            return got


def looked_at(found: socket.socket) -> socket.socket:
    """As an agent has it: another object for the same socket."""
    return socket.socket(fileno=os.dup(found.fileno()))


@pytest.mark.parametrize(("kind", "wanted"), [(STREAM, SET), (PACKETS, SET_OF_UDP)])
def test_options_that_were_set_and_no_others_are_read_and_set_on_another_socket(
    kind: tuple[int, int, int], wanted: dict[str, Any]
) -> None:
    usual = options.defaults(os.getpid(), kind)
    with socket.socket(*kind) as here, socket.socket(*kind) as there:
        assert options.read(here, kind, usual) == {}
        for name, value in wanted.items():
            here.setsockopt(options.BY_NAME[name].level, options.BY_NAME[name].number, value)
        found = options.read(here, kind, usual)
        assert set(found) == set(wanted)
        sent = carried.read(carried.written(Carried([((1, 3), found)], [], []))).options[0][1]
        assert options.set_differing(there, sent, late=False) == len(wanted)
        assert options.read(there, kind, usual) == found
        assert options.set_differing(there, sent, late=False) == 0


def test_an_interface_is_known_by_its_name() -> None:
    usual = options.defaults(os.getpid(), PACKETS)
    with socket.socket(*PACKETS) as here:
        here.setsockopt(socket.IPPROTO_IP, 50, socket.htonl(1))
        assert options.read(here, PACKETS, usual) == {"IP_UNICAST_IF": b"lo"}


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_of_a_connection_that_set_nothing_only_what_follows_is_read(family: socket.AddressFamily) -> None:
    kind = (family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    usual = options.defaults(os.getpid(), kind)
    address = "127.0.0.1" if family == socket.AF_INET else "::1"
    with socket.create_server((address, 0), family=family) as door:
        near = socket.create_connection(door.getsockname()[:2])
        far = door.accept()[0]
        with near, far:
            assert set(options.read(near, kind, usual)) == options.FOLLOWS
            accepted = set(options.read(far, kind, usual)) - {"IPV6_V6ONLY"}  # of the listener, from Python
            assert accepted == options.FOLLOWS
            assert options.set_differing(far, options.read(near, kind, usual), late=False) == 0


def test_what_criu_leaves_set_on_a_connection_is_taken_back_after_the_commit() -> None:
    usual = options.defaults(os.getpid(), STREAM)
    with socket.create_server(("127.0.0.1", 0)) as door, socket.create_connection(door.getsockname()) as near:
        wanted = options.read(near, STREAM, usual)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        assert options.set_differing(near, wanted, late=False) == 0
        assert options.set_differing(near, wanted, late=True) == 1
        assert near.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT) == 0


def test_an_option_that_the_destination_does_not_know_is_refused_by_name() -> None:
    with (
        socket.socket() as found,
        pytest.raises(AgentError, match="TCP_CONGESTION of a socket can't be set to none"),
    ):
        options.set_differing(found, {"TCP_CONGESTION": b"none"}, late=False)


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_datagrams_that_wait_stay_and_are_received_again_from_the_same_senders(
    family: socket.AddressFamily, address: str
) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as door, socket.socket(family, socket.SOCK_DGRAM) as near:
        door.bind((address, 0))
        near.connect(door.getsockname())
        for number in range(1, 5):
            near.send(b"%d" % number * 500 * number)
        with looked_at(door) as ours:
            ours.setsockopt(socket.SOL_SOCKET, datagrams.SO_PEEK_OFF, 3)
            waiting = datagrams.waiting(ours, "10.0.0.9")
            assert datagrams.waiting(ours, "10.0.0.9") == waiting
            assert ours.getsockopt(socket.SOL_SOCKET, datagrams.SO_PEEK_OFF) == 3
        first = received(door)
        assert [len(data) for data, _ in first] == [500, 1000, 1500, 2000]
        room = door.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        sent = carried.read(carried.written(Carried([], [((1, 3), waiting)], []))).datagrams[0][1]
        elsewhere = "192.0.2.7" if family == socket.AF_INET else "2001:db8::7"
        datagrams.send_again(os.getpid(), door, [*sent, sent[0]._replace(sender=(elsewhere, 99))])
        assert door.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == room
        again = received(door)
        assert again[:4] == first
        assert again[4][1][:2] == (elsewhere, 99)


def test_a_full_queue_is_taken_whole() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as near,
    ):
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 20_000)
        door.bind(("127.0.0.1", 0))
        for _ in range(300):
            near.sendto(b"x" * 100, door.getsockname())
        with looked_at(door) as ours:
            waiting = datagrams.waiting(ours, "10.0.0.9")
        first = received(door)
        datagrams.send_again(os.getpid(), door, waiting)
        assert received(door) == first


@pytest.mark.parametrize("word", ["device", "multicast"])
def test_a_datagram_that_can_t_be_sent_again_is_said(word: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as door:
        door.bind(("127.0.0.1", 0))
        door.sendto(b"x", door.getsockname())
        with looked_at(door) as ours:
            if word == "device":
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"lo")
                with pytest.raises(AgentError, match="bound to an interface"):
                    datagrams.waiting(ours, "10.0.0.9")
            else:
                one = datagrams.waiting(ours, "10.0.0.9")[0]._replace(receiver=("224.0.0.251", 5353))
                assert "224.0.0.251" in str(datagrams.obstacle(one))


def test_a_port_that_two_sockets_share_is_refused_while_a_datagram_waits(tmp_path: Path) -> None:
    with socket.socket(*PACKETS) as one, socket.socket(*PACKETS) as two:
        for each in (one, two):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        one.bind(("127.0.0.1", 0))
        two.bind(one.getsockname())
        sockets.Source().write(tmp_path, [os.getpid()], "10.0.0.9")
        two.sendto(b"x", one.getsockname())
        with pytest.raises(AgentError, match="several sockets share"):
            sockets.Source().write(tmp_path, [os.getpid()], "10.0.0.9")


PROGRAM = r"""
import os, socket, sys
place, role, port = sys.argv[1:]
os.chdir(place)
door = socket.socket(socket.AF_UNIX)
door.bind(place + "/s.tmp")
door.listen()
if role == "source":
    os.rename("s.tmp", "s.sock")
near = socket.socket(socket.AF_UNIX)
near.connect("s.sock" if role == "source" else "s.tmp")
far = door.accept()[0]
gram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
gram.bind(("127.0.0.1", int(port)))
if role == "source":
    gram.setsockopt(0, 12, 1)
    gram.sendto(b"waits", gram.getsockname())
print(gram.getsockname()[1], flush=True)
sys.stdin.readline()
there = [os.path.exists("s.sock"), os.path.exists("s.tmp"), door.getsockname() == place + "/s.tmp"]
print(*there, gram.recv(9), gram.getsockopt(0, 12))
"""


def started(place: Path, role: str, port: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(place), role, port],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_one_process_s_sockets_have_another_one_s_get(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second process stands for the restored one: the same descriptors, without what CRIU loses."""
    (tmp_path / "images").mkdir()
    (tmp_path / "place").mkdir()
    with started(tmp_path / "place", "source", "0") as first:
        assert first.stdin
        assert first.stdout
        port = first.stdout.readline().strip()
        source = sockets.Source()
        source.read_ahead([first.pid])
        source.write(tmp_path / "images", [first.pid], "10.0.0.9")
        found = carried.read((tmp_path / "images" / sockets.SOCKETS).read_bytes())
        assert [name for _, name in found.names] == [str(tmp_path / "place/s.sock")], "of the listener alone"
        first.stdin.write("\n")
        first.stdin.close()
        assert first.stdout.read() == "True False True b'waits' 1\n", "nothing was taken from it"
    (tmp_path / "place/s.sock").unlink()
    with started(tmp_path / "place", "destination", port) as second:
        assert second.stdin
        assert second.stdout
        second.stdout.readline()
        there = {"options": [], "datagrams": [], "names": []} | json.loads(
            (tmp_path / "images" / sockets.SOCKETS).read_text()
        )
        for entry in [entry for entries in there.values() for entry in entries]:
            entry[0] = second.pid  # it would be the same number in a container
        (tmp_path / "images" / sockets.SOCKETS).write_text(json.dumps(there))
        monkeypatch.setattr(cgroup, "pids", lambda _: [second.pid])
        restored = sockets.Restored(tmp_path / "images")
        restored.put_back(lambda: second.pid)
        restored.late()
        second.stdin.write("\n")
        second.stdin.close()
        assert second.stdout.read() == "True False True b'waits' 1\n"


def test_nothing_is_written_and_nothing_done_where_there_is_nothing(tmp_path: Path) -> None:
    sockets.Source().write(tmp_path, [], "10.0.0.9")
    assert list(tmp_path.iterdir()) == []
    sockets.Restored(tmp_path).put_back(lambda: pytest.fail("nobody is looked for"))


def test_a_socket_that_was_bound_through_a_link_or_lies_where_it_was_bound_is_not_renamed(
    tmp_path: Path,
) -> None:
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(str(tmp_path / "s"))
        assert renamed.needed(door) is None
        assert renamed.rename(door, str(tmp_path / "s"), "/") is False
        with pytest.raises(AgentError, match="can't be renamed"):
            renamed.rename(door, str(tmp_path / "gone/s"), "/")
        (tmp_path / "s").unlink()
        assert renamed.needed(door) is None


def test_a_reset_that_nobody_has_read_is_seen_and_stays() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door, socket.socket() as fresh:
        near = socket.create_connection(door.getsockname())
        far = door.accept()[0]
        assert not unread.is_end(fresh)
        assert not unread.is_end(far)
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.close()
        waits = unread.lasting([os.getpid()], 0.05)
        assert [(one.number, word) for one, word in waits.items()] == [(far.fileno(), unread.END)]
        assert "reset" in unread.why(waits)
        with pytest.raises(ConnectionResetError):
            far.recv(9)
        assert not unread.is_end(far)
        far.close()


def test_a_connection_that_both_have_closed_in_order_is_no_loss_whatever_waits_in_it() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        near = socket.create_connection(door.getsockname())
        far = door.accept()[0]
        near.sendall(b"last words")
        for end in (near, far):
            end.shutdown(socket.SHUT_WR)
        until = time.monotonic() + 5
        while options.state(far) != options.CLOSED:
            assert time.monotonic() < until
        assert not unread.is_end(far)
        kind = options.kind(far)
        kept = options.read(far, kind, options.defaults(os.getpid(), kind))
        assert "TCP_MAXSEG" not in kept, "what it came to can't be set"
        near.close()
        far.close()


def test_data_before_a_reset_is_seen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as door:
        near = socket.create_connection(door.getsockname())
        far = door.accept()[0]
        near.sendall(b"last words")
        near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        near.close()
        assert unread.is_end(far)
        far.close()


def test_events_that_nobody_reads_are_seen_and_not_those_that_are_read(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    watch = libc.inotify_init1(0)
    libc.inotify_add_watch(watch, os.fsencode(tmp_path), 0x100)
    assert unread.find(held.descriptors([os.getpid()])) == {}
    (tmp_path / "new").touch()
    waits = unread.lasting([os.getpid()], 0.02)
    assert [(one.number, word) for one, word in waits.items()] == [(watch, unread.EVENTS)]
    with pytest.raises(AgentError, match="events of inotify"):
        sockets.Source().write(tmp_path, [os.getpid()], "10.0.0.9")
    os.read(watch, 4096)
    assert unread.lasting([os.getpid()], 1) == {}
    os.close(watch)


@pytest.mark.parametrize(
    "wrong",
    [
        b"",
        b"[]",
        b'{"options": []}',
        b'{"options": [[1, 2, {"SO_NONE": 1}]], "datagrams": [], "names": []}',
        b'{"options": [[1, 2, {"SO_MARK": 4294967296}]], "datagrams": [], "names": []}',
        b'{"options": [[1, 2, {"SO_MARK": true}]], "datagrams": [], "names": []}',
        b'{"options": [[1, 2, {"TCP_CONGESTION": "zz"}]], "datagrams": [], "names": []}',
        b'{"options": [], "datagrams": [[1, 2, [["a", 1, "10.0.0.1", 1, 1, 1, ""]]]], "names": []}',
        b'{"options": [], "datagrams": [[1, 2, [["::1", 1, "10.0.0.1", 1, 1, 1, ""]]]], "names": []}',
        b'{"options": [], "datagrams": [], "names": [[1, 2, "relative"]]}',
        b'{"options": [], "datagrams": [], "names": [[1, 2, "/a/../b"]]}',
        b'{"options": [], "datagrams": [], "names": [[-1, 2, "/a"]]}',
    ],
)
def test_a_list_that_is_none_is_refused(wrong: bytes) -> None:
    with pytest.raises(Misunderstood):
        carried.read(wrong)
