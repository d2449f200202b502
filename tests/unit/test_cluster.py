from __future__ import annotations

import sys

import pytest

from cloudscale.cluster import Session, look
from cloudscale.errors import SwarmError
from cloudscale.progress import Lines
from cloudscale.settings import Common, read_settings
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeDriver
from tests.unit.test_spawner import ANN, BOB, Swarm


def session(only: tuple[str, ...] = (), skip: tuple[str, ...] = ()) -> Session:
    settings = read_settings({"driver": "local", "course": "bio"})
    return Session(settings, Common(only=only, skip=skip), Lines(sys.stderr), ask=lambda question: None)


def test_a_session_knows_its_course_and_what_is_meant() -> None:
    assert session().course.folder.parts[-2:] == ("bio", "local")
    assert session(("a",), ("b",)).selection.only == ("a",)
    assert session(("a",), ("b",)).selection.skip == ("b",)


def test_an_engine_in_no_swarm_is_looked_at_without_changing_it() -> None:
    api = FakeApi(in_swarm=False)
    cluster = look(session(), FakeDriver(api))
    assert not cluster.in_swarm
    assert cluster.seats == ()
    assert cluster.hosts == {"m1": "192.0.2.1"}
    assert [machine.name for machine in cluster.machines] == ["m1"]
    assert api.changes == []


def test_the_seats_of_the_course_are_read_back_with_all_their_names() -> None:
    swarm = Swarm()
    swarm.converge([ANN, BOB])
    cluster = look(session(), FakeDriver(swarm.api))
    ann = cluster.seats[0]
    assert len(cluster.seats) == 2
    assert cluster.machine_of(ann) == "m1"
    assert cluster.names_of(ann) == (ann.name, "1", "Ann Lee", "m1")
    assert cluster.nodes["m1"].id == "node1"


def test_a_seat_on_a_machine_that_is_gone_has_no_machine() -> None:
    swarm = Swarm()
    swarm.converge([ANN])
    swarm.api.node_id = "another"
    cluster = look(session(), FakeDriver(swarm.api))
    assert cluster.machine_of(cluster.seats[0]) == ""


def test_somebody_elses_worker_is_refused() -> None:
    api = FakeApi()
    api.manages = False
    with pytest.raises(SwarmError):
        look(session(), FakeDriver(api))
