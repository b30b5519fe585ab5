"""Caches, databases in memory, web servers and proxies."""

from __future__ import annotations

from benchmarks.compat.program import NUMBERED, Program, as_user, numbered

COUNTED = [["SET n {n}", r"^\+OK"], ["INCR counter", "^:"], ["GET n", r"^\$"], ["", "^{n}$"]]

WSGI = """
mkdir -p /srv/app; cat >/srv/app/app.py <<'END'
import os, sqlite3
def application(environ, start_response):
    db = sqlite3.connect("/srv/app/counter.db", timeout=60)
    with db:
        (n,), = db.execute("UPDATE counter SET n = n + 1 RETURNING n").fetchall()
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
"""A program behind WSGI: its workers share a database of SQLite, in which they count the requests."""

SERVERS = (
    Program(
        "redis",
        "cache",
        "servers",
        "redis-server",
        "mkdir -p /run/redis && chown redis: /run/redis; "
        + as_user(
            "redis",
            "redis-server /etc/redis/redis.conf --daemonize no --bind 0.0.0.0 --protected-mode no --appendonly yes",
        ),
        6379,
        {
            "talk": "dialogue",
            "first": [["DEL counter", "^:"], ["SET begun 1", r"^\+OK"]],
            "each": [["INCR counter", "^:{n}$"], ["SET n {n}", r"^\+OK"], ["GET n", "^{n}$"]],
        },
    ),
    Program(
        "nginx",
        "web server",
        "servers",
        "nginx",
        NUMBERED + "numbers /var/www/html/numbers; exec nginx -g 'daemon off; master_process on;'",
        80,
        numbered(),
    ),
    Program(
        "gunicorn",
        "Python with workers",
        "servers",
        "gunicorn",
        WSGI
        + "exec gunicorn --chdir /srv/app --bind 0.0.0.0:8000 --workers 4 --threads 2 --keep-alive 75 app",
        8000,
        {"talk": "web", "path": "/turn/{n}", "expected": "^[0-9]+ /turn/{n}$"},
    ),
)
