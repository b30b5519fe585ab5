"""What hosts and the controller both count on, and no message says."""

from __future__ import annotations

INTERFACE = "sealift-wg"
"""The tunnel's, on every host and on the gateway. `/usr/libexec/sealift/network` makes it."""

BRIDGE = "sealift-wl"
"""The Docker bridge of the workloads; a name of our own, so that rules can name it before it exists."""

RESERVED, SHARED_CODE, DROPPABLE = "reserved", "shared code", "droppable"
"""Kinds of mappings that a CRIU without our library (`interposed`) does not restore, or does not dump: one that is
larger than the host's memory and can't be written, and a first executable one that is shared. The third is memory that
the kernel may drop (MAP_DROPPABLE), which no kernel before 6.11 has."""

SINGLE = "file-"
"""How the name of a tree begins that is a single file (bind-mounted), and no directory."""

PAGE_BYTES = 4096
"""Of memory, as CRIU's images count it."""

BLOB_STORE = ["driver-type", "io.containerd.snapshotter.v1"]
"""How Docker says that containerd keeps its images (`docker info`, DriverStatus)."""
