"""Zstandard by the C library that every Debian has (libzstd), since Python's own came only with 3.14."""

from __future__ import annotations

import ctypes
import functools
from typing import Any

from ..wire import AgentError

LIBRARY = "libzstd.so.1"
LEVEL = 1
"""The fastest ordinary level, since the migration waits for the compression."""


@functools.cache
def _library() -> Any:
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as missing:
        raise AgentError(f"{LIBRARY} is not installed, so nothing can be compressed here") from missing
    size = ctypes.c_size_t
    library.ZSTD_compressBound.restype = size
    library.ZSTD_compressBound.argtypes = [size]
    library.ZSTD_compress.restype = size
    library.ZSTD_compress.argtypes = [ctypes.c_void_p, size, ctypes.c_char_p, size, ctypes.c_int]
    library.ZSTD_decompress.restype = size
    library.ZSTD_decompress.argtypes = [ctypes.c_void_p, size, ctypes.c_char_p, size]
    library.ZSTD_isError.argtypes = [size]
    return library


def require() -> None:
    """AgentError if the library is missing."""
    _library()


def compress(data: bytes) -> bytes:
    """One whole frame."""
    library = _library()
    room = library.ZSTD_compressBound(len(data))
    buffer = ctypes.create_string_buffer(room)
    return _taken(library, buffer, library.ZSTD_compress(buffer, room, data, len(data), LEVEL))


def expand(frame: bytes, most: int) -> bytes:
    """The content of a frame, at most `most` bytes. AgentError for an invalid frame, or one with more."""
    library = _library()
    buffer = ctypes.create_string_buffer(most)
    return _taken(library, buffer, library.ZSTD_decompress(buffer, most, frame, len(frame)))


def _taken(library: Any, buffer: ctypes.Array[ctypes.c_char], size: int) -> bytes:
    if library.ZSTD_isError(size):
        raise AgentError("compressed data that was received can't be expanded")
    return ctypes.string_at(buffer, size)
