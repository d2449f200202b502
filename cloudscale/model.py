"""The values that pass between the stages. All frozen: a stage makes new ones."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

T = TypeVar("T", covariant=True)

Say = Callable[[str], None]  # told what happens, in words
OnOutput = Callable[[bytes], None]  # told of a command's output as it arrives


@dataclass(frozen=True)
class Student:
    """One line of the roster. `id` is unique in it and decides everything that must stay stable."""

    id: str
    name: str
    surname: str = ""
    email: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.name} {self.surname}".strip()


@dataclass(frozen=True)
class Machine:
    """A host with a Docker Engine. `address` is what students type."""

    name: str
    address: str


class MachineState(enum.Enum):
    """How far a machine is, seen from outside its engine."""

    COMING = "coming"
    """It is to be made, or has not come up yet."""
    OFF = "off"
    """It was set up for the course, and is shut off or boots."""
    BARE = "bare"
    """It is up, and its engine does not serve the course."""
    STOPPED = "stopped"
    """It is up and was set up for the course; its engine does not run."""
    SERVING = "serving"
    """Its engine serves the course."""

    @property
    def needs_boot(self) -> bool:
        return self in (MachineState.COMING, MachineState.OFF)

    @property
    def is_asleep(self) -> bool:
        """Whether there may be seats and images on it, which nobody can see before it is started."""
        return self in (MachineState.OFF, MachineState.STOPPED)


@dataclass(frozen=True)
class Survey:
    """What a machine is, seen from outside its engine. Sizes are bytes, None where the driver can't tell.

    `address` is the one that the course's machines reach each other by; `networks` are those that it is in
    (text of the form 192.0.2.0/24), `addresses` all of its own.
    """

    machine: Machine
    address: str
    state: MachineState = MachineState.SERVING
    cpus: int | None = None
    memory: int | None = None
    free_disk: int | None = None
    held_ports: frozenset[int] = frozenset()
    networks: frozenset[str] = frozenset()
    addresses: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Kind:
    """What each machine will be that a driver makes: cores, and the memory in bytes that is there for seats."""

    name: str
    cpus: int
    memory: int


@dataclass(frozen=True)
class Demand:
    """What is asked of a quota: `need` more of a resource, of which `used` of `limit` are (None: there is no limit)."""

    resource: str
    need: int
    used: int
    limit: int | None

    @property
    def is_met(self) -> bool:
        return self.limit is None or self.need == 0 or self.used + self.need <= self.limit


@dataclass(frozen=True)
class Order:
    """Machines to be made, what they take of the quota, and how many of them fit. Nothing of it is there yet.

    `quota`: what it is called; `remedy`: what is to be done where it is too small.
    """

    surveys: tuple[Survey, ...] = ()
    demands: tuple[Demand, ...] = ()
    fits: int = 0
    quota: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Node:
    """A machine as its engine describes it: cores, memory in bytes, and what others hold of it.

    `id` is the Swarm node's, empty while the engine is in no swarm. `taken_ports` and
    `taken_memory` (bytes) are held by something that is not of this course; `own_ports` by the course's containers,
    among them those whose service was just removed.
    """

    machine: Machine
    id: str
    cpus: int
    memory: int
    taken_ports: frozenset[int] = frozenset()
    taken_memory: int = 0
    own_ports: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Place:
    """Where a student sits: a machine's name and a port on it."""

    machine: str
    port: int


@dataclass(frozen=True)
class Seat:
    """One student's server: who, and where."""

    student: Student
    place: Place


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """What came of one target: a value, or the error that it failed with."""

    target: str
    value: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def get(self) -> T:
        """The value; raises the error of a target that failed."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)

    @property
    def problem(self) -> str:
        """The failure, with its target and cause."""
        text = str(self.error)
        return text if text.startswith(self.target) else f"{self.target}: {text}"


class Outcomes(tuple[Outcome[T], ...]):
    """What came of several targets, in the order in which they were given."""

    @property
    def values(self) -> dict[str, T]:
        """The values of those that succeeded, by target."""
        return {outcome.target: outcome.get() for outcome in self if outcome.ok}

    @property
    def errors(self) -> dict[str, Exception]:
        """The errors of those that failed, by target."""
        return {outcome.target: outcome.error for outcome in self if outcome.error}

    @property
    def failed(self) -> Outcomes[T]:
        return Outcomes(outcome for outcome in self if not outcome.ok)

    @property
    def problems(self) -> tuple[str, ...]:
        """The failures, each with its target and cause."""
        return tuple(outcome.problem for outcome in self.failed)

    def get(self) -> list[T]:
        """All values; raises the first error."""
        return [outcome.get() for outcome in self]


def failures(errors: Mapping[str, Exception]) -> Outcomes[object]:
    """What came of targets that failed, by target."""
    return Outcomes(Outcome[object](target, error=error) for target, error in errors.items())


@dataclass(frozen=True)
class CommandResult:
    """A command that ran to its end: exit code and what it wrote."""

    exit_code: int
    stdout: str
    stderr: str

    def last_words(self, lines: int = 1) -> str:
        """The last lines on standard error, or else on standard output, as one line."""
        return last_lines(self.stderr, lines) or last_lines(self.stdout, lines) or "no reason given"


def last_lines(text: str, count: int = 1) -> str:
    """The last lines of a text that are not blank, as one line."""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])


TIMED_OUT = 124  # exit code of a command past its deadline, as timeout(1) has it
NOT_STARTED = 127  # exit code of a program that can't be started, as sh(1) has it
UNREACHED = 255  # exit code of a target that the command never ran on, as ssh(1) has it


@dataclass(frozen=True)
class Row:
    """A line of the table that the trainer reads. `password` is None where it is not shown."""

    student: str
    email: str
    url: str
    host: str
    port: int
    node: str
    state: str
    password: str | None = None
