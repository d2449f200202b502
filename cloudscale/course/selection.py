"""`--only` and `--skip`: which machines and seats a task is about."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from cloudscale.errors import RequestError

T = TypeVar("T")


@dataclass(frozen=True)
class Selection:
    """Names given by the user; each target answers to several (a seat: service, id, student's name, machine)."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    def choose(self, targets: Sequence[T], names: Callable[[T], Iterable[str]]) -> list[T]:
        """The targets that are meant. Raises RequestError for a name that none of them answers to."""
        answering = [(target, {name.casefold() for name in names(target) if name}) for target in targets]
        everyone = set().union(*(known for _, known in answering))
        unknown = [name for name in (*self.only, *self.skip) if name.casefold() not in everyone]
        if unknown:
            raise RequestError(
                f"No machine or seat is called {', '.join(unknown)}.",
                f"There is: {_some([next(iter(names(target)), '') for target in targets])}.",
            )
        only, skip = ({name.casefold() for name in chosen} for chosen in (self.only, self.skip))
        return [target for target, known in answering if (not only or known & only) and not known & skip]

    def is_about(self, machine: str) -> bool:
        """Whether a machine as such is meant: --only names it, or nothing, and --skip does not."""
        return (not self.only or machine in self.only) and machine not in self.skip

    def uses(self, machine: str, machines: Iterable[str]) -> bool:
        """Whether new seats may go there: --only chooses machines where it names any, else it is about seats."""
        chosen = set(self.only) & set(machines)
        return (not chosen or machine in chosen) and machine not in self.skip


def _some(names: Sequence[str], most: int = 8) -> str:
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most} more"
    return ", ".join(names) or "nothing"
