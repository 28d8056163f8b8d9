"""What sharing alone saves."""

from __future__ import annotations

import math


def rate(weights: int, bits: int, clusters: int) -> float:
    """Bits of a tensor over the bits of its indices and codebook: r = n b / (n log2 k + k b).

    Args:
        weights: how many weights there are, n.
        bits: of one weight, b.
        clusters: entries of the codebook, k.

    Raises:
        ValueError: if one of them is under 1.

    The paper's example, 4 x 4 weights of 32 bits and 4 clusters:

    >>> rate(16, 32, 4)
    3.2

    Han et al. 2016, section 3, equation 1.
    """
    if min(weights, bits, clusters) < 1:
        raise ValueError(f"expected 1 or more weights, bits and clusters, got {weights}, {bits}, {clusters}")
    return weights * bits / (weights * math.log2(clusters) + clusters * bits)
