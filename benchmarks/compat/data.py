"""Databases, programs in Go, virtual machines of Java and Erlang, Node, PHP, Ruby."""

from __future__ import annotations

from benchmarks.compat.program import NUMBERED, Program, as_user, numbered

POSTGRESQL = (
    "c=/etc/postgresql/17/main; sed -i '1i host all all all trust' $c/pg_hba.conf; "
    "mkdir -p /run/postgresql; chown postgres: /run/postgresql; "
)
POSTGRES = (
    "/usr/lib/postgresql/17/bin/postgres -D /var/lib/postgresql/17/main -c config_file=$c/postgresql.conf"
)
PGBOUNCER = """
cat >/etc/pgbouncer/pgbouncer.ini <<'END'
[databases]
postgres = host=127.0.0.1 port=5432 user=postgres dbname=postgres
[pgbouncer]
listen_addr = *
listen_port = 6432
auth_type = any
pool_mode = transaction
END
"""
MARIADB = (
    "echo \"CREATE USER IF NOT EXISTS compat@'%';\" >/etc/mysql/compat.sql; "
    "echo \"GRANT ALL ON *.* TO compat@'%';\" >>/etc/mysql/compat.sql; "
    "mkdir -p /run/mysqld; chown mysql: /run/mysqld; "
)

DATA = (
    Program(
        "postgresql",
        "database",
        "sql",
        "postgresql-17",
        POSTGRESQL + as_user("postgres", f"{POSTGRES} -c listen_addresses='*'"),
        5432,
        {"talk": "postgresql", "user": "postgres", "database": "postgres"},
    ),
    Program(
        "pgbouncer",
        "proxy",
        "sql",
        "pgbouncer",
        POSTGRESQL
        + PGBOUNCER
        + f"setpriv --reuid=postgres --regid=postgres --init-groups {POSTGRES} & "
        + as_user("postgres", "pgbouncer /etc/pgbouncer/pgbouncer.ini"),
        6432,
        {"talk": "postgresql", "user": "postgres", "database": "postgres"},
    ),
    Program(
        "mariadb",
        "database",
        "sql",
        "mariadb-server",
        MARIADB
        + as_user(
            "mysql", "mariadbd --bind-address=0.0.0.0 --skip-name-resolve --init-file=/etc/mysql/compat.sql"
        ),
        3306,
        {"talk": "mysql", "user": "compat"},
    ),
    Program(
        "caddy",
        "Go, web server",
        "go",
        "caddy",
        NUMBERED
        + "numbers /usr/share/caddy/numbers; export HOME=/var/lib/caddy; "
        + as_user("caddy", "caddy run --environ --config /etc/caddy/Caddyfile"),
        80,
        numbered(),
    ),
    Program(
        "nats",
        "Go, broker",
        "go",
        "nats-server",
        as_user("nats", "nats-server -c /etc/nats-server.conf --addr 0.0.0.0"),
        4222,
        {
            "talk": "dialogue",
            "greeting": "^INFO",
            "first": [['CONNECT {"verbose":true,"pedantic":true}', r"^\+OK"], ["SUB turns 1", r"^\+OK"]],
            "each": [["PUB turns 10\r\n{p}", r"^\+OK"], ["", "^MSG turns 1 10"], ["", "^{p}$"]],
        },
    ),
    Program(
        "etcd",
        "Go, database",
        "go",
        "etcd-server",
        as_user(
            "etcd",
            "etcd --data-dir /var/lib/etcd/default --listen-client-urls http://0.0.0.0:2379 "
            "--advertise-client-urls http://127.0.0.1:2379",
        ),
        2379,
        {
            "talk": "web",
            "method": "POST",
            "before": [["POST", "/v3/kv/put", '{"key":"bg==","value":"{b}"}']],
            "path": "/v3/kv/range",
            "body": '{"key":"bg=="}',
            "expected": '"version":"(?P<count>[0-9]+)", *"value":"{b}"',
        },
    ),
    Program(
        "prometheus",
        "Go, monitoring",
        "go",
        "prometheus",
        as_user(
            "prometheus",
            "prometheus --config.file=/etc/prometheus/prometheus.yml --storage.tsdb.path=/var/lib/prometheus/metrics2",
        ),
        9090,
        {"talk": "web", "path": "/api/v1/query?query=vector({n})", "expected": r'"{n}"\]'},
    ),
    Program(
        "prometheus-node-exporter",
        "Go, monitoring",
        "go",
        "prometheus-node-exporter",
        as_user("prometheus", "prometheus-node-exporter"),
        9100,
        {
            "talk": "web",
            "path": "/metrics",
            "expected": r'promhttp_metric_handler_requests_total\{code="200"\} (?P<count>[0-9]+)',
            "pause_s": 0.1,
        },
    ),
    Program(
        "prometheus-alertmanager",
        "Go, monitoring",
        "go",
        "prometheus-alertmanager",
        as_user(
            "prometheus",
            "prometheus-alertmanager --config.file=/etc/prometheus/alertmanager.yml "
            "--storage.path=/var/lib/prometheus/alertmanager --cluster.listen-address=",
        ),
        9093,
        {
            "talk": "web",
            "before": [["POST", "/api/v2/alerts", '[{"labels":{"alertname":"a{n}"}}]']],
            "path": "/api/v2/alerts?filter=alertname%3D%22a{n}%22",
            "expected": '"alertname":"a{n}"',
            "headers": {"Content-Type": "application/json"},
            "pause_s": 0.1,
        },
    ),
)
