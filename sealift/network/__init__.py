"""Whose packets carry a workload's address: WireGuard peers and the gateway's routes."""
