"""A program for a container that does all at once what looking at it from outside races with, and checks itself.

Processes that live for a moment, orphans of theirs, threads; processes that take other names; files that are made,
truncated, renamed, rotated, removed, mapped; directories that come and go; memory that is mapped and given back;
sockets, connections and watches that are opened and closed. What it has written it reads again and compares.

Left out is what CRIU does not bring along, whoever asks it: connections that nobody has accepted yet or that are not
established (a migration in that moment fails or loses them), inotify on overlayfs and its unread events.
"""

from __future__ import annotations

PORT = 7000

PROGRAM = r"""
import collections, ctypes, hashlib, itertools, json, mmap, os, random, shutil, socket, threading, time

wrong, done = [], collections.Counter()
libc = ctypes.CDLL(None, use_errno=True)

def forever(action):
    def run():
        for number in itertools.count():
            try:
                action(number)
                done[action.__name__] += 1
            except Exception as failed:
                wrong.append(f"{action.__name__}: {type(failed).__name__}: {failed}")
                time.sleep(1)
            time.sleep(0.02)
    threading.Thread(target=run, daemon=True).start()

def start(code):
    # No fork() of a program with threads: a fresh interpreter would be slow, /bin/sh is there.
    return os.posix_spawn("/bin/sh", ["sh", "-c", code], os.environ)

def processes(number):
    child = start("exit 7")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != 7: wrong.append(f"a child ended with {status}")

def orphans(number):
    child = start("(sleep 0.0$(( $$ % 9 + 1 )); :) & :")
    os.waitpid(child, 0)

def threads(number):
    found = []
    some = [threading.Thread(target=found.append, args=(n,)) for n in range(5)]
    for one in some: one.start()
    for one in some: one.join()
    if sorted(found) != list(range(5)): wrong.append(f"threads did {found}")

def names(number):
    libc.prctl(15, random.choice((b"\xff\xfe) (", b"a\nb) S 1", b"plain", b"\xc3", b"((")), 0, 0, 0)

def rotation(number, place="/data"):
    data = os.urandom(random.randrange(1 << 18))
    with open(f"{place}/log", "wb") as file:
        file.write(data); file.flush()
    os.rename(f"{place}/log", f"{place}/log.1")
    if open(f"{place}/log.1", "rb").read() != data: wrong.append(f"what was written to {place} is not there")

def layer(number): rotation(number, "/home")

def memory_files(number): rotation(number, "/scratch")

def rewriting(number):
    with open("/home/big", "wb") as file:
        for part in range(16): file.write(bytes([number % 256]) * (1 << 18))
    if os.stat("/home/big").st_size != 16 << 18: wrong.append("a file of another length")

def folders(number):
    place = f"/home/folder-{number % 3}/inner"
    os.makedirs(place, exist_ok=True)
    open(f"{place}/one", "w").write("one")
    os.link(f"{place}/one", f"{place}/two")
    os.symlink("one", f"{place}/three")
    if open(f"{place}/three").read() != "one": wrong.append("a link leads elsewhere")
    shutil.rmtree(os.path.dirname(place))

with open("/data/mapped", "wb") as made: made.truncate(1 << 20)
held = open("/data/mapped", "r+b")
shared = mmap.mmap(held.fileno(), 0)
counter = itertools.count(1)

def mapped(number):
    # Through a mapping, and seen through the file.
    now = next(counter)
    shared[:8] = now.to_bytes(8, "little")
    if int.from_bytes(os.pread(held.fileno(), 8, 0), "little") != now: wrong.append("a mapping is not its file")
    with open("/home/short", "w+b") as file:
        file.truncate(8192)
        with mmap.mmap(file.fileno(), 0) as own: own[4096:4100] = b"here"
    os.unlink("/home/short")

def memory(number):
    size = random.randrange(1, 64) << 16
    with mmap.mmap(-1, size) as block:
        block[:4], block[-4:] = b"head", b"tail"
        if block[:4] != b"head" or block[-4:] != b"tail": wrong.append("memory is not what was written")

def watches(number):
    handle = libc.inotify_init1(os.O_NONBLOCK)
    libc.inotify_add_watch(handle, b"/data", 0x100)
    os.close(handle)

def descriptors(number):
    read, write = os.pipe()
    os.write(write, b"through"); got = os.read(read, 100)
    os.close(read); os.close(write)
    if got != b"through": wrong.append(f"a pipe gave {got}")
    left, right = socket.socketpair()
    left.sendall(b"pair"); got = right.recv(100)
    left.close(); right.close()
    if got != b"pair": wrong.append(f"a pair gave {got}")

def datagrams(number):
    one, other = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    one.bind(("127.0.0.1", 0)); one.settimeout(0.2)
    other.sendto(b"datagram", one.getsockname())
    try: one.recv(100)  # it may be lost, as any may
    except TimeoutError: pass
    one.close(); other.close()

def listeners(number):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0)); listener.listen(4)
    listener.close()

# A connection over loopback that lives as long as the program, under way all the time.
listener = socket.create_server(("127.0.0.1", 0))
near = socket.create_connection(listener.getsockname()); far = listener.accept()[0]
listener.close()

def loopback(number):
    data = os.urandom(1000)
    near.sendall(data)
    got = b""
    while len(got) < len(data): got += far.recv(2000)
    if got != data: wrong.append("loopback gave something else")

digest = hashlib.sha256(b"0")
block = bytearray(os.urandom(4 << 20)); sum_of_block = hashlib.sha256(block).hexdigest()

def checks(number):
    at = random.randrange(len(block)); before = block[at]
    block[at] ^= 255; block[at] = before
    if number % 50 == 0 and hashlib.sha256(block).hexdigest() != sum_of_block: wrong.append("memory has changed")

os.makedirs("/home", exist_ok=True)
for action in (processes, orphans, threads, names, rotation, layer, memory_files, rewriting, folders, mapped, memory,
               watches, descriptors, datagrams, listeners, loopback, checks):
    forever(action)

server = socket.create_server(("0.0.0.0", 7000))
print("up", flush=True)
answered = 0
while True:
    peer = server.accept()[0]
    answered += 1
    peer.sendall(json.dumps({"answered": answered, "wrong": wrong[:5], "done": dict(done)}).encode())
    done.clear()
    peer.close()
"""


def question(address: str) -> str:
    """A program that asks it how it goes, after it has had a second for that, and prints the answer as JSON."""
    return (
        "import socket, time\n"
        "for pause in (0, 1):\n"
        "    time.sleep(pause)\n"
        f"    with socket.create_connection(({address!r}, {PORT}), timeout=10) as peer:\n"
        "        said = b''.join(iter(lambda: peer.recv(4096), b''))\n"
        "print(said.decode())\n"
    )
