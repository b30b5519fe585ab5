"""Direct control of wireguard-go, for kernels without WireGuard: no program is started while a client waits.

Socket and words are those of WireGuard's cross-platform interface (wireguard.com/xplatform).
"""

from __future__ import annotations

import base64
import socket
from pathlib import Path

SOCKETS = Path("/var/run/wireguard")
ANSWER_TIMEOUT_S = 5


def move(interface: str, address: str, peer: str) -> bool:
    """Add an address to a peer's allowed IPs. Another peer that had it loses it in the same operation.

    Returns False if this interface is not wireguard-go's or does not answer. Then it may or may not have been done.
    """
    path = SOCKETS / f"{interface}.sock"
    if not path.is_socket():
        return False
    words = ["set=1", f"public_key={base64.b64decode(peer).hex()}", f"allowed_ip={address}/32"]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as device:
            device.settimeout(ANSWER_TIMEOUT_S)
            device.connect(str(path))
            device.sendall("\n".join([*words, "", ""]).encode())
            answer = device.recv(1024)
    except OSError:
        return False
    return answer.startswith(b"errno=0\n")
