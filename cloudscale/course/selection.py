"""`--only` and `--skip`: the machines and seats that a task is for."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudscale.errors import RequestError

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """The names that the user gave.

    A target has several names, a seat in this order: service, student's id, full name, machine.
    """

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def choose(self, targets: Sequence[T], names: Callable[[T], Iterable[str]]) -> list[T]:
        """The selected targets. Raises RequestError for a name that no target has."""
        named = [(target, {_folded(name) for name in names(target) if name}) for target in targets]
        known = set().union(*(own for _, own in named))
        unknown = [name for name in (*self.only, *self.skip) if _folded(name) not in known]
        if unknown:
            raise RequestError(
                f"Unknown machine, seat or student: {', '.join(unknown)}.",
                f"Available: {_available([tuple(names(target)) for target in targets])}.",
            )
        only, skip = self._folded()
        return [target for target, own in named if (not only or own & only) and not own & skip]

    def is_about(self, machine: str) -> bool:
        """Whether the machine itself is selected: --only names it or is not given, and --skip does not name it."""
        only, skip = self._folded()
        return (not only or _folded(machine) in only) and _folded(machine) not in skip

    def uses(self, machine: str, machines: Iterable[str]) -> bool:
        """Whether new seats may be placed there. --only restricts the machines if it names any, else only the seats."""
        only, skip = self._folded()
        allowed = only & {_folded(name) for name in machines}
        return (not allowed or _folded(machine) in allowed) and _folded(machine) not in skip

    def _folded(self) -> tuple[set[str], set[str]]:
        return {_folded(name) for name in self.only}, {_folded(name) for name in self.skip}


def find_one(text: str, targets: Sequence[T], names: Callable[[T], Sequence[str]]) -> T:
    """The one target that is meant by its id, its full name, or a part of either that no other one has.

    `names`: as of a seat. Raises RequestError, with those that may be meant.
    """
    wanted = _folded(text)
    folded = [(target, [_folded(name) for name in names(target)[1:3]]) for target in targets]
    for is_meant in (
        lambda own: own[0] == wanted,
        lambda own: wanted in own,
        lambda own: any(wanted in name for name in own),
    ):
        found = [target for target, own in folded if is_meant(own)]
        if len(found) == 1:
            return found[0]
        if found:
            raise RequestError(
                f"{text!r} may be {len(found)} students: {_available([tuple(names(each)[:3]) for each in found])}.",
                "Give the id.",
            )
    raise RequestError(
        f"No seat has the student {text!r}.", f"Available: {_available([tuple(names(each)[:3]) for each in targets])}."
    )


def _folded(name: str) -> str:
    """The name without what a user can't see or need not type: case, blanks, accents as characters of their own."""
    return " ".join(unicodedata.normalize("NFC", unicodedata.normalize("NFD", name).casefold()).split())


def _available(targets: Sequence[tuple[str, ...]]) -> str:
    """Students by id and name, rather than by the names of their services, and everything else by its own name."""
    seats = [" ".join(filter(None, names[1:3])) for names in targets if len(names) > 2]
    others = [names[0] for names in targets if names and len(names) <= 2]
    machines = [names[3] for names in targets if len(names) > 3 and names[3]]
    parts = [list(dict.fromkeys(part)) for part in (seats, [*others, *machines]) if part]
    return "; ".join(map(_some, parts)) or "none"


def _some(names: Sequence[str], most: int = 8) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names) or "none"
