from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Iterator

import pytest

from cloudscale.errors import SeatError
from cloudscale.fanout import fan_out
from cloudscale.model import Outcome


def test_outcomes_come_in_the_order_of_the_input_whichever_ends_first() -> None:
    last_has_run = threading.Event()

    def slow_first(item: int) -> int:
        if item == 0:
            last_has_run.wait()
        if item == 4:
            last_has_run.set()
        return item * item

    outcomes = fan_out(slow_first, range(5), width=2)
    assert outcomes == tuple(Outcome(str(item), item * item) for item in range(5))


def test_one_failure_spoils_no_other() -> None:
    def odd_fails(item: int) -> int:
        if item % 2:
            raise SeatError(f"{item} is odd")
        return item

    outcomes = fan_out(odd_fails, range(4), name=lambda item: f"seat-{item}")
    assert [outcome.target for outcome in outcomes] == ["seat-0", "seat-1", "seat-2", "seat-3"]
    assert [outcome.value for outcome in outcomes] == [0, None, 2, None]
    assert [str(outcome.error) for outcome in outcomes if not outcome.ok] == ["1 is odd", "3 is odd"]


def test_at_most_width_run_at_once_and_that_many_do() -> None:
    together = threading.Barrier(3)
    running, most, lock = 0, 0, threading.Lock()

    def count(item: int) -> None:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        together.wait()  # goes on only where three are here at once
        with lock:
            running -= 1
        together.wait()

    assert all(outcome.ok for outcome in fan_out(count, range(12), width=3))
    assert most == 3


def test_nothing_to_do_is_done() -> None:
    assert fan_out(str, []) == ()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background of a script, which ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_goes_through_and_nothing_new_is_begun() -> None:
    before = set(threading.enumerate())
    interrupted = threading.Event()
    begun: list[int] = []

    def work(item: int) -> None:
        begun.append(item)
        if item:
            interrupted.wait()
        else:
            _thread.interrupt_main()

    with pytest.raises(KeyboardInterrupt):
        fan_out(work, range(50), width=1)
    interrupted.set()
    for worker in set(threading.enumerate()) - before:
        worker.join()
    assert len(begun) <= 2


@pytest.mark.usefixtures("interruptible")
def test_an_interrupt_does_not_wait_for_what_hangs() -> None:
    before = set(threading.enumerate())
    let_go = threading.Event()

    def hang_unless_first(item: int) -> None:
        if item == 0:
            _thread.interrupt_main()
        else:
            let_go.wait()

    with pytest.raises(KeyboardInterrupt):
        fan_out(hang_unless_first, range(3), width=3)
    hanging = set(threading.enumerate()) - before
    assert all(worker.daemon for worker in hanging)  # the interpreter's end does not wait for them either
    let_go.set()
    for worker in hanging:
        worker.join()


def test_a_call_that_takes_too_long_is_given_up_and_the_others_are_kept() -> None:
    silence = threading.Event()
    outcomes = fan_out(lambda item: silence.wait(20) if item == 1 else True, range(3), width=3, patience=1)
    silence.set()
    assert [outcome.ok for outcome in outcomes] == [True, False, True]
    assert isinstance(outcomes[1].error, TimeoutError)
    assert str(outcomes[1].error) == "no answer in 1 s"


def test_what_has_not_begun_in_time_does_not_begin() -> None:
    silence = threading.Event()
    begun: list[int] = []

    def wait(item: int) -> None:
        begun.append(item)
        silence.wait(20)

    assert not any(outcome.ok for outcome in fan_out(wait, range(4), width=2, patience=1))
    silence.set()
    assert sorted(begun) == [0, 1]
