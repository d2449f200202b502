"""The seats of a course on a fake engine."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.course.settings import SeatSettings
from cloudscale.fanout import fan_out
from cloudscale.images.on_engine import NotebookImage
from cloudscale.model import Node, Outcomes, Place, Seat, Student
from cloudscale.seats.services import Change, SeatServices, running_seats
from cloudscale.seats.spec import Template
from tests.unit.api_schema import Json
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

KEY = bytes(range(32))
IMAGE = NotebookImage("jupyter/lab:1", "lab", 1000, 100, "/home/jovyan/work")
TEMPLATE = Template("bio", Passwords(KEY), IMAGE, {"m1": "jupyter/lab@sha256:aa"}, SeatSettings(), 8888, {})
ANN = Seat(Student("1", "Ann", "Lee"), Place("m1", 4321))
BOB = Seat(Student("2", "Bob", "Ray", "bob@example.org"), Place("m1", 4322))


class Swarm:
    """The course bio on a fake engine."""

    def __init__(self, course: str = "bio", api: FakeApi | None = None) -> None:
        self.api = api or FakeApi()
        self.engine = fake_engine(self.api)
        self.course = course
        self.spawner = SeatServices(self.engine, course)
        self.node = Node(self.engine.machine, "node1", 8, 2**34)

    def converge(self, seats: Sequence[Seat], template: Template = TEMPLATE) -> Outcomes[Change]:
        self.api.changes.clear()
        running = running_seats(self.engine, self.course)
        bring = self.spawner.bringing({"m1": self.node}, running, replace(template, course=self.course))
        return fan_out(bring, seats, name=lambda seat: seat.student.full_name)

    @property
    def configuration(self) -> tuple[str, Json]:
        """The secret of the only seat, and what its server reads in it."""
        ((id, _),) = [each for each in self.api.secrets_.items() if naming.STUDENT in each[1]["Spec"]["Labels"]]
        return id, json.loads(self.api.secret_data[id])

    def done(self, seats: Sequence[Seat], template: Template = TEMPLATE) -> list[str]:
        return [outcome.get().what for outcome in self.converge(seats, template)]
