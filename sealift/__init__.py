"""Sealift: live migration of running Docker containers into attested, encrypted virtual machines."""

__version__ = "0.1.0"
