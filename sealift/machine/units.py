"""What systemd starts in a VM: little, and all of it named here.

Debian's packages enable some seventy units and a dozen generators. Under emulation each costs a tenth of a
second or more, so a VM's root has none of their `wants` links but these, and no generators. The units stay:
whatever asks for one by name gets it. What else they would do at boot, init.sh has done (mounts, modules,
network, kernel variables) or the recipe did (users, linker cache, machine id).
"""

WANTED = (
    "containerd.service",
    "dbus.socket",
    "docker.service",
    "ssh.service",
    "systemd-journald-dev-log.socket",
    "systemd-journald.service",
    "systemd-journald.socket",
)

OWN_UNITS = ("sealift-guest.service", "sealift-network.service")
"""Ours, beside those. The first one is a measured VM's only."""

MASKED = (
    "getty.target",
    # No shell for whoever holds the console, whatever fails.
    *("debug-shell.service", "emergency.service", "rescue.service", "ctrl-alt-del.target"),
    *("console-getty.service", "container-getty@.service", "getty@.service", "serial-getty@.service"),
    "systemd-logind.service",  # each SSH login would start it
    "tmp.mount",  # basic.target asks for it; the whole root is in memory already
    "docker.socket",
)

UNIT_FOLDERS = ("usr/lib/systemd/system", "etc/systemd/system")
GENERATORS = "usr/lib/systemd/system-generators"
