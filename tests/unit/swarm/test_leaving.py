from __future__ import annotations

import pytest

from cloudscale.swarm.leaving import dissolve, leave
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

MINE = {"cloudscale.course": "bio"}


def add_service(api: FakeApi, course: str) -> None:
    labels = {"cloudscale.course": course} if course else {}
    api.services_[course] = {"ID": course, "Spec": {"Labels": labels}}


def left(*apis: FakeApi, course: str = "bio") -> tuple[str, list[str]]:
    engines = [fake_engine(api, name=api.name) for api in apis]
    done, failed = dissolve(engines[0], engines, course)
    return done, [outcome.target for outcome in failed]


def test_a_swarm_of_the_course_is_dissolved_with_the_bridge_that_was_created_for_it(api: FakeApi) -> None:
    done, failed = left(api)
    assert "dissolved" in done
    assert failed == []
    assert api.swarm_state == "inactive"
    assert api.networks_ == []
    assert left(api) == ("", [])


def test_all_its_machines_leave_it(three: list[FakeApi]) -> None:
    assert left(*three)[1] == []
    assert {api.swarm_state for api in three} == {"inactive"}


def test_a_machine_that_did_not_leave_is_named_and_the_others_left(three: list[FakeApi]) -> None:
    three[1].go_down()
    assert left(*three)[1] == ["m2"]
    assert [api.swarm_state for api in three] == ["inactive", "active", "inactive"]


def test_a_bridge_from_before_stays(api: FakeApi) -> None:
    api.node_labels = dict(MINE)
    left(api)
    assert api.networks_ == ["docker_gwbridge"]


@pytest.mark.parametrize("kind", ["network", "secret", "config"])
def test_a_swarm_with_something_of_others_stays(api: FakeApi, kind: str) -> None:
    if kind == "network":
        api.overlays = [{"Name": "theirs", "Labels": None}]
    elif kind == "secret":
        api.create_secret("theirs", b"", {})
    else:
        api.configs_ = [{"Spec": {"Name": "theirs"}}]
    assert "stays" in left(api)[0]
    assert api.manages


def test_remains_of_the_course_itself_do_not_keep_the_swarm(api: FakeApi) -> None:
    add_service(api, "bio")
    api.create_secret("ours", b"", MINE)
    assert "dissolved" in left(api)[0]


def test_a_swarm_with_machines_of_others_stays(three: list[FakeApi]) -> None:
    three[2].node_labels = {}
    assert "stays" in left(three[0], three[1])[0]
    assert all(api.manages for api in three)


@pytest.mark.parametrize("course", ["geo", ""])
def test_a_swarm_of_others_is_not_changed(course: str) -> None:
    api = FakeApi()
    api.swarm_labels = {"cloudscale.course": course} if course else {}
    assert left(api) == ("", [])
    assert api.changes == []


def test_a_swarm_that_another_course_uses_is_handed_over_to_it(api: FakeApi) -> None:
    add_service(api, "geo")
    assert "stays" in left(api)[0]
    assert api.manages
    assert api.swarm_labels["cloudscale.course"] == "geo"
    assert api.node_labels["cloudscale.course"] == "geo"


def test_a_swarm_that_others_use_loses_the_mark_and_nothing_else(api: FakeApi) -> None:
    api.swarm_labels["owner"] = "ann"
    api.node_labels = {**MINE, "disk": "ssd"}
    add_service(api, "")
    assert "stays" in left(api)[0]
    assert api.manages
    assert api.swarm_labels == {"owner": "ann"}
    assert api.node_labels == {"disk": "ssd"}


def test_an_engine_leaves_any_swarm(three: list[FakeApi]) -> None:
    three[1].go_down()
    three[2].go_down()
    leave(fake_engine(three[0]))
    assert three[0].swarm_state == "inactive"


def test_a_bridge_that_something_uses_stays(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeApi, "leave_swarm", lambda api, force: None)  # so that it is still in use
    leave(fake_engine(api))
    assert api.networks_ == ["docker_gwbridge"]
