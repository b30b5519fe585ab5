"""The images: which packages share one. A host of a lab has one of them at a time, in its memory."""

IMAGES: dict[str, tuple[str, ...]] = {
    "small": ("beanstalkd",),
    "servers": (
        *(
            "apache2",
            "beanstalkd",
            "chrony",
            "collectd-core",
            "cron",
            "dictd",
            "gearman-job-server",
            "gunicorn",
        ),
        *(
            "haproxy",
            "icecast2",
            "inspircd",
            "lighttpd",
            "memcached",
            "monit",
            "mosquitto",
            "nginx",
            "ngircd",
        ),
        *("openssh-client", "openssh-server", "pgbouncer", "privoxy", "redis-server", "rsync", "rsyslog"),
        *(
            "snmp",
            "snmpd",
            "squid",
            "stunnel4",
            "tinyproxy",
            "uwsgi",
            "uwsgi-plugin-python3",
            "valkey-server",
        ),
        *("varnish", "vsftpd"),
    ),
    "names": (
        *("bind9", "coturn", "dnsmasq", "dovecot-imapd", "freeradius", "knot", "ldap-utils", "nsd"),
        *("pdns-backend-bind", "pdns-server", "postfix", "prosody", "python3-twisted", "slapd", "unbound"),
    ),
    "mail": ("exim4-daemon-light", "hitch", "proftpd-core", "syslog-ng-core", "znc"),
    "sql": ("mariadb-client", "mariadb-server", "pgbouncer", "postgresql", "postgresql-client"),
    "go": (
        *("caddy", "etcd-client", "etcd-server", "nats-server", "prometheus", "prometheus-alertmanager"),
        "prometheus-node-exporter",
    ),
    "jvm": ("activemq", "tomcat10", "zookeeper"),
    "beam": ("ejabberd", "rabbitmq-server", "yaws"),
    "script": ("gunicorn", "nginx", "nodejs", "php-cli", "php-fpm", "puma"),
}
