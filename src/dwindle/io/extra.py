"""The bytes of an extra: what a checkpoint said beside its tensors, coded by the text model of headers.

A varint, the size of the text; then the text as `code.text` codes it.
"""

from __future__ import annotations

from dwindle.code import text
from dwindle.code.cursor import Cursor, varint
from dwindle.errors import CorruptError

LONGEST = 1 << 24
"""Bytes of the longest text that the model codes; a longer one is left to the file's own coders."""

FREE = 1 << 20
EXPANSION = 64
"""A text may have 1 MiB and 64 bytes for each byte it is coded in."""


def pack(data: bytes) -> bytes:
    """Code the text of an extra."""
    coded = text.encode(data) if len(data) <= LONGEST else b""
    if not coded or len(data) > FREE + EXPANSION * len(coded):
        coded = bytes([text.PLAIN]) + data
    return varint(len(data)) + coded


def unpack(data: bytes) -> bytes:
    """Undo `pack`.

    Raises:
        CorruptError: if it made no such bytes.
    """
    cursor = Cursor(memoryview(data))
    size = cursor.varint(what="the size of an extra")
    coded = cursor.take(len(data) - cursor.offset)
    if size > FREE + EXPANSION * len(coded):
        raise CorruptError(f"expected an extra in proportion to {len(coded)} bytes, got one of {size}")
    return text.decode(coded, size)
