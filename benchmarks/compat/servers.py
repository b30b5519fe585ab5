"""Caches, brokers, web servers and proxies."""

from __future__ import annotations

from benchmarks.compat.program import COUNTED, NUMBERED, Program, as_user, numbered

NGINX = (
    NUMBERED
    + "numbers /var/www/html/numbers; "
    + "echo 'keepalive_requests 1000000;' >/etc/nginx/conf.d/compat.conf; "
)
"""nginx closes a connection after 1000 requests, and a client here keeps one connection."""

BACKEND = NGINX + "nginx; "
"""nginx behind a proxy, in the same container."""

APACHE = (
    NUMBERED
    + "numbers /var/www/html/numbers; mkdir -p /run/apache2; "
    + "echo 'MaxKeepAliveRequests 0' >/etc/apache2/conf-enabled/compat.conf; "
)
LIGHTTPD = (
    NUMBERED
    + "numbers /var/www/html/numbers; "
    + "echo 'server.max-keep-alive-requests = 32767' >/etc/lighttpd/conf-enabled/99-compat.conf; "
)
HAPROXY = """
mkdir -p /run/haproxy
cat >>/etc/haproxy/haproxy.cfg <<'END'
frontend compat
    bind :8080
    default_backend compat
backend compat
    server nginx 127.0.0.1:80
END
exec haproxy -W -db -f /etc/haproxy/haproxy.cfg"""
STUNNEL = """
openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj /CN=compat -keyout /etc/stunnel/key -out /etc/stunnel/cert 2>&1
cat >/etc/stunnel/compat.conf <<'END'
foreground = yes
pid =
[compat]
accept = 4433
connect = 127.0.0.1:80
cert = /etc/stunnel/cert
key = /etc/stunnel/key
END
exec stunnel4 /etc/stunnel/compat.conf"""

SERVERS = (
    *(
        Program(
            name,
            "cache",
            "servers",
            f"{name}-server",
            f"mkdir -p /run/{name} && chown {name}: /run/{name}; "
            + as_user(
                name,
                f"{name}-server /etc/{name}/{name}.conf --daemonize no --supervised no --bind 0.0.0.0 "
                "--protected-mode no --appendonly yes",
            ),
            6379,
            {
                "talk": "dialogue",
                "first": [["DEL counter", "^:"]],
                "each": [["INCR counter", "^:{n}$"], ["SET n {n}", r"^\+OK"], ["GET n", "^{n}$"]],
            },
        )
        for name in ("redis", "valkey")
    ),
    Program(
        "memcached",
        "cache",
        "servers",
        "memcached",
        "exec memcached -u memcache -m 64 -l 0.0.0.0 -p 11211",
        11211,
        {
            "talk": "dialogue",
            "first": [["set counter 0 0 1\r\n0", "^STORED"]],
            "each": [
                ["incr counter 1", "^{n}$"],
                ["set n 0 0 10\r\n{p}", "^STORED"],
                ["get n", "^VALUE n 0 10"],
                ["", "^{p}$"],
                ["", "^END"],
            ],
        },
    ),
    Program("nginx", "web server", "servers", "nginx", f"{NGINX}exec nginx -g 'daemon off;'", 80, numbered()),
    Program(
        "apache2",
        "web server",
        "servers",
        "apache2",
        f"{APACHE}. /etc/apache2/envvars; exec apache2 -D FOREGROUND",
        80,
        numbered(),
    ),
    Program(
        "lighttpd",
        "web server",
        "servers",
        "lighttpd",
        f"{LIGHTTPD}exec lighttpd -D -f /etc/lighttpd/lighttpd.conf",
        80,
        numbered(),
    ),
    Program("haproxy", "proxy", "servers", "haproxy", BACKEND + HAPROXY, 8080, numbered()),
    Program("stunnel", "proxy with TLS", "servers", "stunnel4", BACKEND + STUNNEL, 4433, numbered(tls=True)),
    Program(
        "squid",
        "proxy",
        "servers",
        "squid",
        f"{BACKEND}sed -i '1i http_access allow all' /etc/squid/squid.conf; "
        "squid --foreground -z; exec squid --foreground -sYC",
        3128,
        numbered("http://127.0.0.1/numbers"),
    ),
    Program(
        "varnish",
        "proxy",
        "servers",
        "varnish",
        f"{BACKEND}sed -i s/8080/80/ /etc/varnish/default.vcl; "
        "exec varnishd -F -a :6081 -T localhost:6082 -f /etc/varnish/default.vcl -S /etc/varnish/secret -s malloc,256m",
        6081,
        numbered(),
    ),
    Program(
        "tinyproxy",
        "proxy",
        "servers",
        "tinyproxy",
        f"{BACKEND}echo 'Allow 0.0.0.0/0' >>/etc/tinyproxy/tinyproxy.conf; "
        "mkdir -p /run/tinyproxy; chown tinyproxy: /run/tinyproxy; "
        "sed -i 's/^ConnectPort.*//' /etc/tinyproxy/tinyproxy.conf; exec tinyproxy -d",
        8888,
        numbered(tunnel="127.0.0.1:80"),
    ),
    Program(
        "privoxy",
        "proxy",
        "servers",
        "privoxy",
        f"{BACKEND}sed -i 's/^listen-address.*//' /etc/privoxy/config; "
        "echo 'listen-address 0.0.0.0:8118' >>/etc/privoxy/config; "
        "exec privoxy --no-daemon --user privoxy /etc/privoxy/config",
        8118,
        numbered(tunnel="127.0.0.1:80"),
    ),
    Program(
        "mosquitto",
        "broker",
        "servers",
        "mosquitto",
        r"printf 'listener 1883 0.0.0.0\nallow_anonymous true\n' >/etc/mosquitto/conf.d/compat.conf; "
        "mkdir -p /run/mosquitto; chown mosquitto: /run/mosquitto; "
        + as_user("mosquitto", "mosquitto -c /etc/mosquitto/mosquitto.conf"),
        1883,
        {"talk": "mqtt"},
    ),
    Program(
        "beanstalkd",
        "broker",
        "small",
        "beanstalkd",
        as_user("beanstalkd", "beanstalkd -l 0.0.0.0 -p 11300"),
        11300,
        {
            "talk": "dialogue",
            "each": [
                ["put 0 0 60 10\r\n{p}", "^INSERTED {n}$"],
                ["reserve", "^RESERVED {n} 10"],
                ["", "^{p}$"],
                ["delete {n}", "^DELETED"],
            ],
        },
    ),
    Program(
        "gearmand",
        "broker",
        "servers",
        "gearman-job-server",
        as_user("gearman", "gearmand --listen 0.0.0.0 --port 4730 -l stderr"),
        4730,
        {"talk": "gearman"},
    ),
    Program(
        "gunicorn",
        "Python with workers",
        "servers",
        "gunicorn",
        COUNTED
        + "exec gunicorn --chdir /srv/app --bind 0.0.0.0:8000 --workers 4 --threads 2 --keep-alive 75 app",
        8000,
        {"talk": "web", "path": "/turn/{n}", "expected": "^(?P<count>[0-9]+) /turn/{n}$"},
    ),
    Program(
        "uwsgi",
        "Python with workers",
        "servers",
        "uwsgi",
        f"{COUNTED}exec uwsgi --plugin python3 --master --processes 4 --http11-socket 0.0.0.0:8000 "
        "--chdir /srv/app --wsgi-file app.py",
        8000,
        {"talk": "web", "path": "/turn/{n}", "expected": "^(?P<count>[0-9]+) /turn/{n}$"},
    ),
)
