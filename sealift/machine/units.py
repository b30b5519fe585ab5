"""The units that systemd starts in a VM. All of them are named here.

Debian's packages enable some seventy units and a dozen generators. Under emulation each takes a tenth of a second or
more. So a VM's root has only these `wants` links, and no generators. The units themselves stay, and can be started by
name. Their other work at boot is done by init.sh (mounts, modules, network, kernel variables) or by the recipe (users,
linker cache, machine id).
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
"""Our own units. Only a measured VM has the first one."""

MASKED = (
    "getty.target",
    # No shell on the console, whatever fails.
    *("debug-shell.service", "emergency.service", "rescue.service", "ctrl-alt-del.target"),
    *("console-getty.service", "container-getty@.service", "getty@.service", "serial-getty@.service"),
    "systemd-logind.service",  # each SSH login would start it
    "tmp.mount",  # basic.target requires it; the whole root is in memory already
    "docker.socket",
)

UNIT_FOLDERS = ("usr/lib/systemd/system", "etc/systemd/system")
GENERATORS = "usr/lib/systemd/system-generators"
