"""Proof before trust: a host's evidence fetched and verified, its keys pinned, and only then secrets released to it."""
