"""Programs in virtual machines and interpreters: Java, Erlang, Node, PHP, Ruby."""

from __future__ import annotations

from benchmarks.compat.program import Program, as_user

COUNT = "^(?P<count>[0-9]+) {n}$"

TOMCAT = """
cat >/var/lib/tomcat10/webapps/ROOT/turn.jsp <<'END'
<%@ page contentType="text/plain" trimDirectiveWhitespaces="true" %>
<%! static int count; %>
<% out.print(++count + " " + request.getParameter("n")); %>
END
sed -i 's/<Connector port="8080"/& maxKeepAliveRequests="-1"/' /etc/tomcat10/server.xml
export CATALINA_HOME=/usr/share/tomcat10 CATALINA_BASE=/var/lib/tomcat10 CATALINA_TMPDIR=/tmp
export JAVA_OPTS=-Djava.awt.headless=true
"""
ZOOKEEPER = """
mkdir -p /var/lib/zookeeper; chown zookeeper: /var/lib/zookeeper
export ZOOCFGDIR=/etc/zookeeper/conf ZOO_LOG4J_PROP=INFO,CONSOLE
"""
NODE = """
cat >/srv/app.js <<'END'
const http = require('http');
let count = 0;
const server = http.createServer((request, response) => {
  const n = new URL(request.url, 'http://compat').searchParams.get('n');
  setTimeout(() => { response.setHeader('Content-Type', 'text/plain'); response.end(`${++count} ${n}`); }, 1);
});
server.keepAliveTimeout = 600000;
server.listen(8000, '0.0.0.0');
END
"""
PHP = """
mkdir -p /srv/php; cat >/srv/php/turn.php <<'END'
<?php
header('Content-Type: text/plain');
$file = fopen('/srv/php/count', 'c+');
flock($file, LOCK_EX);
$count = (int) stream_get_contents($file) + 1;
rewind($file);
fwrite($file, (string) $count);
flock($file, LOCK_UN);
echo "$count {$_GET['n']}";
END
touch /srv/php/count; chown -R www-data: /srv/php
"""
PHP_FPM = """
cat >/etc/nginx/conf.d/compat.conf <<'END'
keepalive_requests 1000000;
server {
    listen 8000;
    root /srv/php;
    location ~ \\.php$ { include snippets/fastcgi-php.conf; fastcgi_pass unix:/run/php/php-fpm.sock; }
}
END
mkdir -p /run/php; sed -i 's,^listen = .*,listen = /run/php/php-fpm.sock,' /etc/php/8.4/fpm/pool.d/www.conf
nginx
"""
PUMA = """
mkdir -p /srv/ruby; cat >/srv/ruby/config.ru <<'END'
count = 0
lock = Mutex.new
run lambda { |env|
  n = env['QUERY_STRING'].delete_prefix('n=')
  now = lock.synchronize { count += 1 }
  [200, { 'content-type' => 'text/plain' }, ["#{now} #{n}"]]
}
END
cd /srv/ruby
"""
RABBITMQ = """
echo '[rabbitmq_stomp].' >/etc/rabbitmq/enabled_plugins
printf 'loopback_users.guest = false\\n' >/etc/rabbitmq/rabbitmq.conf
mkdir -p /run/rabbitmq; chown rabbitmq: /run/rabbitmq /etc/rabbitmq/*
export RABBITMQ_NODENAME=rabbit@localhost HOME=/var/lib/rabbitmq
"""
LANGUAGES = (
    Program(
        "tomcat",
        "Java",
        "jvm",
        "tomcat10",
        TOMCAT + as_user("tomcat", "/bin/sh /usr/libexec/tomcat10/tomcat-start.sh"),
        8080,
        {"talk": "web", "path": "/turn.jsp?n={n}", "expected": COUNT},
    ),
    Program(
        "zookeeper",
        "Java",
        "jvm",
        "zookeeper",
        ZOOKEEPER + as_user("zookeeper", "/usr/share/zookeeper/bin/zkServer.sh start-foreground"),
        2181,
        {"talk": "zookeeper"},
    ),
    Program(
        "rabbitmq",
        "Erlang",
        "beam",
        "rabbitmq-server",
        RABBITMQ + as_user("rabbitmq", "/usr/sbin/rabbitmq-server"),
        61613,
        {"talk": "stomp", "user": "guest", "password": "guest"},
    ),
    Program(
        "node",
        "Node",
        "script",
        "nodejs",
        NODE + as_user("www-data", "node /srv/app.js"),
        8000,
        {"talk": "web", "path": "/turn?n={n}", "expected": COUNT},
    ),
    Program(
        "php-fpm",
        "PHP",
        "script",
        "php8.4-fpm",
        PHP + PHP_FPM + "exec php-fpm8.4 --nodaemonize --fpm-config /etc/php/8.4/fpm/php-fpm.conf",
        8000,
        {"talk": "web", "path": "/turn.php?n={n}", "expected": COUNT},
    ),
    Program(
        "puma",
        "Ruby",
        "script",
        "puma",
        PUMA
        + as_user("www-data", "puma --bind tcp://0.0.0.0:8000 --threads 2:4 --workers 2 --preload config.ru"),
        8000,
        {"talk": "web", "path": "/turn?n={n}", "expected": "^[0-9]+ {n}$"},
    ),
)
