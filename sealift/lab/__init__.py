"""Hosts on one machine: source, destination, provider, gateway and client, reached over SSH like real ones."""
