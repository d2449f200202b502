"""Waiting until seats answer, and why one does not."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError, EngineError, SeatError, SlowSeat
from cloudscale.fanout import WIDTH, fan_out
from cloudscale.model import Outcome, Seat, last_lines
from cloudscale.outside import formed
from cloudscale.seats.address import Addresses
from cloudscale.seats.pacing import Pace
from cloudscale.seats.services import Change, RunningSeat
from cloudscale.seats.spec import covers
from cloudscale.waiting import Clock, SystemClock, poll

Task = Mapping[str, Any]
TASK = {  # what is needed of an engine's answer
    "ID": str,
    "ServiceID": str,
    "CreatedAt": str,
    "DesiredState": str,
    "Spec": dict,
    "Status": {"State": str, "Err?": str, "ContainerStatus?": {"ContainerID?": str}},
}

INTERVAL = 0.5  # seconds between two looks at all seats, at least
ASKED = 100  # seats that are asked in a second, on average: with `local`, what asks takes its time from what starts
TRIES = 3  # failed starts of one seat, one after another, that make waiting on useless
FAILED = 2  # starts that failed, of those that the swarm remembers: the server does not stay up
STARTING = 600  # seconds for which a server that does not answer counts as starting
FEW = 100  # services whose tasks are asked for by their names, which an address of a request has room for
CLOSED = 5  # seconds that a container may be without its port
UNPLACED = 15  # seconds that the scheduler may find no place: a port is free only when its last holder is gone


@dataclass(frozen=True)
class Starter:
    """What starts seats during the wait: new ones when it is their turn, and one whose container has no port again."""

    pace: Pace
    restart: Callable[[Seat, Change], Change]


def wait_ready(
    manager: Engine,
    changes: Sequence[tuple[Seat, Change]],
    addresses: Addresses,
    *,
    starter: Starter,
    engines: Mapping[str, Engine],
    timeout: float,
    ready: Callable[[int], None] = lambda count: None,
    clock: Clock | None = None,
) -> dict[str, Outcome[str]]:
    """Waits until every seat answers over HTTP, and starts the new ones; what became of each, by student's id.

    `changes`: the seats that are there. A seat that can't come up any more is given up at once, with its cause; the
    others go on. `engines`: by machine; `timeout`: in seconds. `ready` gets the number of those that answer so far.
    """
    return _Wait(manager, changes, addresses, engines, clock or SystemClock(), starter).run(timeout, ready)


class _Wait:
    def __init__(
        self,
        manager: Engine,
        changes: Sequence[tuple[Seat, Change]],
        addresses: Addresses,
        engines: Mapping[str, Engine],
        clock: Clock,
        starter: Starter,
    ) -> None:
        self._starter = starter
        self._pace = starter.pace
        self._closed_since: dict[str, float] = {}
        self._manager = manager
        self._addresses = addresses
        self._engines = engines
        self._clock = clock
        self._results: dict[str, Outcome[str]] = {}
        self._pending = list(changes)
        self._unplaced_since: dict[str, float] = {}
        self._failures: dict[str, set[str]] = {}  # by service; the swarm forgets the first of them

    def run(self, timeout: float, ready: Callable[[int], None]) -> dict[str, Outcome[str]]:
        # failures from before this run are not held against a seat
        earlier = {task["ID"] for tasks in all_tasks(self._manager).values() for task in tasks if _failed(task)}

        def look() -> bool:
            tasks = self._tasks()
            self._ask(tasks)
            self._reopen(tasks)
            for seat, change in self._pending:
                fresh = [task for task in tasks.get(change.service_id, []) if task["ID"] not in earlier]
                if seat.student.id not in self._results and (task := self._hopeless(fresh)):
                    self._settle(seat, _cause(self._engines, seat, task))
            self._pending = [item for item in self._pending if item[0].student.id not in self._results]
            ready(sum(result.ok for result in self._results.values()))
            self._start()
            return not (self._pending or self._pace.coming)

        self._start()
        if not poll(look, timeout=timeout, interval=self._interval, clock=self._clock):
            self._take(self._pace.all(self._clock.now()))
            tasks = self._tasks()
            for seat, change in self._pending:
                self._settle(seat, self._overdue(seat, tasks.get(change.service_id, []), timeout))
        return self._results

    def _start(self) -> None:
        """Starts new seats: those whose turn it is, but all where one has failed, so that all causes are known soon."""
        now = self._clock.now()
        if all(result.ok for result in self._results.values()):
            self._take(self._pace.next([seat for seat, _ in self._pending], now))
        else:
            self._take(self._pace.all(now))

    def _take(self, started: Sequence[tuple[Seat, Outcome[Change]]]) -> None:
        for seat, outcome in started:
            if outcome.ok:
                self._pending.append((seat, outcome.get()))
            else:
                self._results[seat.student.id] = Outcome(outcome.target, error=outcome.error)

    def _tasks(self) -> dict[str, list[Task]]:
        """Of all services that are waited for: an engine takes its time for a list of hundreds.

        Where none is, because all that were started have failed: to see whether the engine still answers.
        """
        services = [change.service_id for _, change in self._pending]
        if not 0 < len(services) <= FEW:
            return all_tasks(self._manager)
        try:
            return all_tasks(self._manager, services)
        except EngineError:  # it knows one of them no longer
            return all_tasks(self._manager)

    def _interval(self) -> float:
        """Looks at many take longer, and there are more of them until all are ready: so that it is not the square."""
        return max(INTERVAL, len(self._pending) / ASKED)

    def _ask(self, tasks: Mapping[str, Sequence[Task]]) -> None:
        """Asks every seat that has a container whether it answers."""
        started = [seat for seat, change in self._pending if _has_container(tasks.get(change.service_id, []), change)]
        answers = fan_out(lambda seat: self._addresses.answers(seat), started, width=2 * WIDTH)
        for seat, answer in zip(started, answers, strict=True):
            if answer.value:
                self._results[seat.student.id] = Outcome(seat.student.full_name, "ready")

    def _reopen(self, tasks: Mapping[str, Sequence[Task]]) -> None:
        """Restarts seats whose container stays without its port, each container once."""
        now = self._clock.now()
        for at, (seat, change) in enumerate(self._pending):
            for task in filter(_is_closed, tasks.get(change.service_id, [])):
                since = self._closed_since.setdefault(task["ID"], now)
                if now - since >= CLOSED:
                    self._closed_since[task["ID"]] = float("inf")
                    try:
                        self._pending[at] = (seat, self._starter.restart(seat, change))
                    except CloudscaleError as error:
                        self._settle(seat, SeatError(f"{_who(seat)}: its container has no port. {error}"))

    def _settle(self, seat: Seat, error: SeatError) -> None:
        self._results[seat.student.id] = Outcome(seat.student.full_name, error=error)

    def _hopeless(self, fresh: Sequence[Task]) -> Task | None:
        """The task that shows why waiting for its seat is useless, if any."""
        if failed := [task for task in fresh if _failed(task)]:
            known = self._failures.setdefault(failed[0]["ServiceID"], set())
            known.update(task["ID"] for task in failed)
            if len(known) >= TRIES:
                return failed[0]
        now = self._clock.now()
        for task in fresh:
            refused = task["Status"]["State"] == "pending" and task["Status"].get("Err")
            if refused and now - self._unplaced_since.setdefault(task["ID"], now) >= UNPLACED:
                return task
        return None

    def _overdue(self, seat: Seat, tasks: Sequence[Task], timeout: float) -> SeatError:
        for task in tasks[:1]:
            if task["Status"].get("Err"):
                return _cause(self._engines, seat, task)
        return SlowSeat(
            f"{_who(seat)}: the server did not answer within {timeout:.0f} s.",
            "It may still be starting: look with invoke status, or run again with a longer --timeout.",
        )


def all_tasks(manager: Engine, services: Sequence[str] = ()) -> dict[str, list[Task]]:
    """Every service's tasks, newest first, or those of some services, by their ids; one request for the whole swarm.

    Raises EngineError, too where one of these services does not exist.
    """
    filters = {"service": list(services)} if services else None
    with engine_errors(manager.name):
        tasks = formed(manager.api.tasks(filters), [TASK])
    tasks.sort(key=lambda task: str(task["CreatedAt"]), reverse=True)
    grouped: dict[str, list[Task]] = {}
    for task in tasks:
        grouped.setdefault(task["ServiceID"], []).append(task)
    return grouped


def _cause(engines: Mapping[str, Engine], seat: Seat, task: Task) -> SeatError:
    return failure(seat, task["Status"].get("Err") or "", _last_words(engines.get(seat.place.machine), task))


def _last_words(engine: Engine | None, task: Task) -> str:
    """The end of what the container of a failed task wrote; the engine keeps it for a while."""
    container = _container(task)
    if not container or engine is None:
        return ""
    # where the log can't be read, the message goes without it
    with contextlib.suppress(CloudscaleError), engine_errors(engine.name):
        text = engine.api.logs(container, tail=3).decode(errors="replace")
        return last_lines(text, 3)
    return ""


def _container(task: Task) -> str:
    """The id of its container; empty if there is none."""
    return (task["Status"].get("ContainerStatus") or {}).get("ContainerID") or ""


def _failed(task: Task) -> bool:
    """Whether its server did not stay up. An engine that restarts misses those that ran: that is not their fault."""
    is_missing = "no such container" in (task["Status"].get("Err") or "").lower()
    return task["Status"]["State"] in ("failed", "rejected") and not is_missing


def _ended(task: Task) -> bool:
    """Whether it ended by itself; one that was to end is `shutdown`."""
    return task["Status"]["State"] in ("failed", "rejected", "complete")


def _is_closed(task: Task) -> bool:
    """Whether its container runs without its port: Docker 20.10 was seen to forget it while the leader changed."""
    status = task["Status"]
    return (task["DesiredState"], status["State"], status.get("PortStatus")) == ("running", "running", {})


def _has_container(tasks: Sequence[Task], change: Change) -> bool:
    """Whether a container of the wanted form exists: until then, an answer comes from the one before it."""
    return any(
        task["DesiredState"] == "running" and _container(task) and covers(task["Spec"], change.task_template)
        for task in tasks
    )


def _who(seat: Seat) -> str:
    return f"{seat.student.full_name} ({seat.place.machine}:{seat.place.port})"


def failure(seat: Seat, error: str, last_words: str = "") -> SeatError:
    """An engine's or scheduler's message about a task, as cause and remedy in the user's words."""
    who, port, text = _who(seat), seat.place.port, error.lower()
    if "already in use" in text or "already allocated" in text:
        return SeatError(
            f"{who}: port {port} is taken by something else on the machine.",
            f"Stop what holds it (ss -ltnp 'sport = :{port}' shows it) and run again.",
        )
    if "insufficient resources" in text:
        return SeatError(
            f"{who}: the machine has not enough unreserved memory for it.",
            "Lower seat.reserve in the configuration, or use a larger machine.",
        )
    if "no space left" in text:
        return SeatError(f"{who}: the machine's disk is full.", "Make room (docker system df), then run again.")
    if "no such image" in text:
        return SeatError(f"{who}: the image is not on the machine any more.", "Run again: it is fetched again.")
    if "no suitable node" in text:
        return SeatError(f"{who}: its machine takes no containers ({error}).", "Look at: docker node ls.")
    words = f"; its last words: {last_words}" if last_words else ""
    return SeatError(
        f"{who}: the server does not stay up ({error or 'no reason given'}{words}).",
        "Its log: docker service logs; more memory for each seat: seat.memory in the configuration.",
    )


@dataclass(frozen=True)
class SeatState:
    """A seat as its student would find it: `ready`, `starting`, or `failed` with the cause.

    `restarts`: how often it has ended by itself, as far as Swarm remembers (two, in a swarm of the course's own).
    """

    state: str
    cause: SeatError | None = None
    restarts: int = 0


def seat_states(
    manager: Engine,
    seats: Sequence[RunningSeat],
    addresses: Addresses,
    engines: Mapping[str, Engine],
) -> list[SeatState]:
    """The state of every seat now, asked side by side. `engines`: by machine; a lost one has none."""
    return states_by(all_tasks(manager), seats, addresses, engines)


def states_by(
    tasks: Mapping[str, Sequence[Task]],
    seats: Sequence[RunningSeat],
    addresses: Addresses,
    engines: Mapping[str, Engine],
) -> list[SeatState]:
    """The same, with what a manager said of the services' tasks before: see all_tasks."""

    def one(seat: RunningSeat) -> SeatState:
        own = tasks.get(seat.service_id, [])
        return replace(_state(seat, own, addresses, engines), restarts=sum(map(_ended, own)))

    return fan_out(one, seats, name=lambda seat: seat.name).get()


def _state(running: RunningSeat, own: Sequence[Task], addresses: Addresses, engines: Mapping[str, Engine]) -> SeatState:
    machine = running.place.machine
    if machine in engines and addresses.answers(running):
        return SeatState("ready")
    seat = Seat(running.student, replace(running.place, machine=machine or running.node_id))
    if addresses.host(running) and machine not in engines:
        return SeatState("failed", SeatError(f"{_who(seat)}: its machine is lost.", "Bring it back."))
    if not own or _is_closed(own[0]):
        what = "port" if own else "container"
        return SeatState("failed", SeatError(f"{_who(seat)}: it has no {what}.", "Run invoke themachine."))
    failed = [task for task in own if _failed(task)]
    if len(failed) >= FAILED or (own[0]["Status"]["State"] == "pending" and own[0]["Status"].get("Err")):
        return SeatState("failed", _cause(engines, seat, (failed or own)[0]))
    if _age(own[0]) < STARTING:
        return SeatState("starting")
    return SeatState("failed", SeatError(f"{_who(seat)}: the server does not answer.", "Look at its log."))


def _age(task: Task) -> float:
    """The seconds since it was created; none if its date is no date."""
    with contextlib.suppress(ValueError):
        created = datetime.fromisoformat(task["CreatedAt"][:19] + "+00:00")
        return (datetime.now(UTC) - created).total_seconds()
    return 0
