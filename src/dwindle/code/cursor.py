"""Reading and writing the small numbers of the format: unsigned LEB128 varints and length-prefixed bytes."""

from __future__ import annotations

from dataclasses import dataclass

from dwindle.errors import CorruptError

MAX_VARINT = (1 << 63) - 1


def varint(value: int) -> bytes:
    """`value` in base 128, low digits first, the top bit of a byte saying that more follow.

    Raises:
        ValueError: if `value` is negative or needs more than 63 bits.
    """
    if not 0 <= value <= MAX_VARINT:
        raise ValueError(f"expected a number of at most 63 bits, got {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def prefixed(data: bytes) -> bytes:
    """`data` after its length."""
    return varint(len(data)) + data


@dataclass
class Cursor:
    """A place in untrusted bytes that never moves past their end.

    Every method raises `CorruptError` where the bytes run out or break a rule.
    """

    data: memoryview
    offset: int = 0

    def take(self, count: int) -> memoryview:
        """The next `count` bytes, not copied."""
        if count > len(self.data) - self.offset:
            raise CorruptError(f"expected {count} more bytes, got {len(self.data) - self.offset}")
        self.offset += count
        return self.data[self.offset - count : self.offset]

    def byte(self) -> int:
        """The next byte."""
        if self.offset >= len(self.data):
            raise CorruptError("expected 1 more bytes, got 0")
        self.offset += 1
        return self.data[self.offset - 1]

    def varint(self, most: int = MAX_VARINT, what: str = "a number") -> int:
        """The next varint; refused if it is over `most` or longer than it needs to be."""
        value = shift = 0
        while True:
            digit = self.byte()
            value |= (digit & 0x7F) << shift
            if digit < 0x80:
                break
            shift += 7
            if shift > 56:
                raise CorruptError(f"expected {what} of at most 63 bits")
        if digit == 0 and shift:
            raise CorruptError(f"expected {what} in its shortest form")
        if value > most:
            raise CorruptError(f"expected {what} of at most {most}, got {value}")
        return value

    def prefixed(self) -> memoryview:
        """The next length-prefixed bytes."""
        return self.take(self.varint(what="a length"))

    def end(self) -> None:
        """Refuse bytes that nothing accounts for."""
        if self.offset != len(self.data):
            raise CorruptError(f"expected no more bytes, got {len(self.data) - self.offset}")
