from __future__ import annotations

import time

import pytest

from cloudscale.errors import SeatError
from cloudscale.waiting import SystemClock, poll, retry
from tests.unit.fakes import FakeClock


def test_what_is_true_at_once_is_not_waited_for() -> None:
    clock = FakeClock()
    assert poll(lambda: True, timeout=10, clock=clock)
    assert clock.pauses == []


def test_a_step_is_called_until_it_returns_a_true_value() -> None:
    clock, answers = FakeClock(), iter([False, False, True])
    assert poll(lambda: next(answers), timeout=10, interval=2, clock=clock)
    assert clock.pauses == [2, 2]


def test_the_pause_may_change_with_what_was_found() -> None:
    clock, answers, pauses = FakeClock(), iter([False, False, True]), iter([3, 1])
    assert poll(lambda: next(answers), timeout=10, interval=lambda: next(pauses), clock=clock)
    assert clock.pauses == [3, 1]


def test_after_the_deadline_the_wait_has_failed() -> None:
    clock, called_at = FakeClock(), []

    def never() -> bool:
        called_at.append(clock.now())
        return False

    assert not poll(never, timeout=5, interval=2, clock=clock)
    assert called_at == [0, 2, 4, 5]  # once more at the deadline, and not later


def test_a_step_is_called_once_even_without_time() -> None:
    assert poll(lambda: True, timeout=0, clock=FakeClock())


def test_the_time_that_a_step_takes_counts() -> None:
    clock = FakeClock()

    def slow() -> bool:
        clock.sleep(4)
        return False

    assert not poll(slow, timeout=10, interval=1, clock=clock)
    assert clock.now() == 14  # called at 0, 5 and, for the last time, at 10


def test_an_error_ends_the_wait() -> None:
    clock = FakeClock()

    def broken() -> bool:
        raise SeatError("it is in state ERROR")

    with pytest.raises(SeatError):
        poll(broken, timeout=10, clock=clock)
    assert clock.pauses == []


def test_the_value_is_returned() -> None:
    clock, answers = FakeClock(), iter([None, "", "m1"])
    assert poll(lambda: next(answers), timeout=10, clock=clock) == "m1"
    assert poll(lambda: "", timeout=1, clock=clock) == ""  # the last value if none was true


def test_a_call_is_made_again_until_it_works() -> None:
    clock, answers = FakeClock(), iter(["busy", "busy", "done"])

    def call() -> str:
        if (answer := next(answers)) == "busy":
            raise SeatError(answer)
        return answer

    assert retry(call, when=lambda error: "busy" in str(error), timeout=10, interval=2, clock=clock) == "done"
    assert clock.pauses == [2, 2]


def test_a_call_that_never_works_raises_its_last_error() -> None:
    clock = FakeClock()

    def call() -> None:
        raise SeatError(f"busy at {clock.now():g}")

    with pytest.raises(SeatError, match="busy at 5"):
        retry(call, when=lambda error: True, timeout=5, interval=2, clock=clock)
    with pytest.raises(SeatError, match="busy at 5"):
        retry(call, when=lambda error: False, timeout=5, clock=clock)
    assert clock.now() == 5


def test_the_systems_clock_is_monotonic(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "monotonic", lambda: 7.5)
    monkeypatch.setattr(time, "sleep", slept.append)
    SystemClock().sleep(2)
    assert (SystemClock().now(), slept) == (7.5, [2])
