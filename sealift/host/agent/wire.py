"""Messages: one JSON object a line, bulk data behind it by length."""

import json
import socket
import sys
import threading
import time

LINE_LIMIT = 1 << 20


class AgentError(Exception):
    """One sentence for a person; `step` names the step of the protocol that failed."""

    def __init__(self, message, step=None):
        super().__init__(message)
        self.step = step


class Controller:
    """The controller at the other end of standard input and output."""

    def __init__(self):
        self._lock = threading.Lock()

    def orders(self):
        """Each order as a dict; ends when the controller is gone."""
        for line in sys.stdin.buffer:
            yield json.loads(line)

    def tell(self, **message):
        """Send one message. A controller that is gone is no reason to stop: see `sealift recover`."""
        line = json.dumps(message).encode() + b"\n"
        with self._lock:
            try:
                sys.stdout.buffer.write(line)
                sys.stdout.buffer.flush()
            except (BrokenPipeError, ValueError, OSError):
                pass

    def event(self, name, **facts):
        """Something happened, now, by this host's monotonic clock."""
        self.tell(event=name, at_ns=time.monotonic_ns(), **facts)


class Link:
    """A connection to another agent through the tunnel."""

    def __init__(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket = connection
        self.reader = connection.makefile("rb", buffering=1 << 16)

    @classmethod
    def connect(cls, address, port, token, timeout=10):
        link = cls(socket.create_connection((address, port), timeout=timeout))
        link.socket.settimeout(None)
        link.send(token=token)
        return link

    @classmethod
    def accept(cls, listener, token, timeout=None):
        """The first peer that knows the token; others are turned away."""
        listener.settimeout(timeout)
        while True:
            connection, _ = listener.accept()
            connection.settimeout(10)
            link = cls(connection)
            try:
                hello = link.receive()
            except (OSError, ValueError, AgentError):
                hello = {}
            if hello.get("token") == token:
                connection.settimeout(None)
                return link
            link.close()

    def send(self, **message):
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, timeout=None):
        """The next message; AgentError when the other side is gone or silent for `timeout` seconds."""
        self.socket.settimeout(timeout)
        try:
            line = self.reader.readline(LINE_LIMIT)
        except (OSError, ValueError) as lost:
            raise AgentError(f"the connection to the other host was lost: {lost}") from lost
        finally:
            try:
                self.socket.settimeout(None)
            except OSError:
                pass
        if not line.endswith(b"\n"):
            raise AgentError("the other host closed the connection")
        return json.loads(line)

    def send_file(self, path, size):
        with open(path, "rb") as data:
            sent = self.socket.sendfile(data, 0, size)
        if sent != size:
            raise AgentError(f"{path} shrank while it was sent")

    def receive_file(self, path, size):
        with open(path, "wb") as data:
            left = size
            while left:
                chunk = self.reader.read(min(left, 1 << 20))
                if not chunk:
                    raise AgentError("the other host closed the connection in the middle of a file")
                data.write(chunk)
                left -= len(chunk)

    def close(self):
        try:
            self.reader.close()
            self.socket.close()
        except OSError:
            pass


def listen(address):
    """A listener on a free port of that address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 0))
    listener.listen(4)
    return listener


def serve(handlers, controller, gone):
    """Answer the controller's orders, one after the other, until it is gone; then call `gone`."""
    for order in controller.orders():
        name = order.pop("order")
        number = order.pop("number")
        try:
            result = handlers[name](**order)
            controller.tell(number=number, result=result)
        except Exception as failure:  # noqa: BLE001 - whatever it is, the controller must hear of it
            step = getattr(failure, "step", None)
            kind = "" if isinstance(failure, AgentError) else f"{type(failure).__name__}: "
            controller.tell(number=number, error=f"{kind}{failure}", step=step)
    gone()
