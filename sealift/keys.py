"""Key pairs that an owner makes, for a launch secret or a lab: SSH (Ed25519) and WireGuard (X25519)."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat


@dataclass(frozen=True)
class SshKey:
    """An SSH key pair: `private` in OpenSSH's own format, `public` as one line of `authorized_keys`."""

    private: str = field(repr=False)
    public: str


@dataclass(frozen=True)
class WireGuardKey:
    """A WireGuard key pair, each 32 bytes in base64, as `wg genkey` and `wg pubkey` print them."""

    private: str = field(repr=False)
    public: str


def make_ssh_key() -> SshKey:
    """A fresh Ed25519 key pair."""
    key = Ed25519PrivateKey.generate()
    return SshKey(
        key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode(),
        key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
    )


def make_wireguard_key() -> WireGuardKey:
    """A fresh X25519 key pair."""
    key = X25519PrivateKey.generate()
    return WireGuardKey(
        base64.b64encode(key.private_bytes_raw()).decode(),
        base64.b64encode(key.public_key().public_bytes_raw()).decode(),
    )
