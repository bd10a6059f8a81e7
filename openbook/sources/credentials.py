"""Passwords of sources: from the environment, or from the system's keyring if the package `keyring` is installed."""

from __future__ import annotations

import os


def password(variable: str, host: str, user: str) -> str:
    """The environment's `variable`, else the keyring's entry of the service `host`; empty if neither is there."""
    found = os.environ.get(variable, "")
    if found or not user:
        return found
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError:
        return ""
    try:
        return keyring.get_password(host, user) or ""
    except KeyringError:  # a server without a keyring, or one that is locked
        return ""
