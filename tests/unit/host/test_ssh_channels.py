"""The end of a command's input and the end of the command cross: the connection must outlive it."""

from __future__ import annotations

import threading
from typing import Any

import paramiko
from paramiko.common import cMSG_CHANNEL_CLOSE, cMSG_CHANNEL_EOF

from sealift.host.ssh import end_input

CROSSING_S = 0.3


class Wire:
    """A transport that writes down what is sent. While it sends the end of the input, the command ends."""

    def __init__(self) -> None:
        self.sent: list[int] = []
        self.channel: Any = None
        self.ending: threading.Thread | None = None

    def _send_user_message(self, message: paramiko.Message) -> None:
        kind = message.asbytes()[0]
        if kind == cMSG_CHANNEL_EOF[0] and self.ending is None:
            self.ending = threading.Thread(target=self.channel._handle_close, args=(None,))
            self.ending.start()
            self.ending.join(CROSSING_S)
        self.sent.append(kind)

    def _sanitize_packet_size(self, size: int) -> int:
        return size

    _sanitize_window_size = _sanitize_packet_size

    def _unlink_channel(self, number: int) -> None:
        """The connection forgets the channel."""

    def get_log_channel(self) -> str:
        return "test"


def test_no_end_of_input_is_sent_after_the_close() -> None:
    wire = Wire()
    channel = wire.channel = paramiko.Channel(1)
    channel._set_transport(wire)  # type: ignore[attr-defined]
    channel._set_window(1 << 20, 1 << 15)  # type: ignore[attr-defined]
    channel._set_remote_channel(7, 1 << 20, 1 << 15)  # type: ignore[attr-defined]
    end_input(channel)
    assert wire.ending is not None
    wire.ending.join()
    assert wire.sent == [cMSG_CHANNEL_EOF[0], cMSG_CHANNEL_CLOSE[0]]
