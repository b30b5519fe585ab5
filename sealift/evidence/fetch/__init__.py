"""Certificates and CRLs from AMD's key server (KDS) and from the cache of its answers: the only network I/O here."""
