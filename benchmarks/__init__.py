"""Each module prints a ratio against a floor that it measures in the same run: the machines are noisy."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence


def paired(ours: Callable[[], float], floor: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both, in turns, so that a drift of the machine's speed hits both. Which is first alternates."""
    mine: list[float] = []
    theirs: list[float] = []
    for at in range(rounds):
        pair = [(ours, mine), (floor, theirs)]
        for measure, results in pair if at % 2 else reversed(pair):
            results.append(measure())
    return mine, theirs


def summary(what: str, ours: Sequence[float], floor: Sequence[float], goal: float) -> str:
    ratios = [a / b for a, b in zip(ours, floor, strict=True)]
    return (
        f"{what}: {statistics.median(ours):.2f} s, floor {statistics.median(floor):.2f} s,"
        f" ratio {statistics.median(ratios):.3f} (of {len(ratios)} pairs: {min(ratios):.3f} to {max(ratios):.3f};"
        f" goal {goal})"
    )
