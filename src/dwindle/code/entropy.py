"""How often each symbol occurs, and the fewest bytes any zero-order code can take for that."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dwindle.kernels import count as kernels


def counts(symbols: NDArray[np.unsignedinteger[Any]], alphabet: int) -> NDArray[np.int64]:
    """Occurrences of each symbol.

    Args:
        symbols: uint8 or uint16, shape (n,), all under `alphabet`.
        alphabet: number of symbols, 0 to 65,536.

    Returns:
        Counts, int64, shape (alphabet,).

    Raises:
        ValueError: if a symbol is outside the alphabet or the dtype is another.
    """
    if symbols.ndim != 1 or symbols.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"expected 1-D uint8 or uint16 symbols, got {symbols.ndim}-D {symbols.dtype}")
    if len(symbols) and (highest := int(symbols.max())) >= alphabet:
        raise ValueError(f"expected symbols under {alphabet}, got {highest}")
    lanes = np.zeros((kernels.LANES, alphabet), np.int64)
    kernels.count(np.ascontiguousarray(symbols), lanes)
    total: NDArray[np.int64] = lanes.sum(axis=0)
    return total


def entropy_bytes(counts: NDArray[np.int64]) -> float:
    """Zero-order entropy of a sequence with these symbol counts, in bytes (Shannon 1948, theorem 4)."""
    present = counts[counts > 0].astype(np.float64)
    total = present.sum()
    return float((present * np.log2(total / present)).sum() / 8) if len(present) else 0.0
