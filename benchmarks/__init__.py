"""Each module prints a ratio against a floor that it measures in the same run: the machines are noisy."""

from __future__ import annotations

import os
import resource
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path


def paired(ours: Callable[[], float], floor: Callable[[], float], rounds: int) -> tuple[list[float], list[float]]:
    """Seconds of both, in turns, so that a drift of the machine's speed hits both. Which is first alternates."""
    mine: list[float] = []
    theirs: list[float] = []
    for at in range(rounds):
        pair = [(ours, mine), (floor, theirs)]
        for measure, results in pair if at % 2 else reversed(pair):
            results.append(measure())
    return mine, theirs


def environment(compiled: Path) -> dict[str, str]:
    """For commands whose modules are compiled by the first run, as users have it, even where Python is not to do so."""
    own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**own, "PYTHONPYCACHEPREFIX": str(compiled)}


def cpu_seconds() -> float:
    """CPU time of this process, and of those that it has waited for."""
    both = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in both)


def summary(what: str, ours: Sequence[float], floor: Sequence[float], goal: float, other: str = "floor") -> str:
    """`other`: what the floor is, if it is a peer."""
    ratios = [a / b for a, b in zip(ours, floor, strict=True)]
    return (
        f"{what}: {statistics.median(ours):.2f} s, {other} {statistics.median(floor):.2f} s,"
        f" ratio {statistics.median(ratios):.3f} (of {len(ratios)} pairs: {min(ratios):.3f} to {max(ratios):.3f};"
        f" goal {goal})"
    )
