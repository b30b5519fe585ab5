"""A stock program: which package ships it, how it is started, who talks to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

NUMBERED = 'numbers() { seq -f %015.0f 0 9999 >"$1"; }; '
"""A function of start scripts that makes a file of numbered lines, 16 bytes each, which web servers serve."""

LINES = 10000

COUNTED = """
mkdir -p /srv/app; cat >/srv/app/app.py <<'END'
import sqlite3
def application(environ, start_response):
    db = sqlite3.connect("/srv/app/counter.db", timeout=60)
    with db:
        ((n,),) = db.execute("UPDATE counter SET n = n + 1 RETURNING n").fetchall()
    db.close()
    body = f"{n} {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body))), ("Content-Type", "text/plain")])
    return [body]
END
python3 -c "
import sqlite3
db = sqlite3.connect('/srv/app/counter.db')
with db: db.execute('CREATE TABLE counter (n)'), db.execute('INSERT INTO counter VALUES (0)')
"
"""
"""A program behind WSGI, in /srv/app: its workers share a database of SQLite, in which they count the requests."""


@dataclass(frozen=True)
class Program:
    """One row of the table, but for strategy and Docker.

    `start` is a shell script that ends in `exec`: what the package's unit or its documentation starts, in the
    foreground, with the settings that a client from another host needs.
    """

    name: str
    kind: str
    image: str
    """Name of the image that has it, in `images.py`."""

    package: str
    start: str
    port: int
    talk: dict[str, Any]
    """The conversation (`clients/conversations.py`), by its name and what it takes besides address and port."""

    settings: tuple[str, ...] = field(default=())
    """Options of `docker run` that its documentation asks for."""

    limit: str = ""
    """The reason why it is known not to go, with the remedy. Empty: it must go."""

    strategies: tuple[str, ...] = ("auto", "post-copy")


def numbered(path: str = "/numbers", **more: Any) -> dict[str, Any]:
    """A client that asks for numbered lines of a file."""
    return {"talk": "web", "path": path, "lines": LINES, **more}


def as_user(user: str, command: str) -> str:
    """The command as `User=` in a unit runs it."""
    return f"exec setpriv --reuid={user} --regid=$(id -gn {user}) --init-groups {command}"
