"""The emulated firmware behind two unix sockets: one for the host, one for the guest.

Both use one JSON object a line, with the kernel's and the firmware's payloads in base64. A reader can find the start of
the next line even if the guest's program died in the middle of a request; a virtio-serial port does not report that.
`id` is returned, so that the guest can tell its own answer from an answer to a program that has died.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from sealift.errors import SealiftError, UnusableInput
from sealift.processor.emulated.refusal import FirmwareRefused
from sealift.processor.wire import LINE_LIMIT, from_line, to_line

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from sealift.processor.emulated.firmware import Firmware

_LOG = logging.getLogger("sealift.emulated")


async def serve(firmware: Firmware, host: socket.socket, guest: socket.socket, *, terminate: bool) -> None:
    """Answer until cancelled. With `terminate`, answer until the guest's side closes, as it does when QEMU ends."""
    over = asyncio.Event()

    async def at_host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, lambda call, said: {"result": firmware.host_call(call, said)})

    async def at_guest(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await _converse(reader, writer, firmware.guest_call)
        if terminate:
            over.set()

    for_host = await asyncio.start_unix_server(at_host, sock=host, limit=LINE_LIMIT)
    for_guest = await asyncio.start_unix_server(at_guest, sock=guest, limit=LINE_LIMIT)
    async with for_host, for_guest:
        await over.wait()


async def _converse(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    answer: Callable[[str, dict[str, Any]], dict[str, Any]],
) -> None:
    with suppress(OSError, ValueError):  # ValueError: a line beyond the limit ends the conversation
        while line := await reader.readline():
            if line.strip():
                writer.write(to_line(_answer(line, answer)))
                await writer.drain()
    writer.close()


def _answer(line: bytes, answer: Callable[[str, dict[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    number: Any = None
    try:
        message = from_line(line)
        number = message.pop("id", None)
        call = message.pop("call", None)
        if not isinstance(call, str):
            raise UnusableInput("a message without a call", remedy='Name it in "call"')
        return {"id": number, **answer(call, message)}
    except FirmwareRefused as error:
        return {"id": number, "error": str(error), "status": int(error.status)}
    except SealiftError as error:
        return {"id": number, "error": str(error)}
    except Exception:  # noqa: BLE001 - logged with its trace
        # An invalid message must not end the machine's processor.
        _LOG.exception("a request failed")
        return {"id": number, "error": "the emulated processor failed; its log says how"}
