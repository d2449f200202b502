from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from cloudscale.cluster.look import look
from cloudscale.course.settings import SeatSettings
from cloudscale.engines import client as engine
from cloudscale.errors import EngineError, MachineError
from cloudscale.model import Machine, MachineState, Survey
from cloudscale.phases import Phases
from cloudscale.workflow.machines import Ready, bring_up, look_again
from tests.unit.api_schema import Json
from tests.unit.classroom import IMAGE, Class
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

PINNED = "quay.io/jupyter/lab@sha256:aa"
OWN = "cloudscale/pydata:latest"
BUILT: Json = {"Id": "sha256:22"}


def bring(lab: Class) -> Ready:
    session = lab.session()
    surveys = {machine.name: lab.driver.survey(machine) for machine in lab.driver.machines()}
    cluster = look(session, lab.driver, surveys)
    up = bring_up(cluster, [*surveys], session, Phases())
    ready = look_again(cluster, [*surveys], up.values, session)
    return replace(ready, problems=(*up.problems, *ready.problems))


def images(ready: Ready) -> list[str]:
    return [host.image for host in ready.cluster.hosts]


def test_every_machine_is_ready_with_its_engine_and_the_images_name(lab: Class) -> None:
    ready = bring(lab)
    assert (ready.names, ready.problems) == (("m1", "m2", "m3"), ())
    assert images(ready) == [PINNED] * 3
    assert list(ready.cluster.engines.values()) == list(lab.driver.engines.values())
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_twice_is_as_good_as_once(lab: Class) -> None:
    bring(lab)
    assert bring(lab).problems == ()
    assert lab.changes == lab.driver.done == []


def test_all_machines_are_set_up_at_the_same_time(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    meeting, prepare = threading.Barrier(3), lab.driver.prepare

    def together(machine: Machine, seat: SeatSettings) -> Any:
        meeting.wait(30)  # none gets on before all are here
        return prepare(machine, seat)

    monkeypatch.setattr(lab.driver, "prepare", together)
    assert bring(lab).problems == ()


def test_the_others_do_not_wait_for_the_first_machines_image(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    joined = {api.name: threading.Event() for api in lab.apis[1:]}
    for api in lab.apis[1:]:
        join, event = api.join_swarm, joined[api.name]

        def and_tell(*given: Any, join: Any = join, event: threading.Event = event, **named: Any) -> Any:
            done = join(*given, **named)
            event.set()
            return done

        monkeypatch.setattr(api, "join_swarm", and_tell)
    pull = lab.api.pull

    def last(*given: Any, **named: Any) -> Any:
        assert all(event.wait(30) for event in joined.values())
        return pull(*given, **named)

    monkeypatch.setattr(lab.api, "pull", last)
    assert bring(lab).problems == ()


def test_one_that_fails_is_an_outcome_and_stops_nobody(lab: Class) -> None:
    lab.driver.faults["m1"] = MachineError("m1: its engine does not start.")
    ready = bring(lab)
    assert ready.problems == ("m1: its engine does not start.",)
    assert ready.names == ("m2", "m3")


@pytest.mark.parametrize("error", [KeyError("a fault of our own"), EngineError("m1: gone.")])
def test_whatever_the_first_fails_with_nobody_waits_for_it(
    lab: Class, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    prepare = lab.driver.prepare

    def fails(machine: Machine, seat: SeatSettings) -> Any:
        if machine.name == "m1":
            raise error
        return prepare(machine, seat)

    monkeypatch.setattr(lab.driver, "prepare", fails)
    ready = bring(lab)
    (problem,) = ready.problems
    assert problem.startswith("m1: ")
    assert ready.names == ("m2", "m3")


def test_the_swarms_networks_keep_off_those_that_the_machines_are_in(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    survey = lab.driver.survey
    taken = frozenset({"198.18.0.0/15"})
    monkeypatch.setattr(lab.driver, "survey", lambda machine: replace(survey(machine), networks=taken))
    bring(lab)
    assert any("init swarm on 10.0.0.1:2377 with 10.200.0.0/16" in change for change in lab.api.changes)


def test_bytes_on_their_way_are_reported(lab: Class) -> None:
    bring(lab)
    assert lab.said.advances[-1] == (330, 360)


def test_our_own_image_comes_from_the_trainers_engine(lab: Class) -> None:
    lab.image = OWN
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_[OWN] = BUILT
    assert images(bring(lab)) == ["sha256:22"] * 3


def test_where_the_machine_is_the_trainers_computer_itself_nothing_is_sent_to_it(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    def another(timeout: float) -> object:
        raise AssertionError("there is no other engine")

    monkeypatch.setattr(engine, "from_environment", another)
    assert images(bring(bio)) == [PINNED]
    assert f"pull {IMAGE}" in bio.api.changes


def test_the_trainers_engine_is_given_time_for_a_large_image(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    times: list[float] = []

    def client(timeout: float) -> object:
        times.append(timeout)
        trainer = FakeApi(in_swarm=False)
        trainer.images_[OWN] = BUILT
        return fake_engine(trainer).client

    lab.image = OWN
    monkeypatch.setattr(engine, "from_environment", client)
    bring(lab)
    assert len(times) == 1
    assert times[0] >= 600


# --- who creates the swarm -------------------------------------------------------------------


def creator(lab: Class, monkeypatch: pytest.MonkeyPatch, *states: MachineState) -> str:
    """The machine that creates the swarm where there is none, by the states of m1, m2 and m3."""
    survey = lab.driver.survey
    state = dict(zip(lab.driver.apis, states, strict=True))
    lab.driver.bare = {name for name in state if state[name] is MachineState.BARE}

    def in_state(machine: Machine) -> Survey:
        return replace(survey(machine), state=state[machine.name])

    monkeypatch.setattr(lab.driver, "survey", in_state)
    bring(lab)
    (name,) = [api.name for api in lab.apis if any(change.startswith("init swarm") for change in api.changes)]
    return name


@pytest.mark.parametrize(
    ("states", "name"),
    [
        ((MachineState.BARE, MachineState.BARE, MachineState.BARE), "m1"),
        ((MachineState.BARE, MachineState.SERVING, MachineState.SERVING), "m2"),
        ((MachineState.BARE, MachineState.SERVING, MachineState.STOPPED), "m3"),
    ],
)
def test_nobody_waits_for_a_machine_to_be_installed_where_another_can_create_the_swarm(
    lab: Class, monkeypatch: pytest.MonkeyPatch, states: tuple[MachineState, ...], name: str
) -> None:
    assert creator(lab, monkeypatch, *states) == name
