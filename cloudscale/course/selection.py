"""`--only` and `--skip`: the machines and seats that a task is for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudscale.errors import RequestError

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """The names that the user gave. A target has several names (a seat: service, student's id and name, machine)."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def choose(self, targets: Sequence[T], names: Callable[[T], Iterable[str]]) -> list[T]:
        """The selected targets. Raises RequestError for a name that no target has."""
        named = [(target, {name.casefold() for name in names(target) if name}) for target in targets]
        known = set().union(*(own for _, own in named))
        unknown = [name for name in (*self.only, *self.skip) if name.casefold() not in known]
        if unknown:
            raise RequestError(
                f"Unknown machine, seat or student: {', '.join(unknown)}.",
                f"Available: {_some([next(iter(names(target)), '') for target in targets])}.",
            )
        only, skip = self._folded()
        return [target for target, own in named if (not only or own & only) and not own & skip]

    def is_about(self, machine: str) -> bool:
        """Whether the machine itself is selected: --only names it or is not given, and --skip does not name it."""
        only, skip = self._folded()
        return (not only or machine.casefold() in only) and machine.casefold() not in skip

    def uses(self, machine: str, machines: Iterable[str]) -> bool:
        """Whether new seats may be placed there. --only restricts the machines if it names any, else only the seats."""
        only, skip = self._folded()
        allowed = only & {name.casefold() for name in machines}
        return (not allowed or machine.casefold() in allowed) and machine.casefold() not in skip

    def _folded(self) -> tuple[set[str], set[str]]:
        """--only and --skip; upper and lower case do not matter."""
        return {name.casefold() for name in self.only}, {name.casefold() for name in self.skip}


def _some(names: Sequence[str], most: int = 8) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names) or "none"
