from __future__ import annotations

import sys

from cloudscale.cluster.look import look
from cloudscale.course.session import Session
from cloudscale.course.settings import Common, read_settings
from cloudscale.progress import Lines
from tests.unit.fakes import FakeDriver
from tests.unit.seats.test_services import ANN, Swarm


def session(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> Session:
    settings = read_settings({"driver": "local", "course": "bio"})
    return Session(settings, Common(only=only, skip=skip), Lines(sys.stderr), ask=lambda question: None)


def test_a_seat_on_a_machine_that_is_gone_has_no_machine() -> None:
    swarm = Swarm()
    swarm.converge([ANN])
    swarm.api.rename_node("another")
    cluster = look(session(), FakeDriver(swarm.api))
    assert cluster.seats[0].place.machine == ""
