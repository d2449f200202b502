"""Kills on the lab's real OpenStack: while machines are made, and while they are deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.cloud.classroom import Project, Trainer, cloud_tool
from tests.lab.cloud import LabCloud
from tests.lab.cloud_seed import DOCKER
from tests.lab.engine import LabEngine
from tests.lab.running import Running, killed
from tests.soak.on_hosts import SEAT, called
from tests.soak.table import Row, Table

COURSE, MARK = "course", "cloudscale:course"
STUDENTS = ("1;Marty;McFly;", "2;Emmett;Brown;", "3;Jennifer;O'Parker;")  # more than one machine takes
LATE = "4;Late;Comer;"
Things = Mapping[str, Sequence[Any]]


@dataclass(frozen=True)
class Moment:
    """A moment in a command: by what the project has then, or by what the command has printed."""

    name: str
    things: Callable[[Things], object] | None = None
    text: str = ""


def count(kind: str, number: int) -> Callable[[Things], bool]:
    return lambda things: len(things.get(kind, ())) >= number


def gone(kind: str, left: int) -> Callable[[Things], bool]:
    return lambda things: len(things.get(kind, ())) <= left


# in each round one of each
LAUNCHES = (
    Moment("a security group is made", count("security groups", 1)),
    Moment("a port is made", count("ports", 1)),
    Moment("a server is made", count("servers", 1)),
    Moment("an engine is set up", text="setting up its engine"),
)
GROWING = (
    Moment("the plan is printed", text="Plan:"),
    Moment("the machines are ready", text="3 of 3 ready"),
    Moment("the seats start", text="Seats ready"),
    Moment("a third server is made", count("servers", 3)),
)
RESETS = (
    Moment("it deletes", text="Deleting"),
    Moment("a server is gone", gone("servers", 2)),
    Moment("the servers are gone", gone("servers", 0)),
    Moment("the floating IPs are gone", gone("floating IPs", 0)),
)


class CloudKills:
    def __init__(self, trainer: Trainer, project: Project, table: Table) -> None:
        self.trainer = trainer
        self.project = project
        self.table = table
        self.known: dict[str, Mapping[str, Any]] = {}
        self.before = self.ids()

    def ids(self) -> dict[str, set[str]]:
        return {kind: set(things) for kind, things in self.project.look().items()}

    def launch(self, *lines: str) -> tuple[str, ...]:
        self.trainer.write(*lines)
        return ("themachine", *self.trainer.launch_flags, "--format", "json", "--course", COURSE)

    def cut(self, what: str, moment: Moment, words: Sequence[str]) -> None:
        def reached(run: Running) -> object:
            return moment.things(self.project.marked(MARK)) if moment.things else moment.text in run.printed

        came = killed(self.trainer.tool, *words, when=reached)
        found = self.project.marked(MARK)
        stood = ", ".join(f"{len(things)} {kind}" for kind, things in found.items()) or "nothing"
        _, problems = called(self.trainer.tool, "status", "--course", COURSE)
        problems += [] if came else ["it ended before"]
        begun = time.monotonic()
        problems += self.finished(words)
        self.table.add(Row(what, moment.name, stood, time.monotonic() - begun, tuple(problems)))

    def finished(self, words: Sequence[str]) -> list[str]:
        done, problems = called(self.trainer.tool, *words)
        if done.code:
            return [*problems, f"the next run ended with {done.code}: {' '.join(done.err.split())[-300:]}"]
        return [*problems, *(self.left() if words[0] == "driver_reset" else self.compare(done.rows))]

    def compare(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        problems = [f"{row['student']} is {row['state']}" for row in rows if row["state"] != "ready"]
        for row in rows:
            earlier = self.known.setdefault(row["student"], row)
            problems += [f"{row['student']}: another {key}" for key in SEAT if earlier[key] != row[key]]
        found = self.project.marked(MARK)
        for kind in ("ports", "floating IPs"):  # as many as servers: nothing was made twice
            if len(found[kind]) != len(found["servers"]):
                problems.append(f"{len(found[kind])} {kind} for {len(found['servers'])} servers")
        return problems

    def left(self) -> list[str]:
        self.known.clear()
        now = self.ids()
        problems = [f"left: {kind}" for kind in now if now[kind] != self.before.get(kind, set())]
        return [*problems, *(["the course's folder is left"] if (self.trainer.tool.home / COURSE).exists() else [])]

    def round(self, number: int) -> None:
        self.cut("themachine, from nothing", LAUNCHES[number], self.launch(*STUDENTS))
        flags = ("--nodes", "3") if number else ()
        self.cut("themachine, more students", GROWING[number if number else 0], (*self.launch(*STUDENTS, LATE), *flags))
        self.cut("driver_reset", RESETS[number], ("driver_reset", "--yes", "--course", COURSE))


def kill_on_cloud(cloud: LabCloud, engine: LabEngine, image: str, folder: Path, table: Table) -> None:
    tool = cloud_tool(cloud, engine, folder, cloud.clouds_yaml, {"IMAGE": DOCKER})
    trainer = Trainer(tool, cloud, folder, COURSE, "--image", image)
    kills = CloudKills(trainer, Project(cloud), table)
    table.head("Killed on an OpenStack", "command", "killed when", "what stood", "next run")
    for number in range(len(LAUNCHES)):
        kills.round(number)
