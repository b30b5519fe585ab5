"""Prefect's server for the length of one process: without a configured API one is started on the loopback interface."""

from __future__ import annotations

import os
import secrets

from prefect.context import refresh_global_settings_context
from prefect.settings import PREFECT_API_URL, PREFECT_SERVER_API_AUTH_STRING

PASSWORDS = ("PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING")
"""The server's and the client's, by the names that both read in the environment."""


def demand_password() -> None:
    """Let that server ask for a password that only it and this process know: any local user can reach it.

    To be called before the first flow. An API that is configured has its own.
    """
    if PREFECT_API_URL.value() or PREFECT_SERVER_API_AUTH_STRING.value():
        return
    password = f"sealift:{secrets.token_hex(32)}"
    os.environ.update(dict.fromkeys(PASSWORDS, password))
    refresh_global_settings_context()
