"""The search without training: one setting, the higher the larger and the more accurate the file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from dwindle.compression import Step
from dwindle.search.trial import Trial


@dataclass(frozen=True)
class Setting:
    """A setting to search over, on a grid.

    Attributes:
        name: what it is called.
        make: the model at a value.
        vectors: significant bits of biases and norms at a value.
        low: least value.
        high: greatest.
        first: tried first.
        unit: step of the grid.
    """

    name: str
    make: Callable[[float], nn.Module]
    vectors: Callable[[float], int]
    low: float
    high: float
    first: float
    unit: float


def search_setting(trial: Trial, setting: Setting) -> None:
    """Find the lowest value that holds a floor, or the highest that keeps to a limit.

    Values are bracketed by strides, then chosen on the line between what is known of both ends: the
    logarithms of the drop and of the size are about linear in decibels. A model that fits a limit is scored
    once, last.

    Args:
        trial: measures; its goal says what is looked for.
        setting: what to search over.
    """
    floor = trial.goal.limit is None
    last = round((setting.high - setting.low) / setting.unit)
    tried = {step.setting[setting.name]: step for step in trial.steps if setting.name in step.setting}

    def measure(place: int, *, scored: bool) -> Step:
        value = setting.low + (place if floor else last - place) * setting.unit
        known = tried.get(value)
        if known is None or (scored and known.score is None):
            known = trial.measure(
                setting.make(value), {setting.name: value}, vectors=setting.vectors(value), scored=scored
            )
            tried[value] = known
            trial.save({}, {})
        return known

    # Places count values from the end that fails: from the lowest for a floor, from the highest for a limit.
    fails, holds = -1, last + 1
    first = round((setting.first - setting.low) / setting.unit)
    place, stride, slow = first if floor else last - first, max(last // 8, 1), 0
    excess: dict[int, float] = {}
    while holds - fails > 1:
        step, before = measure(place, scored=floor), holds - fails
        excess[place] = trial.goal.excess(step)
        fails, holds = (fails, place) if step.holds else (place, holds)
        if fails < 0 or holds > last:
            place = max(place - stride, 0) if fails < 0 else min(place + stride, last)
            stride *= 2
            if place == (holds if fails < 0 else fails):
                break
            continue
        # A bracket that does not halve is halved the next time.
        slow = slow + 1 if 2 * (holds - fails) > before else 0
        part = 0.5 if slow > 1 else excess[fails] / max(excess[fails] - excess[holds], 1e-12)
        place = min(max(fails + round(part * (holds - fails)), fails + 1), holds - 1)
    if holds <= last and not floor and trial.evaluate is not None:
        measure(holds, scored=True)
