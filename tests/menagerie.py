"""A process tree that checks itself, with one of everything that CRIU carries: runs in a container, `python3 -c`.

Each animal lives in `ANIMALS` by its name. For each line that comes in on port 7000, each says what is wrong with it,
or nothing; what it holds is changed by a look, so that one which stands still shows as well. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import resource
import select
import signal
import socket
import socketserver
import struct
import tempfile
import threading
import time

PORT = 7000
ANIMALS = {}
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def animal(make):
    """Made once, before anything is asked; what it returns is its check: None, or what is wrong."""
    ANIMALS[make.__name__] = make
    return make


def child(work):
    """A child process that does this work for ever."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        finally:
            os._exit(1)
    return pid


def of_the_image(name):
    """A file of Python's own, which lies in a layer of the image."""
    return os.path.join(os.path.dirname(os.__file__), name)


def called(result):
    if result == -1:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def alive(pid):
    """The state of a child: one that has ended is seen, not reaped."""
    with open(f"/proc/{pid}/stat") as stat:
        return stat.read().rpartition(")")[2].split()[0]


def echo(connection):
    while data := connection.recv(64):
        connection.send(data)


def asks(connection):
    sent = b"question %d" % time.monotonic_ns()
    connection.send(sent)
    got = connection.recv(64)
    return None if got == sent else f"sent {sent!r}, got {got!r}"


@animal
def pipe_with_unread_data():
    reader, writer = os.pipe()
    last = [b"first"]
    os.write(writer, last[0])

    def check():
        got, expected = os.read(reader, 64), last.pop()
        last.append(b"next %d" % time.monotonic_ns())
        os.write(writer, last[0])
        return None if got == expected else f"{got!r} instead of {expected!r}"

    return check


@animal
def pipe_to_a_child():
    down, up = os.pipe(), os.pipe()

    def work():
        while data := os.read(down[0], 64):
            os.write(up[1], data.upper())

    child(work)

    def check():
        os.write(down[1], b"abc")
        return None if os.read(up[0], 64) == b"ABC" else "the child does not answer"

    return check


@animal
def fifo_with_a_name():
    os.mkfifo("fifo")
    handle = os.open("fifo", os.O_RDWR)
    os.write(handle, b"x")

    def check():
        got = os.read(handle, 8)
        os.write(handle, b"x")
        return None if got == b"x" else f"{got!r}"

    return check


@animal
def unix_stream_pair_with_unread_data():
    one, two = socket.socketpair()
    one.send(b"first")

    def check():
        got = two.recv(8)
        one.send(b"first")
        return None if got == b"first" else f"{got!r}"

    return check


@animal
def unix_datagrams_by_name():
    server, client = (socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2))
    server.bind("datagrams")
    client.connect("datagrams")

    def check():
        client.send(b"hello")
        return None if server.recv(8) == b"hello" else "lost"

    return check


@animal
def unix_listener_with_a_connection():
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind("listener")
    listener.listen()
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect("listener")
    served, _ = listener.accept()
    child(lambda: echo(served))

    def check():
        fresh = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        fresh.connect("listener")
        listener.accept()[0].close()
        fresh.close()
        return asks(client)

    return check


@animal
def tcp_inside():
    listener = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(listener.getsockname())
    served, _ = listener.accept()
    child(lambda: echo(served))
    return lambda: asks(client)


@animal
def udp_inside():
    one, two = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0))
    two.bind(("127.0.0.1", 0))
    one.connect(two.getsockname())
    two.settimeout(5)

    def check():
        one.send(b"hello")
        return None if two.recv(8) == b"hello" else "lost"

    return check


@animal
def epoll_on_an_eventfd():
    poll, event = select.epoll(), os.eventfd(3)
    poll.register(
        event,
        select.EPOLLIN,
    )

    def check():
        ready = poll.poll(1)
        if [handle for handle, _ in ready] != [event]:
            return f"ready: {ready}"
        count = os.eventfd_read(event)
        os.eventfd_write(event, 3)
        return None if count == 3 else f"counts {count}"

    return check


@animal
def timerfd_that_ticks():
    handle = called(libc.timerfd_create(time.CLOCK_MONOTONIC, 0))
    every = struct.pack("qqqq", 0, 10_000_000, 0, 10_000_000)
    called(libc.timerfd_settime(handle, 0, every, None))

    def check():
        if not select.select([handle], [], [], 2)[0]:
            return "it does not tick"
        return None if struct.unpack("Q", os.read(handle, 8))[0] > 0 else "it has not ticked"

    return check


@animal
def interval_timer():
    ticks = [0]

    def tick(*_):
        ticks[0] += 1

    signal.signal(signal.SIGALRM, tick)
    signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)

    def check():
        before = ticks[0]
        deadline = time.monotonic() + 2
        while ticks[0] == before and time.monotonic() < deadline:
            time.sleep(0.01)
        return None if ticks[0] > before else "it has stopped"

    return check


@animal
def pending_signal():
    def work():
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
        os.kill(os.getpid(), signal.SIGUSR1)
        while True:
            time.sleep(3600)

    pid = child(work)

    def check():
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":\t") for line in status.read().splitlines() if ":\t" in line)
        pending = int(fields["ShdPnd"], 16) | int(fields["SigPnd"], 16)
        return None if pending == 1 << signal.SIGUSR1 - 1 else f"pending: {pending:#x}"

    return check


@animal
def shared_anonymous_memory():
    shared = mmap.mmap(-1, mmap.PAGESIZE)

    def work():
        while True:
            (count,) = struct.unpack_from("Q", shared)
            struct.pack_into("Q", shared, 0, count + 1)
            time.sleep(0.001)

    child(work)

    def check():
        before = struct.unpack_from("Q", shared)
        time.sleep(0.1)
        return None if struct.unpack_from("Q", shared) > before else "the child's writes are not seen"

    return check


@animal
def posix_shared_memory():
    handle = os.open("/dev/shm/menagerie", os.O_RDWR | os.O_CREAT)
    os.write(handle, b"here")
    mapped = mmap.mmap(handle, 4)

    def check():
        with open("/dev/shm/menagerie", "rb") as file:
            return None if file.read() == mapped[:] == b"here" else "it is another"

    return check


@animal
def system_v_ipc():
    memory = called(libc.shmget(0x5EA, 4096, 0o1600))
    address = libc.shmat(memory, None, 0)
    ctypes.memmove(address, b"here", 4)
    semaphore = called(libc.semget(0x5EA, 1, 0o1600))
    called(libc.semctl(semaphore, 0, 16, 7))  # SETVAL
    queue = called(libc.msgget(0x5EA, 0o1600))
    called(libc.msgsnd(queue, struct.pack("q4s", 1, b"here"), 4, 0))

    def check():
        if libc.shmget(0x5EA, 4096, 0o600) != memory or ctypes.string_at(address, 4) != b"here":
            return "memory"
        if libc.semctl(semaphore, 0, 12) != 7:  # GETVAL
            return "semaphore"
        buffer = ctypes.create_string_buffer(12)
        called(libc.msgrcv(queue, buffer, 4, 0, 0o4000))
        called(libc.msgsnd(queue, buffer, 4, 0))
        return None if buffer.raw[8:] == b"here" else "message"

    return check


@animal
def locks_on_files():
    whole, part = open("flock", "w"), open("record", "w+b")
    fcntl.flock(whole, fcntl.LOCK_EX)
    part.write(bytes(100))
    part.flush()
    fcntl.lockf(part, fcntl.LOCK_EX, 10, 5)

    def work():
        ours, other = open("flock"), open("record", "r+b")
        for lock, arguments in ((fcntl.flock, (ours,)), (fcntl.lockf, (other,))):
            try:
                lock(*arguments, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os._exit(2)
            except OSError as held:
                if held.errno not in (errno.EAGAIN, errno.EACCES):
                    os._exit(3)
        os._exit(0)

    def check():
        _, status = os.waitpid(child(work), 0)
        assert not whole.closed  # they are held for as long as the files are
        assert not part.closed
        return None if status == 0 else "somebody else gets the lock"

    return check


def watched(directory):
    os.makedirs(directory)
    handle = called(libc.inotify_init1(os.O_NONBLOCK))
    called(libc.inotify_add_watch(handle, directory.encode(), 0x100))  # IN_CREATE

    def check():
        open(f"{directory}/{time.monotonic_ns()}", "w").close()
        return None if select.select([handle], [], [], 2)[0] and os.read(handle, 4096) else "nothing was seen"

    return check


@animal
def watched_directory():
    return watched("/home/workload/watched")


@animal
def watched_directory_of_its_own_layer():
    return watched("/opt/deep/watched")


@animal
def deleted_file():
    file = tempfile.TemporaryFile(dir=".")
    file.write(b"here")
    file.flush()
    return lambda: None if os.pread(file.fileno(), 8, 0) == b"here" else "its content"


def renamed_file(directory):
    """Open under a name that is gone, while the file has another."""
    first, second = f"{directory}/first", f"{directory}/second"
    file = open(first, "w+b")
    file.write(b"here")
    file.flush()
    os.link(first, second)
    os.unlink(first)

    def check():
        file.seek(0, os.SEEK_END)
        file.write(b"+")
        file.flush()
        with open(second, "rb") as other:
            seen = other.read()
        if seen != os.pread(file.fileno(), 1 << 20, 0) or not seen.startswith(b"here+"):
            return f"through its other name it holds {seen[:20]!r}"
        if (
            not os.path.samestat(os.fstat(file.fileno()), os.stat(second))
            or os.fstat(file.fileno()).st_nlink != 1
        ):
            return f"it has {os.fstat(file.fileno()).st_nlink} links"
        left = [name for name in os.listdir(directory) if name.startswith(("link_remap", "first"))]
        return f"{left} are there" if left else None

    return check


@animal
def renamed_file_in_the_writable_layer():
    os.mkdir("renamed")
    return renamed_file("renamed")


@animal
def renamed_file_in_a_volume():
    os.mkdir("/home/workload/renamed")
    return renamed_file("/home/workload/renamed")


@animal
def renamed_file_in_memory():
    os.mkdir("/dev/shm/renamed")
    return renamed_file("/dev/shm/renamed")


@animal
def renamed_file_of_the_image():
    # Copied up, it shows the inode number that it had in its layer.
    name = of_the_image("this.py")
    with open(name, "ab") as file:
        file.write(b"# changed")
    os.link(name, "this.py")
    file = open(name, "rb")
    os.unlink(name)

    def check():
        held, named = os.fstat(file.fileno()), os.stat("this.py")
        if not os.path.samestat(held, named) or held.st_nlink != 1:
            return f"{held} is not {named}"
        return None if os.pread(file.fileno(), 1 << 20, 0).endswith(b"# changed") else "its content"

    return check


@animal
def removed_file_of_the_image():
    name = of_the_image("antigravity.py")
    with open(name, "rb") as file:
        content = file.read()
    file = open(name, "rb")
    file.seek(7)
    os.unlink(name)

    def check():
        if os.path.exists(name):
            return "it has a name again"
        return None if file.tell() == 7 and os.pread(file.fileno(), 1 << 20, 0) == content else "its content"

    return check


@animal
def mapped_file_of_the_image_that_was_removed():
    name = of_the_image("tabnanny.py")
    with open(name, "rb") as file:
        content = file.read()
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    os.unlink(name)
    return lambda: None if mapped[:] == content else "its content"


@animal
def two_files_that_had_the_same_name():
    files = []
    for number in range(2):
        files.append(open("log", "w+b"))
        files[-1].write(b"log %d" % number)
        files[-1].flush()
        os.link("log", f"log.{number}")
        os.unlink("log")

    def check():
        found = [os.pread(file.fileno(), 9, 0) for file in files]
        same = [
            os.path.samestat(os.fstat(file.fileno()), os.stat(f"log.{n}")) for n, file in enumerate(files)
        ]
        return None if found == [b"log 0", b"log 1"] and all(same) else f"{found} {same}"

    return check


@animal
def mapped_file_that_was_renamed():
    with open("mapped", "w+b") as file:
        file.write(b"here")
        file.flush()
        mapped = mmap.mmap(file.fileno(), 4)
    os.link("mapped", "still mapped")
    os.unlink("mapped")

    def check():
        mapped[:] = b"now!" if mapped[:] == b"here" else b"here"
        with open("still mapped", "rb") as other:
            return None if other.read() == mapped[:] else "its other name shows another file"

    return check


@animal
def links_holes_and_attributes():
    with open("sparse", "wb") as file:
        file.seek(100 << 20)
        file.write(b"end")
    os.link("sparse", "link")
    os.symlink("sparse", "symlink")
    os.chown("sparse", 1000, 33)
    os.chmod("sparse", 0o4751)
    os.utime("sparse", ns=(1_000_000_007, 2_000_000_011))
    try:
        os.setxattr("sparse", "user.menagerie", b"here")
        attributes = True
    except OSError:
        attributes = False  # a file system without them

    def check():
        found = os.stat("link")
        if not os.path.samefile("sparse", "link") or found.st_nlink != 2:
            return "hard link"
        if found.st_blocks * 512 > 1 << 20:
            return f"its hole takes {found.st_blocks} blocks"
        if (found.st_uid, found.st_gid, found.st_mode & 0o7777) != (1000, 33, 0o4751):
            return "owner or mode"
        if found.st_mtime_ns != 2_000_000_011:
            return f"time {found.st_mtime_ns}"
        if attributes and os.getxattr("link", "user.menagerie") != b"here":
            return "attribute"
        return None if os.readlink("symlink") == "sparse" else "symbolic link"

    return check


@animal
def memory_file():
    handle = os.memfd_create("menagerie")
    os.write(handle, b"here")
    return lambda: None if os.pread(handle, 8, 0) == b"here" else "its content"


@animal
def private_mapping_of_a_file():
    with open("private", "w+b") as file:
        file.write(b"a" * 8192)
        file.flush()
        mapped = mmap.mmap(file.fileno(), 8192, access=mmap.ACCESS_COPY)
    mapped[:4] = b"mine"

    def check():
        with open("private", "rb") as file:
            return None if (mapped[:5], file.read(4)) == (b"minea", b"aaaa") else "its pages"

    return check


@animal
def pseudo_terminal():
    master, slave = os.openpty()

    def check():
        os.write(master, b"line\n")
        return None if os.read(slave, 64) == b"line\n" else "it does not pass a line"

    return check


@animal
def session_and_group_of_its_own():
    def work():
        os.setsid()
        while True:
            time.sleep(3600)

    pid = child(work)
    time.sleep(0.2)
    return lambda: None if (os.getsid(pid), os.getpgid(pid)) == (pid, pid) else "its session"


@animal
def stopped_child():
    ticks = mmap.mmap(-1, 8)

    def work():
        while True:
            ticks[0] = (ticks[0] + 1) % 256
            time.sleep(0.01)

    pid = child(work)
    os.kill(pid, signal.SIGSTOP)

    def check():
        if alive(pid) != "T":
            return f"its state is {alive(pid)}"
        before = ticks[0]
        time.sleep(0.1)
        if ticks[0] != before:
            return "it runs"
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.2)
        went_on = ticks[0] != before
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.1)
        return None if went_on else "it does not go on"

    return check


@animal
def dead_child_that_nobody_has_asked_for():
    pid = child(lambda: os._exit(7))
    time.sleep(0.2)
    return lambda: None if alive(pid) == "Z" else f"its state is {alive(pid)}"


@animal
def limits_and_mask():
    resource.setrlimit(resource.RLIMIT_CORE, (4096, 8192))
    os.umask(0o027)
    nice = os.nice(3)
    libc.prctl(15, b"menagerie", 0, 0, 0)  # PR_SET_NAME

    def check():
        mask = os.umask(0o027)
        found = (resource.getrlimit(resource.RLIMIT_CORE), mask, os.getpriority(os.PRIO_PROCESS, 0))
        with open(f"/proc/{os.getpid()}/comm") as comm:
            name = comm.read().strip()
        return None if (*found, name) == ((4096, 8192), 0o027, nice, "menagerie") else f"{found} {name}"

    return check


@animal
def threads():
    counts, local = [0] * 8, threading.local()

    def work(number):
        local.mine = number
        while local.mine == number:
            counts[number] += 1
            time.sleep(0.001)

    for number in range(8):
        threading.Thread(target=work, args=(number,), daemon=True).start()

    def check():
        before = list(counts)
        time.sleep(0.2)
        stuck = [number for number in range(8) if counts[number] == before[number]]
        return f"{stuck} stand still" if stuck else None

    return check


def look(checks):
    """What is wrong with each of them; of those that are well, nothing."""
    found = {}
    for name, check in checks.items():
        try:
            wrong = check()
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is what is wrong
            wrong = repr(failure)
        if wrong:
            found[name] = wrong
    return {"animals": len(checks), "wrong": found}


class Visitor(socketserver.StreamRequestHandler):
    def handle(self):
        for _ in self.rfile:
            self.wfile.write(json.dumps(look(self.server.checks)).encode() + b"\n")


class Keeper(socketserver.TCPServer):
    allow_reuse_address = True
    checks: dict[str, object]


if __name__ == "__main__":
    os.chdir(tempfile.mkdtemp(dir="/var/tmp"))
    Keeper.checks = {name: make() for name, make in ANIMALS.items()}
    Keeper(("0.0.0.0", PORT), Visitor).serve_forever()
