"""Sealift's flows: they read as the protocol, top to bottom."""
