"""Digits as network inputs."""

from __future__ import annotations

import torch
from torch import Tensor


def pixels(images: Tensor) -> Tensor:
    """Grey images as network input: uint8 (N, H, W) to float32 (N, 1, H, W) within 0 to 1.

    Background stays exactly 0, so weights on pixels that are always background get no gradient, decay, and
    are the first that pruning removes.
    """
    return images.unsqueeze(1).to(torch.float32).div_(255)
