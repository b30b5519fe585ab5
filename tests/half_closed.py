"""A server in a container and its clients outside, whose connections are closed in one direction when they move."""

SERVER = r"""
# python3 -c SERVER: three clients connect from outside. All stay half closed until SIGUSR1.
import json, signal, socket, threading

ANSWER = bytes(range(256)) * 4000

door = socket.create_server(("", 7000))
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
print("listening", flush=True)
asked = []
for _ in range(3):
    client, _ = door.accept()
    word = client.recv(1)
    if word == b"a":  # has shut its side, and waits for the answer
        while client.recv(4096):
            pass
    elif word == b"b":  # has the answer and its end, and still sends
        client.sendall(ANSWER)
        client.shutdown(socket.SHUT_WR)
    else:  # has shut its side, and reads nothing while the answer fills both queues
        while client.recv(4096):
            pass
        client.setblocking(False)
        sent = 0
        try:
            while sent < len(ANSWER):
                sent += client.send(ANSWER[sent:])
        except BlockingIOError:
            pass
        client.setblocking(True)
        word += b"%d" % sent
    asked.append((word, client))
print("ready", flush=True)
signal.sigwait([signal.SIGUSR1])
wrong = {}

def finish(word, client):
    try:
        if word == b"a":
            client.sendall(ANSWER)
        elif word == b"b":
            got = b""
            while piece := client.recv(65536):
                got += piece
            if got != ANSWER:
                wrong["b"] = len(got)
        else:
            client.sendall(ANSWER[int(word[1:]):])
        client.close()
    except OSError as failure:
        wrong[word.decode()] = str(failure)

threads = [threading.Thread(target=finish, args=one) for one in asked]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(json.dumps({"wrong": wrong}), flush=True)
signal.pause()
"""

CLIENTS = r"""
# python3 - ADDRESS: the three clients of SERVER. They go on when there is a line at standard input.
import json, socket, sys, threading, time

ANSWER = bytes(range(256)) * 4000
held = {}
for word in "abc":
    client = held[word] = socket.socket()
    if word == "c":
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
    client.connect((sys.argv[1], 7000))
    client.sendall(word.encode())
    if word != "b":
        client.shutdown(socket.SHUT_WR)
    elif (got := b"".join(iter(lambda: client.recv(65536), b""))) != ANSWER:
        raise SystemExit(f"{len(got)} bytes of the first answer")
print("ready", flush=True)
sys.stdin.readline()
wrong, took = {}, {}

def finish(word, client):
    began = time.monotonic()
    try:
        if word == "b":
            client.sendall(ANSWER)
            client.shutdown(socket.SHUT_WR)
        elif (got := b"".join(iter(lambda: client.recv(65536), b""))) != ANSWER:
            wrong[word] = f"{len(got)} bytes"
    except OSError as failure:
        wrong[word] = str(failure)
    took[word] = time.monotonic() - began

threads = [threading.Thread(target=finish, args=one) for one in held.items()]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join(60)
print(json.dumps({"wrong": wrong, "took_s": took}), flush=True)
"""
