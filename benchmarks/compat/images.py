"""The images: which packages share one. A host of a lab has one of them at a time, in its memory."""

IMAGES: dict[str, tuple[str, ...]] = {
    "servers": (
        *("apache2", "beanstalkd", "chrony", "collectd-core", "cron", "dictd", "gearman-job-server", "gunicorn"),
        *("haproxy", "icecast2", "inspircd", "lighttpd", "memcached", "monit", "mosquitto", "nginx", "ngircd"),
        *("openssh-client", "openssh-server", "pgbouncer", "privoxy", "redis-server", "rsync", "rsyslog"),
        *("snmp", "snmpd", "squid", "stunnel4", "tinyproxy", "uwsgi", "uwsgi-plugin-python3", "valkey-server"),
        *("varnish", "vsftpd"),
    ),
}
