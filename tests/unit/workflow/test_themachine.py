"""`themachine` on several machines, from end to end; test_tasks.py has what one machine shows as well."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest

from cloudscale.errors import CloudscaleError, MachineError, RequestError, RosterError
from cloudscale.model import MachineState
from cloudscale.units import GIB
from tests.unit.api_schema import Json, api_error
from tests.unit.classroom import IMAGE, Class, states
from tests.unit.fake_api import FakeApi

OWN = "cloudscale/pydata:latest"
BUILT: Json = {"Id": "sha256:22", "Created": "2025-01-01", "Size": 2 * GIB, "Architecture": "amd64"}

# --- all of them well ------------------------------------------------------------------------


def test_machines_become_one_swarm_and_seats_are_spread(lab: Class) -> None:
    lab.enrol(6)
    report = lab.launch()
    assert report.problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}
    assert Counter(lab.nodes_of(report)) == {"m1": 2, "m2": 2, "m3": 2}
    assert states(lab, report) == {name: ["ready"] * 2 for name in ("m1", "m2", "m3")}
    assert {row["url"].rpartition("/")[0] for row in lab.rows(report)} == {
        f"http://192.0.2.{machine}:{port}" for machine in (1, 2, 3) for port in (4321, 4322)
    }
    assert sorted(lab.driver.done) == ["set up m1", "set up m2", "set up m3"]


def test_the_image_is_pulled_by_all_of_them(lab: Class) -> None:
    lab.launch()
    assert [api.changes.count(f"pull {IMAGE}") for api in lab.apis] == [1, 1, 1]


def test_a_second_run_changes_nothing_and_says_the_same(lab: Class) -> None:
    lab.enrol(6)
    first = lab.launch()
    second = lab.launch()
    assert second == first
    assert lab.changes == []
    assert lab.driver.done == []


def test_a_fourth_machine_joins_as_a_worker_and_takes_newcomers(lab: Class) -> None:
    lab.enrol(3)
    first = lab.rows(lab.launch())
    lab.add_machines("m4")
    lab.enrol(5)
    report = lab.launch()
    assert report.problems == ()
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager", "m4": "worker"}
    rows = lab.rows(report)
    assert rows[:3] == first
    assert "m4" in {row["node"] for row in rows[3:]}


def test_a_class_grows_from_one_machine_to_three(lab: Class) -> None:
    m1, m2, m3 = lab.apis
    lab.machines(m1)
    lab.enrol(2)
    first = lab.rows(lab.launch())
    lab.machines(m1, m2)
    lab.launch()
    assert lab.members() == {"m1": "manager", "m2": "worker"}
    lab.machines(m1, m2, m3)
    report = lab.launch()
    assert lab.rows(report) == first
    assert lab.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}


def test_as_many_machines_are_used_as_are_wanted(lab: Class) -> None:
    lab.enrol(4)
    assert Counter(lab.nodes_of(lab.launch(nodes="2"))) == {"m1": 2, "m2": 2}
    assert lab.members() == {"m1": "manager", "m2": "worker"}
    assert lab.driver.bare == {"m3"}
    # those that are in the swarm already are used all the same
    assert Counter(lab.nodes_of(lab.launch(nodes="1"))) == {"m1": 2, "m2": 2}


def test_more_machines_than_there_are_is_a_wrong_request(lab: Class) -> None:
    with pytest.raises(RequestError):
        lab.launch(nodes="4")
    assert lab.changes == lab.driver.done == []


def test_a_machine_that_is_left_for_later_is_not_called_lost(lab: Class) -> None:
    lab.launch(onlycreate=True)
    rows = {row["machine"]: row["engine"] for row in lab.rows(lab.launch(onlycreate=True, nodes="2"))}
    assert rows == dict.fromkeys(("m1", "m2", "m3"), "swarm manager")


def test_a_machine_that_is_not_wanted_is_not_called_lost(lab: Class) -> None:
    rows = {row["machine"]: row["engine"] for row in lab.rows(lab.launch(onlycreate=True, nodes="2"))}
    assert rows == {"m1": "swarm manager", "m2": "swarm worker", "m3": "not set up"}


def test_a_plan_touches_no_machine(lab: Class) -> None:
    lab.enrol(6)
    plan = json.loads(lab.launch(plan=True).text)
    assert [machine["seats"] for machine in plan["machines"]] == [2, 2, 2]
    assert lab.changes == lab.driver.done == []
    assert lab.driver.bare == {"m1", "m2", "m3"}


def test_onlycreate_makes_machines_and_swarm_and_brings_the_image(lab: Class) -> None:
    rows = lab.rows(lab.launch(onlycreate=True))
    assert [(row["machine"], row["engine"], row["seats"]) for row in rows] == [
        ("m1", "swarm manager", 0),
        ("m2", "swarm manager", 0),
        ("m3", "swarm manager", 0),
    ]
    assert all(IMAGE in api.images_ for api in lab.apis)


def test_ports_that_something_listens_on_are_passed_over_on_each_machine(lab: Class) -> None:
    lab.enrol(6)
    lab.driver.held = frozenset({4321})
    assert {row["port"] for row in lab.rows(lab.launch())} == {4322, 4323}
    first = lab.rows(lab.launch())
    assert {row["port"] for row in first} == {4322, 4323}


def test_a_roster_that_can_not_be_read_is_reported_before_the_driver_asks_for_a_password(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudscale.cluster.driver.load_driver", lambda *given: pytest.fail("the driver was loaded"))
    lab.roster.unlink()
    with pytest.raises(RosterError, match="does not exist"):
        lab.launch()


def test_it_is_said_once_how_the_roster_was_read(lab: Class) -> None:
    lab.roster.write_bytes("Matrikel;Vorname;Nachname;Gruppe\n7;Zoë;Müller;A\n".encode("latin-1"))
    plan = json.loads(lab.launch(plan=True).text)
    assert [seat["student"] for seat in plan["seats"]] == ["Zoë Müller"]
    about = [line for line in lab.said.lines if str(lab.roster) in line]
    assert len(about) == 2
    assert "Windows-1252" in about[0]
    assert "id: Matrikel; name: Vorname; surname: Nachname. Not used: Gruppe." in about[1]


def test_a_header_that_is_not_understood_is_read_as_the_user_says(lab: Class) -> None:
    lab.roster.write_text("Postfach;Wer\nann1;Ann Lee\n")
    with pytest.raises(RosterError, match="line 1: this looks like a header") as raised:
        lab.launch()
    assert "Postfach, Wer" in raised.value.remedy
    assert lab.changes == lab.driver.done == []
    lab.columns = {"id": "Postfach", "name": "Wer"}
    assert [row["student"] for row in lab.rows(lab.launch())] == ["Ann Lee"]


def test_machines_of_one_address_are_one_and_refused(lab: Class) -> None:
    lab.apis[2].address = "10.0.0.1"
    with pytest.raises(RequestError, match="m1 and m3 are the same machine"):
        lab.launch()
    assert lab.changes == lab.driver.done == []


def test_it_is_said_how_long_each_phase_took_with_onlycreate_too(lab: Class) -> None:
    lab.launch(onlycreate=True)
    (line,) = [line for line in lab.said.lines if line.startswith("Time: ")]
    assert all(phase in line for phase in ("login", "engine", "swarm", "image"))


def test_it_is_said_how_long_each_phase_took(lab: Class) -> None:
    lab.launch()
    (line,) = [line for line in lab.said.lines if line.startswith("Time: ")]
    assert all(phase in line for phase in ("login", "engine", "swarm", "image", "seats"))


# --- images ----------------------------------------------------------------------------------


def own_image(lab: Class, **more: Any) -> FakeApi:
    """The trainer's computer, with the project's own image."""
    lab.image = "pydata"
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_[OWN] = {**BUILT, **more}
    return lab.trainer


def loads(lab: Class) -> int:
    return sum(api.changes.count(f"load {OWN}") for api in lab.apis)


def test_our_own_image_is_sent_once_and_passed_on(lab: Class) -> None:
    own_image(lab)
    lab.registry[OWN] = {"Id": "sha256:66"}  # somebody else's of that name
    report = lab.launch()
    assert report.problems == ()
    assert loads(lab) == 1
    assert sum(done.startswith(f"copy {OWN}") for done in lab.driver.done) == 2
    assert not any("pull" in change for change in lab.changes)
    assert {api.images_[OWN]["Id"] for api in lab.apis} == {"sha256:22"}


def test_seats_start_from_the_image_as_their_machine_knows_it(lab: Class) -> None:
    lab.enrol(3)
    lab.registry[IMAGE]["RootFS"] = {"Layers": ["sha256:l1"]}
    # as one that was loaded
    lab.apis[2].images_[IMAGE] = {**lab.registry[IMAGE], "Id": "sha256:99", "RepoDigests": []}
    lab.launch()
    images = {api.name: container["Image"] for api in lab.apis for container in api.containers_}
    assert images == {"m1": "quay.io/jupyter/lab@sha256:aa", "m2": "quay.io/jupyter/lab@sha256:aa", "m3": "sha256:99"}


def test_an_image_that_no_registry_has_is_sent_too(lab: Class) -> None:
    lab.registry.clear()
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_[IMAGE] = BUILT
    assert lab.launch().problems == ()
    assert sum(api.changes.count(f"load {IMAGE}") for api in lab.apis) == 1


def test_a_machine_that_joins_later_gets_it_from_the_others(lab: Class) -> None:
    own_image(lab)
    lab.launch()
    lab.trainer = None  # another trainer, without an engine
    lab.add_machines("m4")
    assert lab.launch().problems == ()
    assert loads(lab) == 0
    (copied,) = [done for done in lab.driver.done if done.startswith("copy")]
    assert copied.endswith("to m4")


def test_an_image_that_nobody_has_is_reported_with_the_way_to_build_it(lab: Class) -> None:
    lab.image = "pydata"
    with pytest.raises(CloudscaleError) as raised:
        lab.launch()
    assert "invoke image_build" in str(raised.value)


def test_an_image_that_is_nowhere_is_reported_before_anything_is_made(lab: Class) -> None:
    lab.image = "spark"
    for plan in (True, False):
        with pytest.raises(RequestError, match="The image spark is not built yet") as raised:
            lab.launch(plan=plan)
        assert "invoke image_build spark" in raised.value.remedy
        assert lab.changes == [] and lab.driver.done == []


def test_a_stopped_machine_may_have_it_still(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    own_image(lab)
    lab.launch()
    lab.trainer = None
    survey = lab.driver.survey
    monkeypatch.setattr(lab.driver, "survey", lambda m: replace(survey(m), state=MachineState.STOPPED))
    assert lab.launch().problems == ()


def test_the_short_name_of_a_trainers_own_image_means_it_also_where_only_a_machine_has_it(lab: Class) -> None:
    own = {**BUILT, "Config": {"Labels": {"cloudscale.recipe": "abc"}}}
    lab.trainer = FakeApi(in_swarm=False)
    lab.trainer.images_["cloudscale/maps:latest"] = own
    lab.image = "maps"
    assert lab.launch().problems == ()
    lab.trainer = None
    lab.add_machines("m4")
    assert lab.launch().problems == ()
    assert any("copy cloudscale/maps:latest" in done for done in lab.driver.done)


def test_an_image_built_again_reaches_every_machine_and_the_seats(lab: Class) -> None:
    own_image(lab)
    lab.enrol(3)
    lab.launch()
    own_image(lab, Id="sha256:33", Created="2025-02-02")
    report = lab.launch()
    assert {row["state"] for row in lab.rows(report)} == {"ready"}
    assert loads(lab) == 1
    assert {container["Image"] for api in lab.apis for container in api.containers_} == {"sha256:33"}


# --- one machine with its own swarm ----------------------------------------------------------


def test_replace_lost_does_nothing_where_there_is_one_machine(bio: Class) -> None:
    bio.api.init_swarm("127.0.0.1", "127.0.0.1:2377", "127.0.0.1", [], {"Labels": {}})  # somebody's own
    first = bio.launch()
    assert bio.launch(replace_lost=True) == first
    assert bio.changes == []
    assert not any("Lost" in line or "Warning" in line for line in bio.said.lines)


def test_an_engine_that_breaks_off_is_reported(lab: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(**settings: object) -> None:
        raise api_error(500, "listen tcp: address already in use")

    for api in lab.apis:
        monkeypatch.setattr(api, "init_swarm", fails)
    with pytest.raises(CloudscaleError, match="already in use"):
        lab.launch()


def test_what_decides_passwords_and_addresses_is_there_before_anything_stands(lab: Class) -> None:
    """So a copy of the folder, taken after a launch that was cut off at once, leads to the same ones."""
    lab.driver.faults = {name: MachineError(f"{name}: no disk.") for name in lab.driver.apis}
    with pytest.raises(CloudscaleError):
        lab.launch()
    folder = lab.session().course
    key, names = folder.key(create=False), folder.names_key(create=False)
    assert key and names
    lab.driver.faults = {}
    lab.launch()
    assert (folder.key(), folder.names_key()) == (key, names)
