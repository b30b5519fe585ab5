"""What else a machine serves: logins, files, jobs, logs, chats, figures, time, mail."""

from __future__ import annotations

from benchmarks.compat.program import Program, as_user

USER = "useradd --create-home --shell /bin/sh compat; echo compat:compat | chpasswd; "
WEB = "mkdir -p /srv/web; python3 -m http.server 8000 --directory /srv/web >/dev/null 2>&1 & "
"""What a program writes is seen there."""

FTP = {
    "talk": "dialogue",
    "greeting": "^220",
    "first": [["USER compat", "^331"], ["PASS compat", "^230"]],
    "each": [["MKD d{n}", '^257 .*d{n}"'], ["RMD d{n}", "^250"]],
}
SMTP = {
    "talk": "dialogue",
    "greeting": "^220 ",
    "first": [["EHLO client", "^250 "]],
    "each": [
        ["MAIL FROM:<compat@localhost>", "^250"],
        ["RCPT TO:<compat@localhost>", "^250"],
        ["DATA", "^354"],
        ["Subject: compat\r\n\r\nturn {n} of mail\r\n.", "^250"],
    ],
    "pause_s": 0.3,
    "kept": ["8000", "/compat", r"turn (\d+) of mail"],
}
MAILBOX = USER + "python3 -m http.server 8000 --directory /var/mail >/dev/null 2>&1 & "

SSHD = USER + "passwd -d compat; mkdir -p /run/sshd; exec /usr/sbin/sshd -D -e -o PermitEmptyPasswords=yes"

SERVICES = (
    Program(
        "sshd",
        "sessions",
        "servers",
        "openssh-server",
        SSHD,
        22,
        {"talk": "ssh", "user": "compat", "terminal": False},
    ),
    Program(
        "sshd-terminal",
        "sessions",
        "servers",
        "openssh-server",
        SSHD,
        22,
        {"talk": "ssh", "user": "compat", "terminal": True},
        limit="A shell at a terminal has /dev/tty open, and `check` does not know whose terminal that is. Log in "
        "without a terminal (`ssh -T`), or end the session before the migration.",
    ),
    Program(
        "cron",
        "jobs",
        "servers",
        "cron",
        WEB + r"echo '* * * * * root echo $(($(date +\%s) / 60)) >>/srv/web/minutes' >/etc/cron.d/compat; "
        "touch /srv/web/minutes; exec cron -f",
        8000,
        {"talk": "cron", "path": "/minutes"},
    ),
    Program(
        "rsyslog",
        "logs",
        "servers",
        "rsyslog",
        WEB + "cat >/etc/rsyslog.d/compat.conf <<'END'\n"
        'module(load="imtcp")\ninput(type="imtcp" port="514")\n*.* /srv/web/log\n'
        "END\nsed -i '/imklog/d' /etc/rsyslog.conf; exec rsyslogd -n -iNONE",
        514,
        {"talk": "journal", "web": 8000, "path": "/log"},
    ),
    Program(
        "syslog-ng",
        "logs",
        "mail",
        "syslog-ng-core",
        WEB + "cat >/etc/syslog-ng/conf.d/compat.conf <<'END'\n"
        "source s_compat { network(transport(tcp) port(514)); };\n"
        'destination d_compat { file("/srv/web/log" perm(0644)); };\n'
        "log { source(s_compat); destination(d_compat); };\n"
        "END\nexec syslog-ng -F --no-caps",
        514,
        {"talk": "journal", "web": 8000, "path": "/log"},
    ),
    Program(
        "vsftpd",
        "files",
        "servers",
        "vsftpd",
        USER + "mkdir -p /run/vsftpd/empty; "
        r"printf 'listen=YES\nlisten_ipv6=NO\nwrite_enable=YES\nbackground=NO\n' >>/etc/vsftpd.conf; "
        "exec vsftpd /etc/vsftpd.conf",
        21,
        FTP,
    ),
    Program(
        "proftpd",
        "files",
        "mail",
        "proftpd-core",
        USER + "mkdir -p /run/proftpd; echo 'UseReverseDNS off' >/etc/proftpd/conf.d/compat.conf; "
        "exec proftpd --nodaemon -c /etc/proftpd/proftpd.conf",
        21,
        FTP,
    ),
    Program(
        "snmpd",
        "monitoring",
        "servers",
        "snmpd",
        r"printf 'agentaddress udp:161\nrocommunity public\n' >/etc/snmp/snmpd.conf; "
        "mkdir -p /run/agentx; exec snmpd -Lo -u Debian-snmp -g Debian-snmp -I -smux,mteTrigger,mteTriggerConf -f",
        161,
        {"talk": "snmp", "community": "public"},
    ),
    Program(
        "chrony",
        "time",
        "servers",
        "chrony",
        r"printf 'local stratum 10\nallow all\n' >/etc/chrony/conf.d/compat.conf; "
        "mkdir -p /run/chrony; chown _chrony: /run/chrony; exec chronyd -x -d",
        123,
        {"talk": "ntp"},
    ),
    Program(
        "ngircd",
        "chat",
        "servers",
        "ngircd",
        r"printf '[Limits]\nMaxPenaltyTime = 0\n[Options]\nIdent = no\nDNS = no\n' >/etc/ngircd/ngircd.conf.d/z.conf; "
        "mkdir -p /run/ircd /run/ngircd; chown irc: /run/ircd /run/ngircd; exec ngircd -n",
        6667,
        {
            "talk": "dialogue",
            "first": [["NICK compat\r\nUSER compat 0 * :compat", " (376|422) "]],
            "each": [["PRIVMSG compat :turn {n}", "PRIVMSG compat :turn {n}$"]],
            "pause_s": 0.2,
        },
    ),
    Program(
        "inspircd",
        "chat",
        "servers",
        "inspircd",
        "sed -i 's/127.0.0.1/*/; s/commandrate=\"[0-9]*\"//' /etc/inspircd/inspircd.conf; mkdir -p /run/inspircd; "
        "chown irc: /run/inspircd; "
        + as_user("irc", "inspircd --nofork --config=/etc/inspircd/inspircd.conf"),
        6667,
        {
            "talk": "dialogue",
            "first": [["NICK compat\r\nUSER compat 0 * :compat", " (376|422) "]],
            "each": [["PRIVMSG compat :turn {n}", "PRIVMSG compat :turn {n}$"]],
            "pause_s": 1.1,
        },
    ),
    Program(
        "postfix",
        "mail",
        "names",
        "postfix",
        MAILBOX + "cp /usr/share/postfix/main.cf.debian /etc/postfix/main.cf; "
        "postconf -e inet_interfaces=all mynetworks=0.0.0.0/0 maillog_file=/dev/stdout mydestination=localhost "
        "alias_maps= compatibility_level=3.6; touch /var/mail/compat; chown compat:mail /var/mail/compat; "
        "exec postfix start-fg",
        25,
        SMTP,
    ),
    Program(
        "exim4",
        "mail",
        "mail",
        "exim4-daemon-light",
        MAILBOX + "sed -i \"s/^dc_local_interfaces=.*/dc_local_interfaces='0.0.0.0'/; "
        "s/^dc_other_hostnames=.*/dc_other_hostnames='localhost'/\" /etc/exim4/update-exim4.conf.conf; "
        "sed -i '1i smtp_accept_queue_per_connection = 0' /etc/exim4/exim4.conf.template; "
        "update-exim4.conf; mkdir -p /run/exim4; chown Debian-exim: /run/exim4; exec exim4 -bdf -q30m",
        25,
        SMTP,
    ),
    Program(
        "dovecot",
        "mail",
        "names",
        "dovecot-imapd",
        USER + r"printf 'auth_allow_cleartext = yes\nssl = no\n' >/etc/dovecot/conf.d/99-compat.conf; "
        "exec dovecot -F",
        143,
        {
            "talk": "dialogue",
            "greeting": r"^\* OK",
            "first": [["a LOGIN compat compat", "^a OK"]],
            "each": [
                ["a{n} CREATE m{n}", "^a{n} OK"],
                ['b{n} LIST "" m{n}', r'^\* LIST .* "?m{n}"?$'],
                ["c{n} DELETE m{n}", "^c{n} OK"],
            ],
        },
    ),
)
