"""Small random translations of images, so that a network sees each digit in several places."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def shift(images: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move each image by its own whole number of pixels, down and to the right, filling with 0.

    Args:
        images: shape (N, H, W).
        most: largest move in each direction; moves are uniform over -most to +most.
        generator: a CPU generator; two draws of N integers are taken from it, none if `most` is 0.

    Returns:
        A new tensor of the same shape and dtype (`images` itself if `most` is 0).

    Raises:
        ValueError: if `most` is negative.
    """
    if most < 0:
        raise ValueError(f"expected a move of at least 0 pixels, got {most}")
    if most == 0:
        return images
    n, height, width = images.shape
    down, right = (torch.randint(0, 2 * most + 1, (n, 1, 1), generator=generator) for _ in range(2))
    rows = torch.arange(height)[:, None] + down
    columns = torch.arange(width) + right
    framed = functional.pad(images, (most, most, most, most))
    chosen = (rows * (width + 2 * most) + columns).flatten(1).to(images.device)
    return framed.flatten(1).gather(1, chosen).reshape(images.shape)
