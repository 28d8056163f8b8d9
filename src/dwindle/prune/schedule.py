"""How sparse to be after each round of prune and retrain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def iterative(fraction: float, rounds: int, *, initial: float = 0.0) -> list[float]:
    """Remove the same fraction of what remains in every round.

    Args:
        fraction: share of the survivors one round removes, 0 to 1.
        rounds: number of rounds, 1 or more.
        initial: sparsity before the first round.

    Returns:
        The sparsity after each round, `rounds` numbers that never fall.

    Han et al. 2015, section 3.4: prune a little, retrain, repeat.
    """
    _check(rounds, fraction=fraction, initial=initial)
    return [1 - (1 - initial) * (1 - fraction) ** done for done in range(1, rounds + 1)]


def fraction_for(final: float, rounds: int, *, initial: float = 0.0) -> float:
    """The fraction with which `iterative` ends at the sparsity `final`, up to rounding.

    Args:
        final: sparsity after the last round, from `initial` to 1.
        rounds: number of rounds, 1 or more.
        initial: sparsity before the first round, under 1.
    """
    _check(rounds, final=final, initial=initial)
    if not initial <= final or initial == 1:
        raise ValueError(f"expected a final sparsity of at least {initial}, itself under 1, got {final}")
    return float(1 - ((1 - final) / (1 - initial)) ** (1 / rounds))


def cubic(final: float, rounds: int, *, initial: float = 0.0) -> list[float]:
    """Gradual pruning: fast while much is left to remove, slow towards the end.

    s_t = s_f + (s_i - s_f) (1 - t)^3, for t = 1 / rounds, 2 / rounds, ... 1.

    Args:
        final: s_f, the sparsity after the last round, from `initial` to 1.
        rounds: number of rounds, 1 or more.
        initial: s_i, the sparsity before the first round.

    Returns:
        The sparsity after each round, `rounds` numbers that never fall, the last of them `final`.

    Zhu and Gupta 2017, "To prune, or not to prune", section 3, equation 1.
    """
    _check(rounds, final=final, initial=initial)
    if final < initial:
        raise ValueError(f"expected a final sparsity of at least {initial}, got {final}")
    return [final + (initial - final) * (1 - done / rounds) ** 3 for done in range(1, rounds + 1)]


def per_tensor(schedules: Mapping[str, Sequence[float]]) -> list[dict[str, float]]:
    """Schedules by tensor name, of equal length, as one round after the other, fit for `prune`.

    Raises:
        ValueError: if the schedules differ in length.
    """
    lengths = {len(schedule) for schedule in schedules.values()}
    if len(lengths) > 1:
        raise ValueError(f"expected schedules of one length, got lengths {sorted(lengths)}")
    return [dict(zip(schedules, targets, strict=True)) for targets in zip(*schedules.values(), strict=True)]


def _check(rounds: int, **shares: float) -> None:
    if rounds < 1:
        raise ValueError(f"expected 1 round or more, got {rounds}")
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise ValueError(f"expected {name} to be 0 to 1, got {share}")
