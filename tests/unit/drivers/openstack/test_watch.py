from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.drivers.openstack.watch import INTERVAL, Watch
from cloudscale.errors import CloudError
from tests.unit.drivers.openstack.cloud import Crowd, Time


class Cloud:
    """Lists the time at which it was asked."""

    def __init__(self, clock: Crowd | Time) -> None:
        self._clock = clock
        self.asked: list[float] = []

    def read(self) -> Sequence[float]:
        self.asked.append(self._clock.now())
        return self.asked[-1:]


def after(moment: float) -> Callable[[Sequence[float]], float | None]:
    return lambda seen: seen[0] if seen[0] >= moment else None


def requests(waiting: int, seconds: float, *, apart: float = 0) -> int:
    """The number of requests if so many threads wait so long, started together or one after the other."""
    clock = Crowd(waiting, tick=0)  # threads that start together do so at exactly the same time
    cloud = Cloud(clock)
    watch = Watch(cloud.read, clock)

    def wait(number: int) -> None:
        if apart:
            clock.sleep((number + 1) * apart)
        assert watch.until(after(seconds), 10 * seconds) is not None

    clock.run(*(lambda number=number: wait(number) for number in range(waiting)))
    return len(cloud.asked)


def test_however_many_wait_the_cloud_is_asked_as_often_as_for_one() -> None:
    assert requests(1, 20) == 20 / INTERVAL + 1
    assert requests(30, 20) == requests(1, 20)


def test_nor_is_it_asked_more_where_they_begin_one_after_the_other() -> None:
    assert requests(20, 20, apart=0.03) <= 20 / INTERVAL + 3


@given(st.lists(st.tuples(st.floats(0, 5), st.booleans()), min_size=1, max_size=8))
def test_no_caller_gets_a_list_that_is_older_than_its_call(steps: list[tuple[float, bool]]) -> None:
    clock = Time()
    cloud = Cloud(clock)
    watch = Watch(cloud.read, clock)
    for pause, waits in steps:
        if pause:
            clock.sleep(pause)
        begun = clock.now()
        (seen,) = (watch.until(lambda items: items, 60) or ()) if waits else watch.now()
        assert seen > begun


def test_a_value_is_returned_as_soon_as_it_appears() -> None:
    clock = Time()
    value = Watch(Cloud(clock).read, clock).until(after(7), 60)
    assert value is not None
    assert 7 <= value <= 7 + INTERVAL


def test_what_does_not_come_is_none_after_a_last_look() -> None:
    clock = Time()
    cloud = Cloud(clock)
    assert Watch(cloud.read, clock).until(lambda seen: None, 7) is None
    assert 7 <= clock.now() < 7.1
    assert len(cloud.asked) == 4  # at 0, 2, 4 and 6; the list of 6 is new enough at 7


def test_a_failure_state_ends_the_wait() -> None:
    def failed(seen: Sequence[float]) -> None:
        raise CloudError("It is in ERROR.")

    clock = Time()
    with pytest.raises(CloudError, match=r"It is in ERROR\."):
        Watch(Cloud(clock).read, clock).until(failed, 60)
    assert clock.pauses == []


def test_a_look_that_fails_is_the_next_ones_to_repeat() -> None:
    clock = Time()
    failures = [CloudError("No.")]

    def read() -> Sequence[str]:
        if failures:
            raise failures.pop()
        return ["bio-1"]

    watch = Watch(read, clock)
    with pytest.raises(CloudError, match=r"No\."):
        watch.now()
    assert watch.now() == ["bio-1"]
