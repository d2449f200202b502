"""The values that are passed between stages. All are frozen: a stage makes new ones."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, Literal, TypeVar, cast

T = TypeVar("T", covariant=True)

Say = Callable[[str], None]  # shows a message to the user
OnOutput = Callable[[bytes], None]  # receives a command's output while it runs


@dataclass(frozen=True)
class Student:
    """A line of the roster. `id` is unique; what must stay the same during a course depends on it."""

    id: str
    name: str
    surname: str = ""
    email: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.name} {self.surname}".strip()


@dataclass(frozen=True)
class Machine:
    """A host with a Docker Engine. `address` is the one in the URLs of its seats."""

    name: str
    address: str


class MachineState(enum.Enum):
    """The state of a machine, as far as it can be determined without its engine."""

    COMING = "coming"
    """It is to be made, or has not booted for the first time yet."""
    OFF = "off"
    """It was set up for the course, and is shut off or is booting."""
    BARE = "bare"
    """It is up. It has no engine, or one that is not set up for the course."""
    STOPPED = "stopped"
    """It is up and was set up for the course, but its engine is not running."""
    SERVING = "serving"
    """Its engine is running for the course."""

    @property
    def needs_boot(self) -> bool:
        return self in (MachineState.COMING, MachineState.OFF)

    @property
    def is_asleep(self) -> bool:
        """Whether it may have seats and images that can't be listed before it is started."""
        return self in (MachineState.OFF, MachineState.STOPPED)


@dataclass(frozen=True)
class Survey:
    """The facts about a machine that are read without its engine. Sizes are in bytes; None: unknown to the driver.

    `address` is the one that the other machines of the course use. `networks` are those that the machine is in (such
    as 192.0.2.0/24), `addresses` are all of its own addresses.
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
    """The kind of machine that a driver makes: cores, and the memory in bytes that is available for seats."""

    name: str
    cpus: int
    memory: int


@dataclass(frozen=True)
class Demand:
    """A demand on a quota: `need` more of a resource of which `used` are in use. `limit` None: unlimited."""

    resource: str
    need: int
    used: int
    limit: int | None

    @property
    def is_met(self) -> bool:
        return self.limit is None or self.need == 0 or self.used + self.need <= self.limit


@dataclass(frozen=True)
class Order:
    """The machines to make, what they need of the quota, and how many would fit. Nothing of it exists yet.

    `quota` is the name of the quota; `remedy` says what to do if it is too small.
    """

    surveys: tuple[Survey, ...] = ()
    demands: tuple[Demand, ...] = ()
    fits: int = 0
    quota: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Node:
    """A machine as its engine describes it: cores, memory in bytes, and what is in use.

    `id` is that of the Swarm node; empty: the engine is in no swarm. `taken_ports` and `taken_memory` (bytes) are
    used by something that is not part of this course; `own_ports` by containers of the course, including those whose
    service was just removed. `has_quotas`: it can limit volumes.
    """

    machine: Machine
    id: str
    cpus: int
    memory: int
    taken_ports: frozenset[int] = frozenset()
    taken_memory: int = 0
    own_ports: frozenset[int] = frozenset()
    has_quotas: bool = False


@dataclass(frozen=True)
class Place:
    """The place of a seat: a machine's name and a port on it."""

    machine: str
    port: int


@dataclass(frozen=True)
class Seat:
    """One student's server: the student and the place."""

    student: Student
    place: Place


@dataclass(frozen=True)
class Outcome(Generic[T]):
    """The result for one target: a value, or the error with which it failed."""

    target: str
    value: T | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        return self.error is None

    def get(self) -> T:
        """The value. Raises the error if the target failed."""
        if self.error is not None:
            raise self.error
        return cast(T, self.value)

    @property
    def problem(self) -> str:
        """The failure as text: target and cause."""
        text = str(self.error)
        return text if text.startswith(self.target) else f"{self.target}: {text}"


class Outcomes(tuple[Outcome[T], ...]):
    """The results for several targets, in the order of the input."""

    @property
    def values(self) -> dict[str, T]:
        """The values of the targets that succeeded, by target."""
        return {outcome.target: outcome.get() for outcome in self if outcome.ok}

    @property
    def errors(self) -> dict[str, Exception]:
        """The errors of the targets that failed, by target."""
        return {outcome.target: outcome.error for outcome in self if outcome.error}

    @property
    def failed(self) -> Outcomes[T]:
        return Outcomes(outcome for outcome in self if not outcome.ok)

    @property
    def problems(self) -> tuple[str, ...]:
        """The failures as text: target and cause of each."""
        return tuple(outcome.problem for outcome in self.failed)

    def get(self) -> list[T]:
        """All values. Raises the first error if any target failed."""
        return [outcome.get() for outcome in self]


def failures(errors: Mapping[str, Exception]) -> Outcomes[object]:
    """What came of targets that failed, by target."""
    return Outcomes(Outcome[object](target, error=error) for target, error in errors.items())


@dataclass(frozen=True)
class CommandResult:
    """The result of a command that has ended: exit code and output."""

    exit_code: int
    stdout: str
    stderr: str

    def last_words(self, lines: int = 1) -> str:
        """The last lines on standard error, or if that is empty on standard output, as one line."""
        return last_lines(self.stderr, lines) or last_lines(self.stdout, lines) or "no reason given"


MOST_OUTPUT = 2**20  # bytes of a stream that are kept of what a user's command prints


class Printed:
    """What a command prints on one stream: the first `most` bytes of it are kept."""

    def __init__(self, most: int = MOST_OUTPUT) -> None:
        self._most = most
        self._kept = bytearray()
        self.is_cut = False

    def add(self, piece: bytes) -> None:
        room = self._most - len(self._kept)
        self._kept += piece[:room]
        self.is_cut = self.is_cut or len(piece) > room

    def text(self) -> str:
        return self._kept.decode(errors="replace")

    @property
    def limit(self) -> str:
        return f"cut off after {self._most >> 20} MiB"


def command_result(exit_code: int, out: Printed, err: Printed, note: str = "") -> CommandResult:
    """The result of a command, with what was not kept of its output, and a note, as last lines on standard error."""
    cut = [f"{name}: {stream.limit}" for name, stream in (("stdout", out), ("stderr", err)) if stream.is_cut]
    stderr = err.text()
    if (notes := [*cut, *([note] if note else [])]) and stderr and not stderr.endswith("\n"):
        stderr += "\n"
    return CommandResult(exit_code, out.text(), stderr + "".join(f"{line}\n" for line in notes))


def last_lines(text: str, count: int = 1) -> str:
    """The last lines of a text, without blank ones, as one line."""
    return " / ".join([line.strip() for line in text.splitlines() if line.strip()][-count:])


@dataclass(frozen=True)
class Finding:
    """What `doctor` found of one thing that a launch needs. `remedy`: what to do; empty where all is well.

    `state`: `ok`; `warning`, with which a launch goes on; `wrong`, with which it stops or does a part only; `unknown`,
    because it can be seen only once something else is right.
    """

    check: str
    state: Literal["ok", "warning", "wrong", "unknown"]
    finding: str
    remedy: str = ""


@dataclass(frozen=True)
class WorkVolume:
    """A volume of a cloud for the students' work of one machine. It survives the machine.

    `is_used`: there may be work on it. `is_attached`: a machine has it now, so that the work can be collected.
    """

    machine: str
    name: str
    is_used: bool
    is_attached: bool


TIMED_OUT = 124  # exit code of a command that exceeded its time limit, as in timeout(1)
NOT_STARTED = 127  # exit code of a program that can't be started, as in sh(1)
UNREACHED = 255  # exit code for a target on which the command did not run, as in ssh(1)


@dataclass(frozen=True)
class Row:
    """A row of the table of seats. `password` is None where it is not shown."""

    student: str
    email: str
    url: str
    host: str
    port: int
    node: str
    state: str
    password: str | None = None


@dataclass(frozen=True)
class SeatDetails:
    """How a seat is doing. None: it is not known.

    `memory`: bytes, of `limit`. `cpu`: cores in use. `kernels` and `last_activity` (UTC) are what its server says.
    `restarts`: how often it has ended by itself, as far as Swarm remembers.
    """

    memory: int | None = None
    limit: int | None = None
    cpu: float | None = None
    kernels: int | None = None
    last_activity: datetime | None = None
    restarts: int = 0


@dataclass(frozen=True)
class MachineDetails:
    """What the seats of a machine take of it: cores, and memory in bytes; and its free disk in bytes. None: unknown."""

    cpu: float | None = None
    memory: int | None = None
    free_disk: int | None = None
