"""How far the answers of a compressed network are from those of the network it was made from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dwindle.errors import TensorError
from dwindle.train.fit import Prepare

TOP = 5
Z = 1.959963984540054
"""Of the normal distribution, 95 % lie within so many standard deviations."""


@dataclass(frozen=True)
class Accuracy:
    """How often two networks are right about the same examples, in percent.

    Attributes:
        before: of the first network.
        after: of the second.
        interval: 95 % interval of `after` less `before` (`paired_interval`).
    """

    before: float
    after: float
    interval: tuple[float, float]


@dataclass(frozen=True, eq=False)
class Agreement:
    """Two networks' outputs on the same examples.

    Attributes:
        before: int64, shape (N,), on the CPU: what the first network answers, as `predict` says it.
        after: likewise the second.
        same: percent of them that both networks answer with the same class.
        divergence: mean Kullback-Leibler divergence of the second network's distribution from the first's,
            sum p log(p / q) with p the first's, in nats.
        top1: the label is the answer; None without labels.
        top5: the label is among the five answers that are most likely; None without labels.
    """

    before: Tensor
    after: Tensor
    same: float
    divergence: float
    top1: Accuracy | None
    top5: Accuracy | None

    @property
    def examples(self) -> int:
        """How many examples there are."""
        return len(self.before)

    def to_json(self) -> dict[str, Any]:
        """The figures, without the single answers, as JSON types."""
        top = {"top1": self.top1, "top5": self.top5}
        return {"examples": self.examples, "same": self.same, "divergence": self.divergence} | {
            name: None if accuracy is None else asdict(accuracy) for name, accuracy in top.items()
        }


def agreement(before: Tensor, after: Tensor, labels: Tensor | None) -> Agreement:
    """Compare two networks by their logits.

    Args:
        before: logits of the first network, shape (N, classes).
        after: likewise of the second.
        labels: int64, shape (N,), within the classes; None where they are not known.

    Raises:
        ValueError: if the shapes do not fit or there is no example.
        TensorError: if a logit is NaN or infinite.
    """
    return _summary([_measured(before, after, labels)])


@torch.no_grad()
def compare(
    before: nn.Module,
    after: nn.Module,
    inputs: Tensor,
    labels: Tensor | None,
    *,
    batch: int = 1000,
    prepare: Prepare | None = None,
) -> Agreement:
    """Run two networks over the same examples and compare them, keeping one batch of logits at a time.

    Args:
        before: the first network; like the second evaluated in evaluation mode, its mode put back afterwards.
        after: the second.
        inputs: shape (N, ...), on the networks' device.
        labels: int64, shape (N,), on the same device; None where they are not known.
        batch: examples at a time.
        prepare: applied to each batch, once for both networks.

    Raises:
        ValueError: if there is no example or labels and inputs differ in number.
        TensorError: if an output is NaN or infinite.
    """
    if labels is not None and len(labels) != len(inputs):
        raise ValueError(f"expected as many labels as inputs, got {len(labels)} and {len(inputs)}")
    modes = [(network, network.training) for network in (before, after)]
    found = []
    try:
        for network, _ in modes:
            network.eval()
        for start in range(0, len(inputs), batch):
            part = slice(start, start + batch)
            x = inputs[part] if prepare is None else prepare(inputs[part])
            found.append(_measured(before(x), after(x), None if labels is None else labels[part]))
    finally:
        for network, training in modes:
            network.train(training)
    return _summary(found)


def accuracies(right_before: Tensor, right_after: Tensor) -> Accuracy:
    """Accuracy of two networks from what each got right.

    Args:
        right_before: bool, shape (N,), N at least 1.
        right_after: likewise.
    """
    n = len(right_before)
    gained, lost = int((right_after & ~right_before).sum()), int((right_before & ~right_after).sum())
    low, high = paired_interval(gained, lost, n)
    before, after = (100 * int(right.sum()) / n for right in (right_before, right_after))
    return Accuracy(before, after, (100 * low, 100 * high))


def paired_interval(gained: int, lost: int, examples: int) -> tuple[float, float]:
    """95 % interval of the difference of two proportions seen on the same examples.

    The adjusted Wald interval: one more example counts as gained and one as lost, so that it keeps a width
    where no answer changed, and holds what it promises on few examples too.

    Args:
        gained: examples right only after.
        lost: examples right only before.
        examples: all of them.

    Returns:
        Lower and upper end of after less before, -1 to 1.

    Bonett and Price, "Adjusted Wald Confidence Interval for a Difference of Binomial Proportions Based on
    Paired Data", Journal of Educational and Behavioral Statistics 37(4), 2012.
    """
    if min(gained, lost) < 0 or not 0 < examples >= gained + lost:
        raise ValueError(f"expected counts within {examples} examples, got {gained} gained and {lost} lost")
    n = examples + 2
    up, down = (gained + 1) / n, (lost + 1) / n
    reach = Z * math.sqrt((up + down - (up - down) ** 2) / n)
    return max(up - down - reach, -1.0), min(up - down + reach, 1.0)


def _measured(before: Tensor, after: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
    """One value for each example of a batch, on the CPU."""
    if before.ndim != 2 or before.shape != after.shape or (labels is not None and len(labels) != len(before)):
        got = f"{tuple(before.shape)} and {tuple(after.shape)}"
        raise ValueError(f"expected logits of one shape (N, classes), one row a label, got {got}")
    for name, logits in (("first", before), ("second", after)):
        if not bool(torch.isfinite(logits).all()):
            raise TensorError(f"outputs of the {name} network: expected finite numbers, got others")
    p, q = (torch.log_softmax(logits.double().cpu(), 1) for logits in (before, after))
    found = {"before": before.argmax(1), "after": after.argmax(1), "divergence": (p.exp() * (p - q)).sum(1)}
    if labels is not None:
        for name, logits in (("before", before), ("after", after)):
            rank = _rank(logits, labels)
            found |= {f"top1 {name}": rank < 1, f"top5 {name}": rank < TOP}
    return {name: values.cpu() for name, values in found.items()}


def _rank(logits: Tensor, labels: Tensor) -> Tensor:
    """How many classes come before the label: those of a larger logit, and of equals the earlier ones."""
    own = logits.gather(1, labels[:, None])
    earlier = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    return ((logits > own) | ((logits == own) & earlier)).sum(1)


def _summary(batches: list[dict[str, Tensor]]) -> Agreement:
    if not sum(len(batch["before"]) for batch in batches):
        raise ValueError("expected at least one example, got none")
    whole = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
    top1, top5 = (
        accuracies(whole[f"{top} before"], whole[f"{top} after"]) if f"{top} before" in whole else None
        for top in ("top1", "top5")
    )
    before, after = whole["before"], whole["after"]
    same = 100 * int((before == after).sum()) / len(before)
    return Agreement(before, after, same, float(whole["divergence"].mean()), top1, top5)
