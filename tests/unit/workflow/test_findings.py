from __future__ import annotations

import threading
import time

import pytest

from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.model import Finding
from cloudscale.workflow.findings import LATE, Findings


@pytest.fixture
def found() -> Findings:
    return Findings(5)


def test_a_result_is_described_with_what_was_said_of_it(found: Findings) -> None:
    def look() -> int:
        found.notes.say("the newest one is taken")
        found.notes.say("Warning: it is old")
        with found.notes.bar("looking", 1) as advance:
            advance(1, 1)
        return 7

    assert found.look("image", look, lambda number: f"number {number}", 1).get() == 7
    assert found.rows == [
        Finding("image", "warning", "it is old"),
        Finding("image", "ok", "number 7\nthe newest one is taken"),
    ]


def test_what_was_said_of_one_is_not_said_of_the_next(found: Findings) -> None:
    found.look("a", lambda: found.notes.say("a"), lambda _: "well", 1)
    found.look("b", lambda: None, lambda _: "well", 1)
    assert [row.finding for row in found.rows] == ["well\na", "well"]


def test_an_error_is_a_row_with_its_remedy_once(found: Findings) -> None:
    def fail() -> None:
        raise RequestError("It is wrong.", "Fix it.")

    assert not found.look("a", fail, str, 1).ok
    assert not found.look("b", fail, str, 1).ok
    assert found.rows == [Finding("a", "wrong", "It is wrong.", "Fix it.")]


def test_a_bug_is_a_row_too(found: Findings) -> None:
    def fail() -> None:
        raise KeyError("key")

    found.look("a", fail, str, 1)
    assert found.rows == [Finding("a", "wrong", "a: KeyError('key')")]


def test_a_call_that_hangs_is_given_up_and_the_others_are_kept(found: Findings) -> None:
    silence = threading.Event()
    calls = {"a": lambda: silence.wait(20), "b": lambda: True}
    outcomes = found.ask(calls, 1)
    silence.set()
    assert outcomes["b"].get()
    found.add("a", outcomes["a"], str)
    assert found.rows == [Finding("a", "wrong", "a: no answer in 1 s.", LATE)]


def test_all_calls_together_take_no_longer_than_the_whole() -> None:
    found, silence, start = Findings(0.3), threading.Event(), time.monotonic()
    for _ in range(3):
        found.look("a", lambda: silence.wait(20), str, 10)
    silence.set()
    assert time.monotonic() - start < 5


def test_a_user_who_is_asked_takes_none_of_the_time() -> None:
    found = Findings(2)
    assert found.ask_user("password", lambda: time.sleep(2.1)).ok
    assert isinstance(found.ask_user("password", lambda: 1 // 0).error, CloudscaleError)
    assert found.ask({"a": lambda: time.sleep(0.5)}, 2)["a"].ok


def test_the_rows_of_one_check_are_together(found: Findings) -> None:
    found.well("a", "1")
    found.skip("b", "2")
    found.warn("a", "3", "do it")
    found.fail("c", EngineError("4"))
    assert [(row.check, row.state, row.finding) for row in found.together] == [
        ("a", "ok", "1"),
        ("a", "warning", "3"),
        ("b", "unknown", "2"),
        ("c", "wrong", "4"),
    ]
