"""Servers of names and of directories."""

from __future__ import annotations

from benchmarks.compat.program import Program, as_user

ZONE = """
zone() {
    {
        echo '$ORIGIN compat.test.'
        echo '$TTL 60'
        echo '@ SOA ns.compat.test. root.compat.test. 1 60 60 60 60'
        echo '@ NS ns'
        echo 'ns A 127.0.0.1'
        seq 0 999 | sed 's/.*/n& TXT "&"/'
    } >"$1"
}
"""
DNS = {"talk": "dns", "zone": "compat.test", "wrap": 1000}

SLAPD = """
mkdir -p /srv/ldap; cat >/etc/ldap/compat.conf <<'END'
include /etc/ldap/schema/core.schema
pidfile /run/slapd/slapd.pid
modulepath /usr/lib/ldap
moduleload back_mdb
database mdb
suffix "dc=compat"
rootdn "cn=admin,dc=compat"
rootpw compat
directory /srv/ldap
END
slapadd -f /etc/ldap/compat.conf <<'END'
dn: dc=compat
objectClass: dcObject
objectClass: organization
dc: compat
o: compat
END
chown -R openldap: /srv/ldap; mkdir -p /run/slapd; chown openldap: /run/slapd
exec slapd -h ldap://0.0.0.0:389 -g openldap -u openldap -f /etc/ldap/compat.conf -d 0"""

DIRECTORIES = (
    Program(
        "bind9",
        "DNS",
        "names",
        "bind9",
        ZONE + "zone /etc/bind/compat.zone; "
        'echo \'zone "compat.test" { type master; file "/etc/bind/compat.zone"; };\' >>/etc/bind/named.conf.local; '
        "mkdir -p /run/named; chown bind: /run/named; exec named -f -u bind",
        53,
        DNS,
    ),
    Program(
        "unbound",
        "DNS",
        "names",
        "unbound",
        "{ printf 'server:\\n interface: 0.0.0.0\\n access-control: 0.0.0.0/0 allow\\n"
        ' local-zone: "compat.test." static\\n\'; '
        'seq 0 999 | sed "s/.*/ local-data: \'n&.compat.test. TXT \\"&\\"\'/"; } '
        ">/etc/unbound/unbound.conf.d/compat.conf; "
        "/usr/libexec/unbound-helper root_trust_anchor_update; exec unbound -d -p",
        53,
        DNS,
    ),
    Program(
        "dnsmasq",
        "DNS",
        "names",
        "dnsmasq",
        "seq 0 999 | sed 's/.*/txt-record=n&.compat.test,\"&\"/' >/etc/dnsmasq.d/compat.conf; "
        "exec dnsmasq -k --conf-dir=/etc/dnsmasq.d --no-resolv --user=dnsmasq",
        53,
        {**DNS, "talk": "dns by datagrams"},
    ),
    Program(
        "nsd",
        "DNS",
        "names",
        "nsd",
        ZONE + "zone /etc/nsd/compat.zone; mkdir -p /run/nsd; chown nsd: /run/nsd; "
        r"printf 'zone:\n name: compat.test\n zonefile: /etc/nsd/compat.zone\n' >/etc/nsd/nsd.conf.d/compat.conf; "
        "exec nsd -d -P ''",
        53,
        DNS,
    ),
    Program(
        "pdns",
        "DNS",
        "names",
        "pdns-server",
        ZONE + "zone /etc/powerdns/compat.zone; rm -f /etc/powerdns/pdns.d/*; "
        'echo \'zone "compat.test" { type master; file "/etc/powerdns/compat.zone"; };\' >/etc/powerdns/named.conf; '
        r"printf 'launch=bind\nbind-config=/etc/powerdns/named.conf\n' >/etc/powerdns/pdns.d/compat.conf; "
        "mkdir -p /run/pdns; chown pdns: /run/pdns; "
        "exec pdns_server --guardian=no --daemon=no --disable-syslog --log-timestamp=no --write-pid=no",
        53,
        DNS,
    ),
    Program(
        "knot",
        "DNS",
        "names",
        "knot",
        ZONE + "mkdir -p /run/knot /var/lib/knot; zone /var/lib/knot/compat.test.zone; "
        r"printf 'server:\n  rundir: /run/knot\n  user: knot:knot\n  listen: 0.0.0.0@53\n"
        r"database:\n  storage: /var/lib/knot\nzone:\n  - domain: compat.test\n    storage: /var/lib/knot\n' "
        ">/etc/knot/knot.conf; chown -R knot: /run/knot /var/lib/knot; " + as_user("knot", "knotd"),
        53,
        DNS,
    ),
    Program(
        "slapd",
        "directory",
        "names",
        "slapd",
        SLAPD,
        389,
        {
            "talk": "ldap",
            "user": "cn=admin,dc=compat",
            "password": "compat",
            "entry": "dc=compat",
        },
    ),
    Program(
        "coturn",
        "relay",
        "names",
        "coturn",
        as_user("turnserver", "turnserver --no-auth --listening-ip 0.0.0.0 --log-file stdout -n"),
        3478,
        {"talk": "stun"},
    ),
    Program(
        "twisted",
        "Python with events",
        "names",
        "python3-twisted",
        "mkdir -p /srv/web; seq -f %015.0f 0 9999 >/srv/web/numbers; exec twistd3 -n --pidfile= web "
        "--listen=tcp:8080 --path /srv/web",
        8080,
        {"talk": "web", "path": "/numbers", "lines": 10000},
    ),
)
