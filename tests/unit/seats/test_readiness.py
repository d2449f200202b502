from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from cloudscale.errors import EngineError, SeatError, SlowSeat
from cloudscale.model import Outcome, Outcomes, Place, Seat, Student
from cloudscale.seats import jupyter, readiness
from cloudscale.seats.address import Addresses
from cloudscale.seats.pacing import Pace
from cloudscale.seats.readiness import (
    CLOSED,
    SeatState,
    Starter,
    all_tasks,
    failure,
    seat_states,
    states_by,
    wait_ready,
)
from cloudscale.seats.services import Change, RunningSeat
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock, fake_engine, place_of

ANN = Seat(Student("1", "Ann", "Lee"), Place("m1", 4321))
BOB = Seat(Student("2", "Bob", "Ray"), Place("m1", 4322))
ADDRESSES = Addresses({"m1": "192.0.2.1"}, bytes(32))
OLD: Json = {"ContainerSpec": {"Image": "old"}}
NEW: Json = {"ContainerSpec": {"Image": "new"}}


# --- causes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "message", "remedy"),
    [
        ("driver failed programming: Bind for 0.0.0.0:4321 failed: port is already allocated", "port 4321", "ss -ltnp"),
        ('host-mode port "4321" already in use on 1 node', "port 4321 is taken", "ss -ltnp"),
        ("no suitable node (insufficient resources on 1 node)", "not enough unreserved memory", "seat.reserve"),
        ("write /var/lib/docker/x: No space left on device", "disk is full", "docker system df"),
        ("No such image: jupyter/lab@sha256:aa", "image is not on the machine", "Run again"),
        ("no suitable node (scheduling constraints not satisfied)", "takes no containers", "docker node ls"),
        ("task: non-zero exit (137)", "does not stay up (task: non-zero exit (137))", "seat.memory"),
        ("", "does not stay up (no reason given)", "docker service logs"),
    ],
)
def test_an_engines_message_becomes_cause_and_remedy(error: str, message: str, remedy: str) -> None:
    cause = failure(ANN, error)
    assert cause.message.startswith("Ann Lee (m1:4321): ")
    assert message in cause.message
    assert remedy in cause.remedy


def test_the_last_words_of_a_server_are_passed_on() -> None:
    assert "its last words: ImportError: numpy" in failure(ANN, "exit (1)", "ImportError: numpy").message


# --- waiting ---------------------------------------------------------------------------------


class Course:
    """Seats that wait to be ready. `at` says what happens when; `answering` are the ports that answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.api = FakeApi()
        self.engine = fake_engine(self.api)
        self.clock = FakeClock()
        self.answering: set[int] = set()
        self.asked: list[int] = []
        self.counts: list[int] = []
        self.restarted: list[str] = []
        self.refuses = False
        self.filters: list[list[str] | None] = []
        self._later: list[tuple[float, Callable[[], object]]] = []
        monkeypatch.setattr(jupyter, "answers", self._answers)
        tasks = self.api.tasks

        def look(filters: Json | None = None) -> list[Json]:
            self._happen()
            self.filters.append((filters or {}).get("service"))
            return tasks(filters)

        monkeypatch.setattr(self.api, "tasks", look)

    def at(self, seconds: float, happens: Callable[[], object]) -> None:
        self._later.append((seconds, happens))

    def _happen(self) -> None:
        due = [happens for seconds, happens in self._later if seconds <= self.clock.now()]
        self._later = [(seconds, happens) for seconds, happens in self._later if seconds > self.clock.now()]
        for happens in due:
            happens()

    def _answers(self, url: str) -> bool:
        host, port = place_of(url)
        assert host == "192.0.2.1"
        self.asked.append(port)
        return port in self.answering

    def task(self, seat: Seat, state: str, *, error: str = "", spec: Json = NEW, container: bool = True) -> None:
        task = self.api.add_task(
            f"service{seat.student.id}", state, error=error, container=f"c{seat.student.id}" if container else ""
        )
        next(known for known in self.api.tasks_ if known["ID"] == task)["Spec"] = spec

    def lose_port(self, seat: Seat) -> None:
        """Its newest container runs without its port, as the engine itself says."""
        newest = [task for task in self.api.tasks_ if task["ServiceID"] == f"service{seat.student.id}"][-1]
        newest["Status"]["PortStatus"] = {}

    def comes_up(self, seat: Seat) -> None:
        self.task(seat, "running")
        self.answering.add(seat.place.port)

    def restart(self, seat: Seat, change: Change) -> Change:
        self.restarted.append(seat.student.id)
        if self.refuses:
            raise EngineError("m1: no answer")
        self.api.tasks_[-1]["DesiredState"] = "shutdown"
        self.task(seat, "running", spec={**NEW, "ForceUpdate": 1})
        self.at(self.clock.now() + 2, lambda: self.answering.add(seat.place.port))
        return Change("updated", change.service_id, {**NEW, "ForceUpdate": 1})

    def wait(self, *seats: Seat, timeout: float = 100) -> Outcomes[str]:
        done = wait_ready(
            self.engine,
            [(seat, Change("created", f"service{seat.student.id}", NEW)) for seat in seats],
            ADDRESSES,
            starter=Starter(Pace(), self.restart),
            engines={"m1": self.engine},
            timeout=timeout,
            ready=self.counts.append,
            clock=self.clock,
        )
        return Outcomes(done[seat.student.id] for seat in seats)


@pytest.fixture
def course(monkeypatch: pytest.MonkeyPatch) -> Course:
    return Course(monkeypatch)


def message(outcome: Outcome[str]) -> str:
    assert isinstance(outcome.error, SeatError)
    return outcome.error.message


def test_seats_that_answer_are_ready_at_once(course: Course) -> None:
    course.task(ANN, "running")
    course.task(BOB, "running")
    course.answering = {4321, 4322}
    assert course.wait(ANN, BOB) == (Outcome("Ann Lee", "ready"), Outcome("Bob Ray", "ready"))
    assert course.clock.pauses == []


def test_many_seats_are_asked_less_often_and_the_last_ones_as_often_as_few(course: Course) -> None:
    many = [Seat(Student(str(n), "No", str(n)), Place("m1", 5000 + n)) for n in range(300)]
    for seat in many:
        course.task(seat, "running")
    course.at(30, lambda: course.answering.update(range(5000, 5290)))
    course.at(60, lambda: course.answering.update(range(5290, 5300)))
    assert all(outcome.ok for outcome in course.wait(*many))
    assert course.asked.count(5000) == 11  # in 30 seconds: 100 seats in each of them
    assert course.clock.pauses[-1] == 0.5
    assert course.clock.now() == 60


def test_of_few_seats_only_those_that_are_waited_for_are_listed(course: Course) -> None:
    course.task(ANN, "running")
    course.task(BOB, "running")
    course.answering = {4321}
    course.at(5, lambda: course.answering.add(4322))
    course.wait(ANN, BOB)
    assert course.filters[:3] == [None, ["service1", "service2"], ["service2"]]


def test_where_a_service_has_gone_meanwhile_the_others_are_waited_for(course: Course) -> None:
    course.task(ANN, "running")
    course.answering = {4321}
    ann, bob = course.wait(ANN, BOB)
    assert ann.ok and isinstance(bob.error, SlowSeat)


def test_a_seat_is_waited_for_and_not_asked_again_when_it_is_ready(course: Course) -> None:
    course.task(ANN, "running")
    course.task(BOB, "running")
    course.answering = {4321}
    course.at(5, lambda: course.answering.add(4322))
    assert [outcome.value for outcome in course.wait(ANN, BOB)] == ["ready", "ready"]
    assert course.clock.now() == 5
    assert course.asked.count(4321) == 1
    assert (course.counts[0], course.counts[-1]) == (1, 2)


def test_no_seat_is_asked_before_it_has_a_container(course: Course) -> None:
    course.task(ANN, "preparing", container=False)
    course.at(5, lambda: course.task(ANN, "running"))
    course.answering = {4321}
    assert course.wait(ANN)[0].ok
    assert course.clock.now() == 5


def test_the_answer_of_the_container_before_does_not_count(course: Course) -> None:
    course.task(ANN, "running", spec=OLD)
    course.answering = {4321}
    course.at(5, lambda: course.task(ANN, "running"))
    assert course.wait(ANN)[0].ok
    assert course.clock.now() == 5


def test_a_seat_that_takes_too_long_is_slow_and_the_others_are_ready(course: Course) -> None:
    course.task(ANN, "running")
    course.task(BOB, "running")
    course.answering = {4322}
    slow, ready = course.wait(ANN, BOB, timeout=60)
    assert isinstance(slow.error, SlowSeat)
    assert "did not answer within 60 s" in message(slow)
    assert ready.ok
    assert course.clock.now() == 60


def test_an_overdue_seat_that_the_engine_refuses_is_reported_with_the_cause(course: Course) -> None:
    course.task(ANN, "pending", error="no suitable node (insufficient resources on 1 node)", container=False)
    (outcome,) = course.wait(ANN, timeout=5)
    assert "not enough unreserved memory" in message(outcome)


def test_a_seat_that_failed_three_times_is_given_up_with_its_last_words(course: Course) -> None:
    course.api.logs_["c1"] = b"Traceback\n  \nImportError: numpy\n"
    for seconds in (1, 2, 3):
        course.at(seconds, lambda: course.task(ANN, "failed", error="task: non-zero exit (1)"))
    course.task(BOB, "running")
    course.at(10, lambda: course.answering.add(4322))
    hopeless, ready = course.wait(ANN, BOB)
    assert "non-zero exit (1)" in message(hopeless)
    assert "its last words: Traceback / ImportError: numpy)" in message(hopeless)
    assert ready.ok
    assert course.clock.now() == 10  # the deadline is not waited for


def test_a_swarm_that_remembers_two_failures_hides_no_third(course: Course) -> None:
    def fails() -> None:
        course.api.tasks_[:] = course.api.tasks_[-1:]
        course.task(ANN, "failed", error="task: non-zero exit (1)")

    for seconds in (1, 5, 9):
        course.at(seconds, fails)
    (hopeless,) = course.wait(ANN)
    assert "non-zero exit (1)" in message(hopeless)
    assert course.clock.now() < 15


def test_a_seat_that_failed_twice_may_still_come_up(course: Course) -> None:
    for seconds in (1, 2):
        course.at(seconds, lambda: course.task(ANN, "failed", error="task: non-zero exit (1)"))
    course.at(8, lambda: course.comes_up(ANN))
    assert course.wait(ANN)[0].ok


def test_failures_from_before_are_not_held_against_a_seat(course: Course) -> None:
    for _ in range(5):
        course.task(ANN, "failed", error="task: non-zero exit (1)")
    course.at(5, lambda: course.comes_up(ANN))
    assert course.wait(ANN)[0].ok


def test_a_seat_may_be_without_a_place_for_a_while(course: Course) -> None:
    refused = 'no suitable node (host-mode port "4321" already in use on 1 node)'
    course.task(ANN, "pending", error=refused, container=False)
    course.at(readiness.UNPLACED - 1, lambda: course.comes_up(ANN))
    course.at(readiness.UNPLACED - 1, lambda: course.api.tasks_.pop(0))
    assert course.wait(ANN)[0].ok


def test_a_seat_that_stays_without_a_place_is_given_up(course: Course) -> None:
    refused = 'no suitable node (host-mode port "4321" already in use on 1 node)'
    course.task(ANN, "pending", error=refused, container=False)
    (outcome,) = course.wait(ANN)
    assert "port 4321 is taken" in message(outcome)
    assert course.clock.now() == readiness.UNPLACED


def test_a_seat_that_is_on_its_way_is_not_given_up_before_the_deadline(course: Course) -> None:
    course.task(ANN, "pending", container=False)
    (outcome,) = course.wait(ANN, timeout=60)
    assert isinstance(outcome.error, SlowSeat)
    assert course.clock.now() == 60


def test_an_older_failure_is_not_the_cause_of_a_slow_start(course: Course) -> None:
    course.at(1, lambda: course.task(ANN, "failed", error="task: non-zero exit (1)"))
    course.at(2, lambda: course.task(ANN, "running"))
    assert isinstance(course.wait(ANN)[0].error, SlowSeat)


def test_the_log_of_a_container_that_is_gone_is_done_without(course: Course) -> None:
    for _ in range(3):
        course.at(1, lambda: course.task(ANN, "rejected", error="invalid mount"))
    assert "invalid mount" in message(course.wait(ANN)[0])


def test_no_seats_are_ready_at_once(course: Course) -> None:
    assert course.wait() == ()


def test_an_engine_that_goes_away_ends_the_wait(course: Course, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(filters: object) -> list[Json]:
        raise api_error(500, "the engine is going down")

    monkeypatch.setattr(course.api, "tasks", gone)
    with pytest.raises(EngineError, match="going down"):
        course.wait(ANN)


# --- as they are now -------------------------------------------------------------------------


def running(seat: Seat, node_id: str = "node1") -> RunningSeat:
    service = f"service{seat.student.id}"
    machine = {"node1": "m1", "node2": "m2"}.get(node_id, "")
    return RunningSeat(seat.student, Place(machine, seat.place.port), service, service, node_id, 1, {})


def state(course: Course, seat: Seat = ANN, node_id: str = "node1") -> SeatState:
    (found,) = seat_states(
        course.engine,
        [running(seat, node_id)],
        Addresses({"m1": "192.0.2.1", "m2": "192.0.2.2"}, bytes(32)),
        {"m1": course.engine},
    )
    return found


def made_now(course: Course) -> None:
    for task in course.api.tasks_:
        task["CreatedAt"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.123456789Z")


def test_a_seat_that_answers_is_ready_whatever_was_before(course: Course) -> None:
    for _ in range(3):
        course.task(ANN, "failed", error="exit (1)")
    course.answering = {4321}
    assert state(course) == SeatState("ready", restarts=3)


def test_containers_that_ended_by_themselves_are_counted_and_no_others(course: Course) -> None:
    for before in ("failed", "complete", "rejected", "shutdown", "orphaned"):
        course.task(ANN, before)
    course.task(ANN, "running")
    course.answering = {4321}
    assert state(course).restarts == 3


def test_what_a_manager_said_before_is_enough_to_ask_the_seats(course: Course) -> None:
    course.task(ANN, "failed")
    tasks = all_tasks(course.engine)
    course.api.go_down()
    course.answering = {4321}
    (found,) = states_by(tasks, [running(ANN)], ADDRESSES, {"m1": course.engine})
    assert found == SeatState("ready", restarts=1)


def test_a_young_seat_that_does_not_answer_is_starting(course: Course) -> None:
    course.task(ANN, "running")
    made_now(course)
    assert state(course) == SeatState("starting")


@pytest.mark.parametrize("now", ["running", "pending"])
def test_containers_that_ended_well_are_not_held_against_a_starting_seat(course: Course, now: str) -> None:
    for _ in range(3):
        course.task(ANN, "shutdown")
    course.task(ANN, now, container=now == "running")
    made_now(course)
    assert state(course) == SeatState("starting")


def cause(found: SeatState) -> str:
    assert found.state == "failed"
    assert found.cause
    return found.cause.message


def test_an_old_seat_that_does_not_answer_has_failed(course: Course) -> None:
    course.task(ANN, "running")
    assert "does not answer" in cause(state(course))


def test_a_seat_that_failed_once_and_starts_again_is_starting(course: Course) -> None:
    course.task(ANN, "failed", error="task: non-zero exit (1)")
    course.task(ANN, "running")
    made_now(course)
    assert state(course).state == "starting"


def test_what_an_engine_that_restarted_misses_is_no_failure_of_the_server(course: Course) -> None:
    for _ in range(3):
        course.task(ANN, "failed", error="No such container: bio-ann-lee-0a1b2c3d4e.1.ygb04b1y23gu10je35vgettps")
    course.task(ANN, "running")
    made_now(course)
    assert (state(course).state, state(course).restarts) == ("starting", 3)


def test_a_seat_that_failed_again_and_again_has_failed_with_its_cause(course: Course) -> None:
    for _ in range(2):
        course.task(ANN, "failed", error="task: non-zero exit (137)")
    made_now(course)
    assert "137" in cause(state(course))


def test_a_seat_without_a_place_has_failed_with_its_cause(course: Course) -> None:
    course.task(ANN, "pending", error="no suitable node (insufficient resources on 1 node)", container=False)
    made_now(course)
    assert "not enough unreserved memory" in cause(state(course))


def test_a_seat_without_a_task_has_failed(course: Course) -> None:
    assert "no container" in cause(state(course))


def test_a_seat_on_a_machine_that_is_gone_has_failed_and_nobody_is_asked(course: Course) -> None:
    assert "gone-node" in cause(state(course, node_id="gone-node"))
    assert course.asked == []


def test_a_seat_on_a_lost_machine_has_failed_and_nobody_is_asked(course: Course) -> None:
    course.task(ANN, "running")
    course.answering = {4321}
    assert "machine is lost" in cause(state(course, node_id="node2"))
    assert course.asked == []


def test_a_container_that_stays_without_its_port_is_replaced_once(course: Course) -> None:
    course.task(ANN, "running")
    course.lose_port(ANN)
    assert course.wait(ANN) == (Outcome("Ann Lee", "ready"),)
    assert course.restarted == ["1"]
    assert course.clock.now() >= CLOSED


def test_one_that_gets_its_port_a_moment_later_is_left_alone(course: Course) -> None:
    course.task(ANN, "running")
    course.lose_port(ANN)
    course.at(CLOSED - 1, lambda: course.api.tasks_[-1]["Status"].pop("PortStatus"))
    course.at(CLOSED + 3, lambda: course.answering.add(4321))
    assert course.wait(ANN) == (Outcome("Ann Lee", "ready"),)
    assert course.restarted == []


def test_one_that_can_not_be_replaced_is_reported_and_the_others_go_on(course: Course) -> None:
    course.refuses = True
    course.task(ANN, "running")
    course.lose_port(ANN)
    course.at(9, lambda: course.comes_up(BOB))
    failed, ready = course.wait(ANN, BOB)
    assert message(failed) == "Ann Lee (m1:4321): its container has no port. m1: no answer"
    assert ready == Outcome("Bob Ray", "ready")


def test_a_seat_without_its_port_has_failed(course: Course) -> None:
    course.task(ANN, "running")
    course.lose_port(ANN)
    (state,) = seat_states(course.engine, [running(ANN)], ADDRESSES, {"m1": course.engine})
    assert state.state == "failed" and "it has no port" in str(state.cause)


def test_the_last_words_are_asked_of_the_machine_that_the_seat_is_on(course: Course) -> None:
    course.api.logs_["c1"] = b"of another machine\n"
    for seconds in (1, 2, 3):
        course.at(seconds, lambda: course.task(ANN, "failed", error="task: non-zero exit (1)"))
    change = Change("created", "service1", NEW)
    starter = Starter(Pace(), course.restart)
    (outcome,) = wait_ready(
        course.engine, [(ANN, change)], ADDRESSES, starter=starter, engines={}, timeout=100, clock=course.clock
    ).values()
    assert "last words" not in message(outcome)


def test_states_come_in_the_order_of_the_seats(course: Course) -> None:
    course.task(BOB, "running")
    course.answering = {4322}
    seats = [running(ANN), running(BOB)]
    states = seat_states(course.engine, seats, ADDRESSES, {"m1": course.engine})
    assert [found.state for found in states] == ["failed", "ready"]
