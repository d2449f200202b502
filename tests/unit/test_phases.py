from __future__ import annotations

import re
import threading

import pytest

from cloudscale.phases import Phases
from tests.unit.fakes import FakeClock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    clock = FakeClock()
    monkeypatch.setattr("cloudscale.phases.time.monotonic", clock.now)
    return clock


def test_each_phase_is_shown_with_its_slowest_machine_in_the_order_in_which_they_ended(clock: FakeClock) -> None:
    taken = Phases()
    for machine, seconds in (("m1", 1), ("m2", 5), ("m3", 2)):
        with taken.timed("login", machine):
            clock.sleep(seconds)
    with taken.timed("engine", "m1"):
        clock.sleep(30)
    with taken.timed("seats"):
        clock.sleep(0.25)
    assert str(taken) == "Time: login 5.0 s (m2), engine 30.0 s, seats 0.2 s; in all 38.2 s"


def test_times_of_one_machine_add_up(clock: FakeClock) -> None:
    taken = Phases()
    for machine, seconds in (("m1", 3), ("m2", 4), ("m1", 2)):
        with taken.timed("image", machine):
            clock.sleep(seconds)
    assert "image 5.0 s (m1)" in str(taken)


def test_what_fails_counts_too(clock: FakeClock) -> None:
    taken = Phases()
    with pytest.raises(ValueError, match="broken"), taken.timed("engine", "m1"):
        clock.sleep(7)
        raise ValueError("broken")
    assert "engine 7.0 s" in str(taken)


def test_a_phase_inside_another_counts_in_both(clock: FakeClock) -> None:
    taken = Phases()
    with taken.timed("machines"):
        clock.sleep(1)
        with taken.timed("swarm"):
            clock.sleep(2)
    assert str(taken).startswith("Time: swarm 2.0 s, machines 3.0 s;")


def test_machines_are_timed_side_by_side() -> None:
    taken, together = Phases(), threading.Barrier(8)

    def one(name: str) -> None:
        for _ in range(20):
            with taken.timed("engine", name):
                together.wait(10)

    threads = [threading.Thread(target=one, args=(f"m{at}",)) for at in range(together.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert re.fullmatch(r"Time: engine \d+\.\d s \(m\d\); in all \d+\.\d s", str(taken))
