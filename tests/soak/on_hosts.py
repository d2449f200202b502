"""Kills on three real hosts: round by round from bare hosts to a class that grows, and back to bare hosts."""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.hosts.classroom import STUDENTS, docker, generic_tool, snapshot
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHosts
from tests.lab.running import Point, Running, killed
from tests.lab.tool import Result, Tool
from tests.soak.table import Row, Table, say

LAUNCH, SEATS_RESET, RESET = "themachine", "containers_reset", "driver_reset"
PER_ROUND = 7  # kills
FEW = 3  # lines; a command with less of them is as good as over when it prints
AT_ONCE = 3  # students who come later
GATEWAY, NO_GATEWAY = ("--gateway", "path"), ("--gateway", "none")
SEAT = ("url", "host", "port", "password", "node")  # what must not change
MINE = "echo mine >~/work/mine", "cat ~/work/mine"


@dataclass(frozen=True)
class Measured:
    """A whole run of a command, with nothing that disturbs it: its seconds, and the lines that it printed."""

    seconds: float
    lines: int

    def point(self, at: float, *, by_line: bool) -> Point:
        """The point after a part of it, from 0 to 1."""
        by_line = by_line and self.lines >= FEW
        return Point(lines=max(math.ceil(at * self.lines), 1)) if by_line else Point(seconds=at * self.seconds)


@dataclass(frozen=True)
class Place:
    """Where all of this happens: the hosts, the trainer's engine with the image, and a folder."""

    hosts: LabHosts
    engine: LabEngine
    image: str
    folder: Path

    def tool(self, name: str) -> Tool:
        """A trainer's computer, with a folder of secrets of its own."""
        home = self.folder / name
        home.mkdir(exist_ok=True)
        addresses = [f"debian@{host.address}" for host in self.hosts.hosts]
        tool = generic_tool(self.engine, self.hosts, home, self.image, addresses)
        tool.environment["INVOKE_CLOUDSCALE_GATEWAY_TLS"] = "internal"
        return tool

    def traces(self) -> list[Any]:
        """All that a course must not change for good: on the hosts, and on the trainer's engine."""
        client = self.engine.client
        own: list[set[Any]] = [
            {image.id for image in client.images.list()},
            {container.id for container in client.containers.list(all=True)},
            {volume.id for volume in client.volumes.list()},
            {network.id for network in client.networks.list()},
        ]
        return [*own, *(snapshot(host) for host in self.hosts.hosts)]


class Class:
    """The course, and what is known of its seats: what was printed once is to stay."""

    def __init__(self, place: Place, tool: Tool) -> None:
        self.place = place
        self.tool = tool
        self.roster = place.folder / "students.csv"
        self.before = place.traces()
        self.students = 0
        self.known: dict[tuple[str, bool], Mapping[str, Any]] = {}
        self.enrol(len(STUDENTS))

    def enrol(self, more: int) -> None:
        self.students += more
        lines = [f"{number};Student;No {number};" for number in range(1, self.students + 1)]
        self.roster.write_text("\n".join(lines) + "\n")

    def launch(self, *flags: str) -> tuple[str, ...]:
        return (LAUNCH, "--students", str(self.roster), "--format", "json", *flags)

    @property
    def folder(self) -> Path:
        return self.tool.home / "course" / "generic"

    def secrets(self) -> dict[str, bytes]:
        """The files that decide passwords, addresses and who is let in."""
        paths = [self.folder / name for name in ("key", "ca.pem", "ca-key.pem", "gateway-names")]
        return {path.name: path.read_bytes() for path in paths if path.exists()}

    def status(self) -> tuple[str, list[str]]:
        """What stands, in few words, and what is wrong with how it is said."""
        done, problems = called(self.tool, "status", "--format", "json")
        try:
            states = [row["state"] for row in done.rows]
        except ValueError:
            states = []
        serving = sum("/var/lib/cloudscale" in mark for mark in self._marks())
        return f"{serving} hosts marked, {states.count('ready')} of {len(states)} seats ready", problems

    def _marks(self) -> list[str]:
        look = ("find", "/var/lib/cloudscale/course", "-name", "mark.json")
        return [host.run(*look, check=False).stdout for host in self.place.hosts.hosts]

    def compare(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """What has changed of the seats since they were printed first."""
        problems = [f"{row['student']} is {row['state']}" for row in rows if row["state"] != "ready"]
        if len(rows) != self.students:
            problems.append(f"{len(rows)} rows for {self.students} students")
        for row in rows:
            # behind a gateway the address is another one, which is the same each time, too
            earlier = self.known.setdefault((row["student"], row["url"].startswith("https")), row)
            changed = [key for key in SEAT if earlier[key] != row[key]]
            problems += [f"{row['student']}: another {key}" for key in changed]
            password = next(other["password"] for (name, _), other in self.known.items() if name == row["student"])
            if password != row["password"]:
                problems.append(f"{row['student']}: another password than without the gateway")
        return problems

    def finished(self, words: Sequence[str]) -> list[str]:
        """Runs a command, which has to end well, and to leave what it should."""
        done, problems = called(self.tool, *words)
        if done.code:
            problems.append(f"the next run ended with {done.code}: {' '.join(done.err.split())[-1000:]}")
        elif words[0] == LAUNCH:
            problems += self.compare(done.rows)
        elif words[0] == SEATS_RESET:
            running = [docker(host, "ps", "-q", "--filter", "label=cloudscale.student")
                       for host in self.place.hosts.hosts]  # fmt: skip
            problems += ["a seat is left"] if any(running) else []
        else:
            problems += self.left()
        return problems

    def left(self) -> list[str]:
        """What a driver_reset has left."""
        problems = [
            f"left behind or taken away: {difference}"
            for before, after in zip(self.before, self.place.traces(), strict=True)
            for difference in differences(before, after)
        ]
        if (self.tool.home / "course").exists():
            problems.append("the course's folder is left")
        again, more = called(self.tool, RESET, "--yes")
        if (again.code, again.out.strip()) != (0, ""):
            problems.append(f"another driver_reset finds something: {again.out}{again.err}")
        self.known.clear()  # another course, with other secrets
        return [*problems, *more]


def differences(before: Any, after: Any) -> list[str]:
    if isinstance(before, dict):
        return [f"{key}: {sorted(before[key] ^ after[key])[:5]}" for key in before if before[key] != after[key]]
    return [str(sorted(before ^ after)[:5])] if before != after else []


def called(tool: Tool, *words: str) -> tuple[Result, list[str]]:
    """A run with no limit to what may go wrong, and what did."""
    running = Running(tool, *words)
    done = running.result()
    return done, ["a traceback"] if "Traceback" in done.err + done.out else []


class Kills:
    """Kills commands of a class, each at a point of its own, and looks what the next run makes of it."""

    def __init__(self, lesson: Class, table: Table, random: Random) -> None:
        self.lesson = lesson
        self.table = table
        self._random = random
        self._measured: dict[str, Measured] = {}

    def measure(self, what: str, words: Sequence[str]) -> None:
        begun = time.monotonic()
        done, problems = called(self.lesson.tool, *words)
        if done.code or problems:
            raise SystemExit(f"{what} ended with {done.code}, and nobody had killed it: {done.err}")
        if words[0] == LAUNCH:
            self.lesson.compare(done.rows)
        self._measured[what] = Measured(time.monotonic() - begun, done.err.count("\n"))

    def cut(self, what: str, words: Sequence[str], round: int, rounds: int) -> None:
        """One kill: in each round at another part of the command, by its time or by what it prints."""
        at = (round + self._random.random()) / rounds
        point = self._measured[what].point(at, by_line=(round + len(self.table.rows)) % 2 == 0)
        secrets = self.lesson.secrets()
        while not killed(self.lesson.tool, *words, when=point.is_reached):
            say(f"{what} ended before {point}: once more, earlier")
            self._undo(what)
            at /= 2
            point = self._measured[what].point(at, by_line=False)
        stood, problems = self.lesson.status()
        begun = time.monotonic()
        problems += self.lesson.finished(words)
        seconds = time.monotonic() - begun
        if words[0] != RESET and any(self.lesson.secrets().get(name) != secret for name, secret in secrets.items()):
            problems.append("a secret of the course has changed")
        self.table.add(Row(what, f"{100 * at:.0f} %: {point}", stood, seconds, tuple(problems)))

    def _undo(self, what: str) -> None:
        """So that the command has something to do again."""
        if what.startswith((RESET, SEATS_RESET)):
            self._well(self.lesson.launch())
        elif "bare" in what:
            self._well((RESET, "--yes"))
        elif "again" in what:
            self._well((SEATS_RESET, "--yes"))
        else:
            self.lesson.enrol(AT_ONCE)

    def _well(self, words: Sequence[str], what: str = "") -> None:
        begun = time.monotonic()
        if problems := self.lesson.finished(words):
            self.table.add(Row(what or words[0], "not killed", "", time.monotonic() - begun, tuple(problems)))

    def round(self, number: int, of: int) -> None:
        lesson = self.lesson
        gateway = GATEWAY if number % 2 else ()
        lesson.students = 0
        lesson.enrol(len(STUDENTS))
        self.cut("themachine, from bare hosts", lesson.launch(*gateway), number, of)
        called(lesson.tool, "com_containers", MINE[0])
        lesson.enrol(AT_ONCE)
        self.cut("themachine, more students", lesson.launch(*gateway), number, of)
        self.cut("containers_reset", (SEATS_RESET, "--yes"), number, of)
        self.cut("themachine, seats again", lesson.launch(*gateway), number, of)
        lesson.enrol(AT_ONCE)
        toggled = NO_GATEWAY if gateway else GATEWAY
        self.cut("themachine, more and gateway", lesson.launch(*toggled), number, of)
        self.cut("containers_reset", (SEATS_RESET, "--yes"), of - 1 - number, of)
        self._well(lesson.launch(*toggled))
        work, _ = called(lesson.tool, "com_containers", MINE[1], "--format", "json")
        kept = sum(row["stdout"] == "mine\n" for row in work.rows)
        same, _ = called(lesson.tool, *lesson.launch(*toggled))
        problems = [] if kept == len(STUDENTS) else [f"the work of {kept} of {len(STUDENTS)} students is there"]
        problems += [] if "nothing was changed" in same.err else ["another run has something to change"]
        if problems:
            self.table.add(Row("round", "its end", "", 0.0, tuple(problems)))
        self.cut("driver_reset", (RESET, "--yes"), number, of)

    def measure_all(self) -> None:
        """A whole round that nobody disturbs."""
        lesson = self.lesson
        self.measure("themachine, from bare hosts", lesson.launch())
        lesson.enrol(AT_ONCE)
        self.measure("themachine, more students", lesson.launch())
        self.measure("containers_reset", (SEATS_RESET, "--yes"))
        self.measure("themachine, seats again", lesson.launch())
        lesson.enrol(AT_ONCE)
        self.measure("themachine, more and gateway", lesson.launch(*GATEWAY))
        self.measure("driver_reset", (RESET, "--yes"))
        if problems := lesson.left():
            raise SystemExit(f"driver_reset, which nobody had killed: {problems}")


def kill_on_hosts(place: Place, table: Table, count: int, random: Random) -> None:
    """At least `count` kills."""
    rounds = math.ceil(count / PER_ROUND)
    kills = Kills(Class(place, place.tool("kills")), table, random)
    say("Measuring each command once …")
    kills.measure_all()
    table.head("Killed on three hosts", "command", "killed at", "what stood", "next run")
    for number in range(rounds):
        kills.round(number, rounds)
    shutil.rmtree(place.folder / "kills", ignore_errors=True)
