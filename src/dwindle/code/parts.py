"""What the bytes of a block are."""

from __future__ import annotations

from typing import NamedTuple


class Part(NamedTuple):
    """A named run of bytes: `indices`, `gaps`, `pointers`, `places`, `counts`, `exponents`, `mantissas`, ...

    Attributes:
        kind: what the bytes stand for.
        size: how many there are.
    """

    kind: str
    size: int
