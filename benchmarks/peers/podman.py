"""Podman. Placeholder."""
from __future__ import annotations
from benchmarks.peers.system import Absent
class Podman:
    def prepare(self, testbed, workload):
        raise Absent("no podman")
    def clean(self, testbed, name):
        pass
