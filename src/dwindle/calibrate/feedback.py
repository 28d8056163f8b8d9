"""Rounding with error feedback: what rounding one weight breaks, the next ones of its row make good."""

from __future__ import annotations

import torch
from torch import Tensor

from dwindle.share.trellis import column_to_path

BLOCK = 64
"""Columns after which the rest of a row is brought up to date in one product."""


def factor(moments: Tensor, damping: float) -> Tensor:
    """The upper Cholesky factor U of the inverse of damped input moments, H^-1 = U^T U.

    Args:
        moments: H, mean of x x^T, double, shape (G, J, J).
        damping: what is added to the diagonal, as a share of its mean: how little a few inputs are believed.

    Returns:
        Shape (G, J, J). 1 / U_jj^2 is what a square error in weight j costs once the weights after it have
        made up for it as well as they can.
    """
    diagonal = torch.diagonal(moments, dim1=-2, dim2=-1).mean(-1)
    scale = torch.where(diagonal > 0, diagonal, 1.0)
    damped = moments + torch.diag_embed((damping * scale)[:, None].expand(moments.shape[:2]))
    upper: Tensor = torch.linalg.cholesky(torch.linalg.inv(damped), upper=True)
    return upper


def round_with_feedback(weights: Tensor, upper: Tensor, step: float, *, trellis: bool = False) -> Tensor:
    """Levels for each weight, chosen column by column.

    Weights that are zero stay zero, and are made up for.

    Args:
        weights: double, shape (G, R, J).
        upper: `factor` of the moments of their inputs, shape (G, J, J).
        step: between levels, positive.
        trellis: let levels follow a trellis down each column (`share.trellis`).

    Returns:
        Levels, int32, shape (G, R, J).

    Frantar, Ashkboos, Hoefler, Alistarh 2023, "GPTQ", section 3; Hassibi, Stork 1993, "Optimal brain
    surgeon".
    """
    left, kept = weights.clone(), weights != 0
    levels = torch.zeros(weights.shape, dtype=torch.int32, device=weights.device)
    for start in range(0, weights.shape[2], BLOCK):
        end = min(start + BLOCK, weights.shape[2])
        errors = torch.zeros_like(left[:, :, start:end])
        for j in range(start, end):
            column = left[:, :, j] / step * kept[:, :, j]
            level = _down_column(column, j, weights.shape[2]) if trellis else torch.round(column)
            levels[:, :, j] = level.int()
            error = (left[:, :, j] - level * step) / upper[:, None, j, j]
            errors[:, :, j - start] = error
            left[:, :, j + 1 : end] -= error[:, :, None] * upper[:, None, j, j + 1 : end]
        left[:, :, end:] -= errors @ upper[:, start:end, end:]
    return levels


def _down_column(weights: Tensor, column: int, columns: int) -> Tensor:
    """Levels along a trellis for one column, in steps, shape (G, R)."""
    path = column_to_path(weights.reshape(-1).cpu().numpy(), column, columns)
    return torch.from_numpy(path).to(weights).view(weights.shape)
