"""What is on the screen of `status --watch`, and that nothing which hangs stops it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from cloudscale.cli import live
from cloudscale.cli.live import Line, Screen
from cloudscale.errors import RequestError
from cloudscale.units import GIB
from cloudscale.workflow import watch
from cloudscale.workflow.watch import Board, Repeated
from tests.unit.api_schema import api_error
from tests.unit.classroom import Class

PATIENCE = 60  # seconds for what other threads do at once


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not look():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("EVERY", "LOOKING", "DISKS"):
        monkeypatch.setattr(watch, name, 0.01)
    yield
    for thread in threading.enumerate():  # that still ask: the next test would be blamed for it
        if thread.name == watch.THREAD:
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Watching:
    """The screen of a course."""

    def __init__(self, course: Class, **common: str) -> None:
        self.board = Board(course.session(format="table", **common), course.driver)
        self.board.start()

    @property
    def screen(self) -> Screen:
        return self.board.screen()

    def seats(self, key: str = "state") -> list[str]:
        return [line.cells.get(key, "") for line in self.screen.seats]

    def machine(self, name: str) -> Line:
        (line,) = [line for line in self.screen.machines if line.cells["machine"] == name]
        return line


Start = Callable[..., Watching]


@pytest.fixture
def watching() -> Iterator[Start]:
    boards: list[Board] = []

    def start(course: Class, **common: str) -> Watching:
        made = Watching(course, **common)
        boards.append(made.board)
        return made

    yield start
    for board in boards:
        board.stop()


# --- the screen ------------------------------------------------------------------------------


def test_the_screen_shows_machines_and_seats_with_their_details(bio: Class, watching: Start) -> None:
    bio.launch()
    bio.driver.free_disk["m1"] = 12 * GIB
    shown = watching(bio)
    eventually(lambda: shown.seats("cpu") == ["50 %", "50 %"] and shown.seats() == ["ready", "ready"])
    ann = shown.screen.seats[0].cells
    assert (ann["student"], ann["machine"], ann["memory"]) == ("Ann Lee", "m1", "0.5 / 2.0 GiB")
    assert (ann["kernels"], ann["restarts"]) == ("2", "0")
    eventually(lambda: shown.machine("m1").cells["free disk"] == "12.0 GiB")
    machine = shown.machine("m1").cells
    assert (machine["state"], machine["cpu"], machine["memory"]) == ("swarm manager", "100 %", "1.0 / 16.0 GiB")
    assert shown.screen.title == "bio: 2 of 2 seats ready"
    assert list(shown.screen.notes) == []
    assert bio.api.changes == []


def test_seats_that_were_not_asked_yet_are_counted(
    bio: Class, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()
    asking = threading.Event()
    monkeypatch.setattr(watch, "activities_of", lambda *words, **more: asking.wait(PATIENCE))
    shown = watching(bio)
    assert shown.screen.title == "bio: 0 of 2 seats ready, 2 not asked yet"
    asking.set()


def test_a_seat_that_fails_is_noted_with_its_cause(bio: Class, watching: Start) -> None:
    bio.launch()
    shown = watching(bio)
    eventually(lambda: shown.seats() == ["ready", "ready"])
    bio.mute = {4322}
    eventually(lambda: shown.seats() == ["ready", "failed"])
    assert shown.screen.title == "bio: 1 of 2 seats ready, 1 failed"
    assert [line.urgency for line in shown.screen.seats] == [3, 0]
    (note,) = shown.screen.notes
    assert note.startswith("Bob Ray (m1:4322): the server does not answer.")


def test_who_is_short_of_memory_is_marked_and_so_is_a_machine_short_of_disk(bio: Class, watching: Start) -> None:
    bio.launch()
    bio.api.used_memory = 2 * GIB
    bio.driver.free_disk["m1"] = GIB - 1
    shown = watching(bio)
    eventually(lambda: shown.seats("memory") == ["2.0 / 2.0 GiB !"] * 2 and "" not in shown.seats())
    assert [(line.urgency, line.warns) for line in shown.screen.seats] == [(2, frozenset({"memory"}))] * 2
    eventually(lambda: shown.machine("m1").cells["free disk"] == "1.0 GiB !")
    assert (shown.machine("m1").urgency, shown.machine("m1").warns) == (0, frozenset({"free disk"}))


def test_only_those_who_are_named_are_shown(bio: Class, watching: Start) -> None:
    bio.launch()
    shown = watching(bio, only="1")
    assert shown.seats("student") == ["Ann Lee"]


def test_seats_that_come_and_go_are_seen(bio: Class, watching: Start) -> None:
    shown = watching(bio)
    assert shown.screen.title == "bio: no seats"
    bio.launch()
    eventually(lambda: shown.seats() == ["ready", "ready"])
    for service in list(bio.api.services_):
        bio.api.remove_service(service)
    eventually(lambda: shown.screen.seats == [])


# --- what hangs ------------------------------------------------------------------------------


def test_a_machine_that_hangs_shows_its_last_state_and_the_others_go_on(
    lab: Class, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.enrol(3)
    lab.launch()
    shown = watching(lab)
    eventually(lambda: shown.seats("cpu") == ["50 %"] * 3 and shown.seats() == ["ready"] * 3)
    ended = threading.Event()
    monkeypatch.setattr(lab.apis[1], "stats", lambda container, **words: ended.wait(PATIENCE))
    monkeypatch.setattr(watch, "LATE", 0.5)
    eventually(lambda: shown.machine("m2").is_old)
    assert shown.machine("m2").cells["state"].startswith("no answer for ")
    assert shown.machine("m2").urgency == 0
    assert shown.machine("m2").cells["memory"] == "0.5 / 16.0 GiB"
    lab.apis[0].used_memory = lab.apis[2].used_memory = GIB
    eventually(lambda: sorted(shown.seats("memory")) == ["0.5 / 2.0 GiB", "1.0 / 2.0 GiB", "1.0 / 2.0 GiB"])
    assert [line.is_old for line in shown.screen.seats] == [name == "m2" for name in shown.seats("machine")]
    ended.set()


def test_a_machine_that_is_lost_is_said_to_be_and_its_seats_too(lab: Class, watching: Start) -> None:
    lab.enrol(3)
    lab.launch()
    shown = watching(lab)
    eventually(lambda: shown.seats() == ["ready"] * 3)
    lab.driver.lose("m2")
    eventually(lambda: sorted(shown.seats()) == ["failed", "ready", "ready"])
    eventually(lambda: any(note.startswith("m2: ") for note in shown.screen.notes))
    lab.driver.find("m2")
    eventually(lambda: shown.seats() == ["ready"] * 3 and not shown.screen.notes)


def test_a_machine_that_was_never_set_up_is_no_silent_one(
    lab: Class, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LATE", 0.01)
    shown = watching(lab)
    time.sleep(0.05)
    assert {line.cells["state"] for line in shown.screen.machines} == {"not set up"}


def test_who_had_a_seat_stays_known_while_the_swarm_can_not_be_asked(
    bio: Class, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()
    shown = watching(bio)
    eventually(lambda: shown.seats() == ["ready", "ready"])
    bio.driver.lose("m1")
    bio.driver.lost.discard("m1")
    eventually(lambda: shown.seats() == ["failed", "failed"])
    assert shown.seats("student") == ["Ann Lee", "Bob Ray"]
    monkeypatch.setattr(watch, "LATE", 0.05)
    eventually(lambda: any("m1" in note for note in shown.screen.notes))


def test_an_engine_that_refuses_to_answer_says_why(
    lab: Class, watching: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    lab.enrol(3)
    lab.launch()
    monkeypatch.setattr(watch, "LATE", 0.05)

    def broken(container: str, **words: object) -> None:
        raise api_error(500, "cgroup deleted")

    monkeypatch.setattr(lab.apis[1], "stats", broken)
    shown = watching(lab)
    eventually(lambda: any("m2 refused the request: cgroup deleted" in note for note in shown.screen.notes))
    eventually(lambda: shown.seats() == ["ready"] * 3)


def test_a_question_that_fails_leaves_the_last_answer() -> None:
    stopped, answers = threading.Event(), iter([1, 2])
    asked = Repeated(lambda: next(answers), 0, 0.01, stopped)
    assert asked.answer == 0
    asked.start()
    eventually(lambda: isinstance(asked.error, StopIteration))
    assert asked.answer == 2
    before = asked.age
    time.sleep(0.02)
    assert asked.age > before
    stopped.set()


# --- the task --------------------------------------------------------------------------------


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[Screen]:
    """A terminal on which Ctrl-C is pressed after the first screen; what was on it."""
    shown: list[Screen] = []
    monkeypatch.setattr(live, "is_possible", lambda: True)
    monkeypatch.setattr(live, "show", lambda screen: shown.append(screen()))
    return shown


def test_watch_shows_a_screen_and_ends_well(bio: Class, terminal: list[Screen]) -> None:
    bio.launch()
    report = watch.watch(bio.session(format="table"))
    assert (report.text, report.problems) == ("", ())
    (shown,) = terminal
    assert [line.cells["student"] for line in shown.seats] == ["Ann Lee", "Bob Ray"]


def test_watch_needs_a_terminal_and_says_what_to_do_without_one(
    bio: Class, terminal: list[Screen], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "is_possible", lambda: False)
    with pytest.raises(RequestError, match="terminal") as refused:
        watch.watch(bio.session(format="table"))
    assert "--details" in refused.value.remedy
    assert terminal == []


@pytest.mark.parametrize("format", ["json", "csv", "github"])
def test_watch_has_no_other_format(bio: Class, terminal: list[Screen], format: str) -> None:
    with pytest.raises(RequestError, match=f"--format {format}"):
        watch.watch(bio.session(format=format))


def test_messages_are_passed_on_until_the_screen_is_in_use(bio: Class) -> None:
    messages = watch.Messages(bio.said)
    messages.say("before")
    messages.is_held = True
    for number in range(9):
        messages.say(f"message {number}")
    with messages.bar("nothing", 1) as advance:
        advance(1, 1)
    assert bio.said.lines == ["before"]
    assert list(messages.held) == ["message 7", "message 8"]
