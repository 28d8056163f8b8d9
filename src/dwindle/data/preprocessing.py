"""From a picture to what a network for ImageNet takes: resize, crop, normalize."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its pictures: (x - mean) / std of the centre of the resized picture.

    Attributes:
        mean: by channel, in the order of `channels` and in units of `white`.
        std: likewise.
        white: the value of a full channel before `mean` is taken off: 1, or 255.
        channels: the order of the channels.
        short_side: pixels the shorter side is resized to; nothing is done where it has them.
        crop: pixels of the square cut out of it.
        resample: filter of the resizing, with antialiasing.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    white: Literal[1, 255] = 255
    channels: Literal["RGB", "BGR"] = "RGB"
    short_side: int = 256
    crop: int = 224
    resample: Literal["bilinear", "bicubic"] = "bilinear"

    def __post_init__(self) -> None:
        if not 1 <= self.crop <= self.short_side:
            raise ValueError(f"expected a crop of 1 to {self.short_side} pixels, got {self.crop}")
        if len(self.mean) != 3 or len(self.std) != 3 or not min(self.std) > 0:
            raise ValueError(f"expected 3 means and 3 positive deviations, got {self.mean}, {self.std}")
        for given, known in (
            (self.white, (1, 255)),
            (self.channels, ("RGB", "BGR")),
            (self.resample, FILTERS),
        ):
            if given not in known:
                raise ValueError(f"expected one of {', '.join(map(str, known))}, got {given!r}")

    def resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after resizing; the longer side is rounded down."""
        short = min(width, height)
        return self.short_side * width // short, self.short_side * height // short

    def apply(self, picture: Image.Image, *, right: int = 0, down: int = 0, mirror: bool = False) -> Tensor:
        """Resize, crop and normalize one picture.

        Args:
            picture: RGB, 8 bits.
            right: pixels the crop lies to the right of the centre; it ends at the picture's edge.
            down: likewise, down.
            mirror: swap left and right.

        Returns:
            float32, shape (3, crop, crop).
        """
        size = self.resized(*picture.size)
        if size != picture.size:
            picture = picture.resize(size, FILTERS[self.resample])
        left, top = (
            min(max(round((side - self.crop) / 2) + move, 0), side - self.crop)
            for side, move in zip(size, (right, down), strict=True)
        )
        pixels = np.asarray(picture.crop((left, top, left + self.crop, top + self.crop)), np.float32)
        if mirror:
            pixels = pixels[:, ::-1]
        if self.channels == "BGR":
            pixels = pixels[:, :, ::-1]
        if self.white == 1:
            pixels = pixels / np.float32(255)
        normal = (pixels - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(normal.transpose(2, 0, 1)))


PREPROCESSINGS: Mapping[str, Preprocessing] = {
    "torchvision": Preprocessing(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), white=1),
    "caffe": Preprocessing(mean=(104.0, 117.0, 123.0), channels="BGR"),
    "efficientnet-lite": Preprocessing(
        mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0), resample="bicubic"
    ),
}
"""The preprocessing that known weights were trained with: torchvision's, Caffe's, EfficientNet-Lite's."""
