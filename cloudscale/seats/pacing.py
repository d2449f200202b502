"""How many new seats start at once on a machine: as many as keep its cores busy.

If all of a class start at once, the first student waits as long as the last one, and a machine with hundreds answers
nobody meanwhile. A few at a time take no longer in all.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from cloudscale.fanout import fan_out
from cloudscale.model import Outcome, Seat
from cloudscale.seats.services import Change

AT_ONCE = 4  # seats for each core: a start waits for disk and engine, too
PATIENCE = 30.0  # seconds after which one that does not answer yet keeps no other waiting


def _nobody(seat: Seat) -> Change:
    raise AssertionError(f"{seat.student.full_name} is not new")


class Pace:
    """The new seats of a launch, if any, which start when it is their turn. `create` starts one. `cores`: by machine.

    `coming` are those that have not started yet, `outcomes` what became of the others' start, by student's id.
    """

    def __init__(
        self,
        coming: Sequence[Seat] = (),
        create: Callable[[Seat], Change] = _nobody,
        cores: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.coming: Sequence[Seat] = coming
        self.outcomes: dict[str, Outcome[Change]] = {}
        self._create = create
        self._cores = cores
        self._since: dict[str, float] = {}  # when each was started, by student's id

    def next(self, waiting: Collection[Seat], now: float) -> list[tuple[Seat, Outcome[Change]]]:
        """Starts those that there is room for, beside the ones that are waited for. `now`: seconds, of any clock."""
        busy = Counter(seat.place.machine for seat in waiting if now - self._begun(seat) < PATIENCE)
        chosen = []
        for seat in self.coming:
            machine = seat.place.machine
            if busy[machine] < AT_ONCE * self._cores[machine]:
                busy[machine] += 1
                chosen.append(seat)
        return self._start(chosen, now)

    def all(self, now: float) -> list[tuple[Seat, Outcome[Change]]]:
        """Starts all that have not been started yet."""
        return self._start(self.coming, now)

    def _begun(self, seat: Seat) -> float:
        return self._since.get(seat.student.id, float("-inf"))

    def _start(self, chosen: Sequence[Seat], now: float) -> list[tuple[Seat, Outcome[Change]]]:
        self._since |= {seat.student.id: now for seat in chosen}
        self.coming = [seat for seat in self.coming if seat.student.id not in self._since]
        outcomes = fan_out(self._create, chosen, name=lambda seat: seat.student.full_name)
        self.outcomes |= {seat.student.id: each for seat, each in zip(chosen, outcomes, strict=True)}
        return list(zip(chosen, outcomes, strict=True))
