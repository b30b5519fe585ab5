"""Programs with TCP connections in every state, which say themselves whether a move has changed anything of them.

Each is run by Python in a container. It prints `ready`, waits for SIGUSR1, and prints one line of JSON for each of its
processes.
"""

PATTERN = r"""
import hashlib

def pattern(name, size):
    block = hashlib.sha256(name.encode()).digest() * 64
    return (block * (size // len(block) + 1))[:size]
"""

PAIRS = (
    PATTERN
    + r"""
# python3 -c PAIRS ADDRESSES: connections within the container, in two processes, each in a state of its own.
import json, os, signal, socket, sys, threading, time

MORE, PATIENCE_S = 20_000, 60

class End:
    def __init__(self, name, held):
        self.name, self.held = name, held
        self.sent, self.is_shut, self.is_closed, self.said, self.waited_s = 0, False, False, [], 0
    def send(self, size):
        self.held.sendall(pattern(self.name, self.sent + size)[self.sent:])
        self.sent += size
    def fill(self):  # until its own queue and the other end's are full
        self.held.setblocking(False)
        data, until = pattern(self.name, 1 << 24), time.monotonic() + 0.05
        while time.monotonic() < until:
            try:
                self.sent += self.held.send(data[self.sent:self.sent + 65536])
            except BlockingIOError:
                time.sleep(0.01)
        self.held.setblocking(True)
    def shut(self):
        self.held.shutdown(socket.SHUT_WR)
        self.is_shut = True
    def close(self):
        self.shut()
        self.held.close()
        self.is_closed = True
    def write(self):
        try:
            if not self.is_shut and not self.peer.is_closed:
                self.send(MORE)
                self.held.shutdown(socket.SHUT_WR)
        except OSError as failure:
            self.said.append(f"write: {failure}")
    def read(self):
        got, due = bytearray(), pattern(self.peer.name, self.peer.sent + (0 if self.peer.is_shut else MORE))
        try:
            while True:
                began = time.monotonic()
                piece = self.held.recv(1 << 20)
                self.waited_s = max(self.waited_s, time.monotonic() - began)
                if not piece:
                    break
                got += piece
        except OSError as failure:
            self.said.append(f"read: {failure}")
        if bytes(got) != due:
            self.said.append(f"{len(got)} bytes, not {len(due)}; as far as they go they are "
                             + ("right" if due.startswith(bytes(got)) else "wrong"))

STATES = {
    "idle": lambda a, b: None,
    "unread": lambda a, b: (a.send(10_000), b.send(5_000)),
    "full": lambda a, b: a.fill(),
    "full back": lambda a, b: b.fill(),
    "full both": lambda a, b: (a.fill(), b.fill()),
    "shut": lambda a, b: a.shut(),
    "shut back": lambda a, b: b.shut(),
    "shut unread": lambda a, b: (a.send(10_000), b.send(5_000), a.shut()),
    "shut back unread": lambda a, b: (a.send(10_000), b.send(5_000), b.shut()),
    "shut full": lambda a, b: (a.fill(), a.shut()),
    "shut back full": lambda a, b: (b.fill(), b.shut()),
    "shut, full back": lambda a, b: (a.send(10_000), a.shut(), b.fill()),
    "shut, full back, shut": lambda a, b: (a.send(100), a.shut(), b.fill(), b.shut()),
    "both shut": lambda a, b: (a.shut(), b.shut()),
    "both shut unread": lambda a, b: (a.send(10_000), b.send(5_000), a.shut(), b.shut()),
    "both shut full": lambda a, b: (a.fill(), b.fill(), a.shut(), b.shut()),
    "closed unread": lambda a, b: (a.send(10_000), a.close()),
    "closed back unread": lambda a, b: (b.send(10_000), b.close()),
}

def pair(where, name):
    with socket.create_server((where, 0), family=socket.AF_INET6 if ":" in where else socket.AF_INET) as door:
        near = socket.socket(door.family)
        near.connect(door.getsockname())
        a, b = End(name + ", near", near), End(name + ", far", door.accept()[0])
    a.peer, b.peer = b, a
    return a, b

pairs = []
for where in sys.argv[1].split():
    for state, reach in STATES.items():
        ends = pair(where, f"{state} at {where}")
        reach(*ends)
        pairs.append(ends)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
child = os.fork()
mine = [ends[0 if child else 1] for ends in pairs]
for ends in pairs:
    other = ends[1 if child else 0]
    other.held.close()
if child:
    print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
if child:
    os.kill(child, signal.SIGUSR1)
work = [(end, threading.Thread(target=call, daemon=True)) for end in mine if not end.is_closed
        for call in (end.read, end.write)]
until = time.monotonic() + PATIENCE_S
for _, thread in work:
    thread.start()
for end, thread in work:
    thread.join(max(0, until - time.monotonic()))
    if thread.is_alive():
        end.said.append("it never ends")
wrong = {end.name: end.said for end in mine if end.said}
print(json.dumps({"ends": len(mine), "wrong": wrong, "waited_s": max(end.waited_s for end in mine)}), flush=True)
while True:
    time.sleep(10)
"""
)

STREAMS = r"""
# python3 -c STREAMS ADDRESSES: numbers under way all the time. Each reader checks them, and how long it has to wait.
import json, signal, socket, sys, threading, time

SIZE = 512
wrong, waited, read = {}, {}, {}

def block(number):
    return b"".join((number + at).to_bytes(8, "big") for at in range(SIZE // 8))

def take(held, size):
    got = b""
    while len(got) < size:
        piece = held.recv(size - len(got))
        if not piece:
            raise EOFError
        got += piece
    return got

def write(name, held, pause_s=0):
    number = 0
    while True:
        held.sendall(block(number))
        number += SIZE // 8
        if pause_s:
            time.sleep(pause_s)

def check(name, held, pause_s=0):
    number = 0
    while True:
        began = time.monotonic()
        got = take(held, SIZE)
        waited[name] = max(waited.get(name, 0), time.monotonic() - began)
        read[name] = read.get(name, 0) + 1
        if got != block(number):
            raise ValueError(f"wrong from {number} on")
        number += SIZE // 8
        if pause_s:
            time.sleep(pause_s)

def ask(name, held):
    number = 0
    while True:
        began = time.monotonic()
        held.sendall(block(number))
        if take(held, SIZE) != block(number):
            raise ValueError(f"wrong from {number} on")
        waited[name] = max(waited.get(name, 0), time.monotonic() - began)
        read[name] = read.get(name, 0) + 1
        number += 1

def answer(name, held):
    while True:
        held.sendall(take(held, SIZE))

def begin(name, call, *arguments):
    def run():
        try:
            call(name, *arguments)
        except Exception as failure:
            wrong[name] = repr(failure)
    threading.Thread(target=run, daemon=True).start()

def pair(where):
    with socket.create_server((where, 0), family=socket.AF_INET6 if ":" in where else socket.AF_INET) as door:
        near = socket.socket(door.family)
        near.connect(door.getsockname())
        return near, door.accept()[0]

for where in sys.argv[1].split():
    a, b = pair(where)
    begin(f"ask at {where}", ask, a)
    begin(f"ask at {where}", answer, b)
    a, b = pair(where)
    begin(f"fast at {where}", write, a)
    begin(f"fast at {where}", check, b)
    a, b = pair(where)
    begin(f"slowly read at {where}", write, a)
    begin(f"slowly read at {where}", check, b, 0.001)
    a, b = pair(where)
    begin(f"slowly written at {where}", write, a, 0.002)
    begin(f"slowly written at {where}", check, b)
    a, b = pair(where)
    b.shutdown(socket.SHUT_WR)
    begin(f"half closed at {where}", write, a)
    begin(f"half closed at {where}", check, b)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
while True:
    signal.sigwait([signal.SIGUSR1])
    before = dict(read)
    time.sleep(1)
    stuck = [name for name in read if read[name] == before[name]]
    print(json.dumps({"wrong": wrong, "stuck": stuck, "waited_s": waited}), flush=True)
"""

MEMBER = (
    PATTERN
    + r"""
# python3 -c MEMBER OTHER: one of two containers of a group. Without OTHER it listens, else it connects.
import json, signal, socket, sys, threading, time

MORE = 20_000

def fill(held, data):
    sent, until = 0, time.monotonic() + 0.3
    held.setblocking(False)
    while time.monotonic() < until:
        try:
            sent += held.send(data[sent:sent + 65536])
        except BlockingIOError:
            time.sleep(0.01)
    held.setblocking(True)
    return sent

STATES = ["idle", "unread", "full near", "full far", "full both", "shut near", "shut far", "shut full near"]
side = "near" if len(sys.argv) > 1 else "far"
other = "far" if side == "near" else "near"
if side == "far":
    door = socket.create_server(("", 7000), backlog=64)
    print("listening", flush=True)
held = {}
for state in STATES:
    if side == "near":
        held[state] = socket.create_connection((sys.argv[1], 7000))
    else:
        held[state] = door.accept()[0]
sent = {}
for state, one in held.items():
    words = state.split()
    sent[state] = 0
    data = pattern(f"{state} {side}", 1 << 24)
    if state == "unread":
        one.sendall(data[:10_000])
        sent[state] = 10_000
    elif "full" in words and words[-1] in (side, "both"):
        sent[state] = fill(one, data)
    if words[0] == "shut" and words[-1] == side:
        one.shutdown(socket.SHUT_WR)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
wrong, got, waited = {}, {}, [0]

def read(state, one):
    had = bytearray()
    try:
        while True:
            began = time.monotonic()
            piece = one.recv(1 << 20)
            waited.append(time.monotonic() - began)
            if not piece:
                break
            had += piece
    except OSError as failure:
        wrong[f"{state}, read"] = str(failure)
    if bytes(had) != pattern(f"{state} {other}", len(had)):
        wrong[state] = "other bytes"
    got[state] = len(had)

def write(state, one):
    if state.startswith("shut") and state.endswith(side):
        return
    try:
        one.sendall(pattern(f"{state} {side}", sent[state] + MORE)[sent[state]:])
        sent[state] += MORE
        one.shutdown(socket.SHUT_WR)
    except OSError as failure:
        wrong[f"{state}, write"] = str(failure)

threads = [threading.Thread(target=call, args=one, daemon=True) for one in held.items() for call in (read, write)]
for thread in threads:
    thread.start()
until = time.monotonic() + 60
for thread in threads:
    thread.join(max(0, until - time.monotonic()))
    if thread.is_alive():
        wrong["all"] = "it never ends"
print(json.dumps({"wrong": wrong, "sent": sent, "got": got, "waited_s": max(waited)}), flush=True)
signal.pause()
"""
)
