"""Tests of cloudscale.seats.pacing, with the wait in which new seats start."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import pytest

from cloudscale.errors import EngineError, SlowSeat
from cloudscale.model import Outcome, Place, Seat, Student
from cloudscale.seats import jupyter
from cloudscale.seats.address import Addresses
from cloudscale.seats.pacing import AT_ONCE, PATIENCE, Pace
from cloudscale.seats.readiness import Starter, wait_ready
from cloudscale.seats.services import Change
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock, fake_engine, place_of

FORM: Json = {"ContainerSpec": {"Image": "lab"}}
TAKES = 2.0  # seconds from a seat's start to its first answer


class Class:
    """New seats on machines of one core, and the wait for them. `begun`: when each was started, by port."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = FakeApi()
        self.engine = fake_engine(self.api)
        self.clock = FakeClock()
        self.begun: dict[int, float] = {}
        self.refused: Collection[int] = ()
        self.mute: Collection[int] = ()
        self.broken: Collection[int] = ()
        self.most = 0  # that were starting at the same time, on one machine
        monkeypatch.setattr(jupyter, "answers", self._answers)

    def _answers(self, url: str) -> bool:
        port = place_of(url)[1]
        return port not in self.mute and self.clock.now() - self.begun[port] >= TAKES

    def create(self, seat: Seat) -> Change:
        port = seat.place.port
        if port in self.refused:
            raise EngineError("m1: no room for it")
        self.begun[port] = self.clock.now()
        starting = Counter(p // 1000 for p, since in self.begun.items() if self.clock.now() - since < TAKES)
        self.most = max(self.most, *starting.values())
        for _ in range(3 if port in self.broken else 0):
            self.api.add_task(f"service{port}", "failed", error="exit (1)")
        task = self.api.add_task(f"service{port}", "running", container=f"c{port}")
        next(known for known in self.api.tasks_ if known["ID"] == task)["Spec"] = FORM
        return Change("created", f"service{port}", FORM)

    def restart(self, seat: Seat, change: Change) -> Change:
        raise AssertionError("no seat is without its port")

    def launch(
        self, seats: list[Seat], *, cores: int = 1, timeout: float = 100
    ) -> tuple[Pace, dict[str, Outcome[str]]]:
        pace = Pace(seats, self.create, {"m1": cores, "m2": cores})
        addresses = Addresses({"m1": "192.0.2.1", "m2": "192.0.2.2"}, bytes(32))
        starter = Starter(pace, self.restart)
        engines = {"m1": self.engine}
        return pace, wait_ready(
            self.engine, [], addresses, starter=starter, engines=engines, timeout=timeout, clock=self.clock
        )


def seats(count: int, machine: int = 1) -> list[Seat]:
    first = machine * 1000
    return [Seat(Student(str(first + n), "No", str(n)), Place(f"m{machine}", first + n)) for n in range(count)]


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> Class:
    return Class(monkeypatch)


def test_a_few_start_at_once_and_the_others_as_soon_as_these_answer(room: Class) -> None:
    _, done = room.launch(seats(3 * AT_ONCE))
    assert {outcome.value for outcome in done.values()} == {"ready"}
    assert Counter(room.begun.values()) == {0: AT_ONCE, 2: AT_ONCE, 4: AT_ONCE}
    assert list(room.begun) == sorted(room.begun)  # in the order of the roster
    assert room.clock.now() == 6


def test_each_machine_has_its_own_room_and_more_with_more_cores(room: Class) -> None:
    _, done = room.launch([*seats(3 * AT_ONCE), *seats(3 * AT_ONCE, machine=2)], cores=3)
    assert all(outcome.ok for outcome in done.values())
    assert set(room.begun.values()) == {0}
    assert room.most == 3 * AT_ONCE


def test_one_that_takes_long_keeps_the_others_waiting_for_a_while_only(room: Class) -> None:
    room.mute = range(1000, 1000 + AT_ONCE)
    _, done = room.launch(seats(AT_ONCE + 1))
    assert room.begun[1000 + AT_ONCE] == PATIENCE
    assert done[str(1000 + AT_ONCE)].ok
    assert all(isinstance(done[str(port)].error, SlowSeat) for port in room.mute)


def test_where_one_fails_all_start_so_that_every_cause_is_known_soon(room: Class) -> None:
    room.broken = room.mute = range(1000, 1000 + 4 * AT_ONCE)
    _, done = room.launch(seats(4 * AT_ONCE))
    assert len(done) == 4 * AT_ONCE
    assert all("does not stay up" in str(outcome.error) for outcome in done.values())
    assert room.clock.now() < 2


def test_one_that_the_engine_refuses_is_reported_and_the_others_start(room: Class) -> None:
    room.refused = [1001]
    pace, done = room.launch(seats(2 * AT_ONCE))
    assert [at for at, outcome in done.items() if not outcome.ok] == ["1001"]
    assert "no room for it" in str(done["1001"].error)
    assert sum(outcome.ok for outcome in pace.outcomes.values()) == 2 * AT_ONCE - 1


def test_where_the_engine_refuses_all_of_the_first_the_others_are_started_too(room: Class) -> None:
    room.refused = range(1000, 1000 + AT_ONCE)
    pace, done = room.launch(seats(2 * AT_ONCE))
    assert [outcome.ok for outcome in done.values()] == [False] * AT_ONCE + [True] * AT_ONCE
    assert len(pace.outcomes) == 2 * AT_ONCE


def test_an_engine_that_goes_away_is_not_asked_for_one_seat_after_the_other(
    room: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    room.refused = range(1000, 1000 + 9 * AT_ONCE)
    tried: list[int] = []
    answers = iter([room.api.tasks()])

    def create(seat: Seat) -> Change:
        tried.append(seat.place.port)
        return Class.create(room, seat)

    def tasks(filters: object) -> list[Json]:
        try:
            return next(answers)
        except StopIteration:
            raise api_error(500, "the engine is going down") from None

    monkeypatch.setattr(room, "create", create)
    monkeypatch.setattr(room.api, "tasks", tasks)
    with pytest.raises(EngineError, match="going down"):
        room.launch(seats(9 * AT_ONCE))
    assert len(tried) == AT_ONCE


def test_those_whose_turn_does_not_come_in_time_are_started_all_the_same(room: Class) -> None:
    room.mute = range(1000, 1000 + AT_ONCE)
    pace, done = room.launch(seats(AT_ONCE + 2), timeout=PATIENCE / 2)
    assert len(room.begun) == AT_ONCE + 2 and not pace.coming
    assert all(isinstance(outcome.error, SlowSeat) for outcome in done.values())


def test_a_pace_without_new_seats_creates_nothing() -> None:
    assert Pace().next([], 0) == Pace().all(0) == []
