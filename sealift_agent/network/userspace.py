"""wireguard-go, where the kernel has no WireGuard, spoken to directly: no program is started while a client waits.

The socket and the words are those of WireGuard's cross-platform interface (wireguard.com/xplatform).
"""

from __future__ import annotations

import base64
import socket
from pathlib import Path

SOCKETS = Path("/var/run/wireguard")
ANSWER_TIMEOUT_S = 5


def move(interface: str, address: str, peer: str) -> bool:
    """Add an address to a peer's allowed IPs; whoever had it loses it, in the same operation.

    False where this interface is not wireguard-go's, or does not answer: then it may or may not have happened.
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
