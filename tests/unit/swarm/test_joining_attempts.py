"""Engines that join in all conditions, swarms of others, and the number of managers."""

from __future__ import annotations

import pytest

from cloudscale.errors import EngineError, SwarmError
from cloudscale.swarm import joining
from cloudscale.swarm.nodes import MACHINE, balance_managers, swarm_nodes
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_apis, fake_engine
from tests.unit.swarm.joins import join, join_all, roles, swarm_join, together

pytestmark = pytest.mark.usefixtures("no_waiting")


# --- joining, in all conditions --------------------------------------------------------------


@pytest.fixture
def swarm() -> list[FakeApi]:
    """m1 and m2 in the course's swarm, and m3 in none."""
    apis = fake_apis("m1", "m2", "m3")
    together(*apis[:2])
    for api in apis:
        api.changes.clear()
    return apis


def machines(api: FakeApi) -> list[str]:
    return sorted(machine for machine, _ in roles(api))


def test_a_join_that_goes_on_in_the_background_is_waited_for(swarm: list[FakeApi]) -> None:
    swarm[2].joining = ["late"]
    assert together(*swarm) == ["unchanged", "unchanged", "joined"]
    assert swarm[2].changes.count("leave swarm") == 0


def test_a_join_that_ends_in_an_error_is_tried_again(swarm: list[FakeApi]) -> None:
    swarm[2].joining = ["error", "stuck"]
    assert together(*swarm) == ["unchanged", "unchanged", "joined"]
    assert swarm[2].swarm_state == "active"
    assert swarm[2].node_labels[MACHINE] == "m3"


def test_a_join_that_never_ends_is_given_up_with_the_ports_to_open(swarm: list[FakeApi]) -> None:
    swarm[2].joining = ["stuck"] * 9
    *_, failed = join_all(swarm_join(*swarm), swarm)
    assert isinstance(failed.error, SwarmError)
    assert failed.error.message.startswith("m3: it can't join the swarm (Timeout was reached")
    assert "2377" in failed.error.remedy
    assert len(swarm[2].joining) == 9 - joining.ATTEMPTS


def test_attempts_that_failed_leave_no_nodes_behind(swarm: list[FakeApi]) -> None:
    swarm[2].joining = ["error", "error"]
    together(*swarm)
    assert machines(swarm[0]) == ["m1", "m2", "m3"]


def test_a_machine_that_half_joined_leaves_and_joins_again(swarm: list[FakeApi]) -> None:
    swarm[2].joining = ["error"]
    token = swarm[0].inspect_swarm()["JoinTokens"]["Worker"]
    with pytest.raises(Exception, match="deadline"):
        swarm[2].join_swarm(["10.0.0.1:2377"], token, "10.0.0.3", "10.0.0.3", "10.0.0.3")
    assert swarm[2].info()["Swarm"]["LocalNodeState"] == "error"
    assert together(*swarm)[2] == "joined"
    assert machines(swarm[0]) == ["m1", "m2", "m3"]


def test_a_machine_that_is_stuck_in_joining_leaves_and_joins_again(swarm: list[FakeApi]) -> None:
    swarm[2].swarm_state = "pending"
    assert together(*swarm)[2] == "joined"


def test_a_machine_that_joined_without_its_labels_gets_them(swarm: list[FakeApi]) -> None:
    swarm[1].node_labels = {}
    assert together(*swarm[:2]) == ["unchanged", "unchanged"]
    assert swarm[1].node_labels[MACHINE] == "m2"
    assert not any("join" in change for change in swarm[1].changes)


def test_a_machine_whose_node_was_removed_joins_again(swarm: list[FakeApi]) -> None:
    swarm[1].go_down()
    swarm[0].remove_node(swarm[1].node_id)
    swarm[1].come_back()
    assert together(*swarm[:2]) == ["unchanged", "joined"]
    assert machines(swarm[0]) == ["m1", "m2"]


def test_a_machine_that_was_reinstalled_replaces_its_former_node(swarm: list[FakeApi]) -> None:
    swarm[1].leave_swarm(force=True)  # a reinstalled machine knows nothing of the swarm
    assert together(*swarm[:2]) == ["unchanged", "joined"]
    assert machines(swarm[0]) == ["m1", "m2"]


def test_a_machine_whose_address_changed_joins_again(swarm: list[FakeApi]) -> None:
    swarm[1].address = "10.0.0.99"
    assert together(*swarm[:2]) == ["unchanged", "joined"]
    (_, node) = swarm_nodes(fake_engine(swarm[0]))
    assert (node.machine, node.address) == ("m2", "10.0.0.99")


def test_a_clone_joins_as_itself_and_the_original_stays(swarm: list[FakeApi]) -> None:
    original = swarm[1].node_id
    twin = swarm[1].clone("m9", "10.0.0.9")
    assert together(*swarm[:2], twin) == ["unchanged", "unchanged", "joined"]
    assert machines(swarm[0]) == ["m1", "m2", "m9"]
    assert swarm[1].node_id == original
    assert twin.node_id != original


def test_a_clone_of_the_first_machine_joins_as_itself_even_before_it(swarm: list[FakeApi]) -> None:
    twin = swarm[0].clone("m9", "10.0.0.9")
    original = swarm[0].node_id
    way = swarm_join(*swarm[:2], twin, manager=swarm[0])
    assert join(way, twin) == "joined"
    assert join(way, swarm[0]) == "unchanged"
    assert machines(swarm[0]) == ["m1", "m2", "m9"]
    assert swarm[0].node_id == original


# --- swarms of others ------------------------------------------------------------------------


@pytest.mark.parametrize("course", ["", "geo"])
def test_a_manager_of_another_swarm_is_refused_and_nothing_of_it_changed(course: str) -> None:
    first, other = fake_apis("m1", "m2")
    together(first)
    join_all(swarm_join(other, course=course), [other])
    other.swarm_labels = {"cloudscale.course": course} if course else {}
    other.changes.clear()
    _, refused = join_all(swarm_join(first, other), [first, other])
    assert "m2: it belongs to a swarm" in str(refused.error)
    assert other.changes == []
    assert other.manages


def test_a_worker_of_another_swarm_is_refused() -> None:
    first, other = fake_apis("m1", "m2")
    together(other)
    other.become_worker()
    other.changes.clear()
    created, refused = join_all(swarm_join(first, other), [first, other])
    assert created.value == "created"
    assert "somebody else" in str(refused.error)
    assert other.changes == []


def test_if_the_first_machine_belongs_to_others_the_next_creates_the_swarm() -> None:
    other, second = fake_apis("m1", "m2")
    together(other)
    other.swarm_labels = {}
    refused, created = join_all(swarm_join(other, second), [other, second])
    assert "m1: it belongs to a swarm of somebody else" in str(refused.error)
    assert created.value == "created"


def test_a_locked_swarm_is_reported() -> None:
    api = FakeApi(in_swarm=False)
    api.swarm_state = "locked"
    with pytest.raises(SwarmError, match="docker swarm unlock"):
        join(swarm_join(api), api)


def test_an_engine_that_is_down_is_reported_by_name() -> None:
    api = FakeApi()
    api.go_down()
    with pytest.raises(EngineError, match="m1"):
        join(swarm_join(api), api)


# --- one engine with its swarm, whoever created it -------------------------------------------


def test_an_existing_swarm_is_adopted_as_it_is() -> None:
    api = FakeApi()
    api.node_labels = {"disk": "ssd"}
    assert join(swarm_join(api, adopts=True), api) == "unchanged"
    assert join(swarm_join(api, manager=api, adopts=True), api) == "unchanged"
    assert api.changes == []


def test_an_engine_in_no_swarm_creates_one() -> None:
    api = FakeApi(in_swarm=False)
    assert swarm_join(api, adopts=True).join(fake_engine(api), "127.0.0.1") == "created"
    assert any("127.0.0.1:2377" in change for change in api.changes)


@pytest.mark.parametrize("state", ["pending", "error", "locked"])
def test_a_swarm_that_can_not_be_used_is_not_adopted(state: str) -> None:
    api = FakeApi(in_swarm=False)
    api.swarm_state = state
    with pytest.raises(SwarmError):
        join(swarm_join(api, adopts=True), api)
    assert api.changes == []


# --- the number of managers ------------------------------------------------------------------


def balanced(api: FakeApi) -> list[str]:
    balance_managers(fake_engine(api, name=api.name))
    return sorted(machine for machine, role in roles(api) if role == "manager")


def test_missing_managers_are_promoted() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4")
    together(*apis[:2])
    together(*apis[:2], apis[3], manager=apis[0])
    assert balanced(apis[0]) == ["m1", "m2", "m4"]
    assert all(api.manages for api in (apis[0], apis[1], apis[3]))


def test_of_two_one_is_a_manager() -> None:
    apis = fake_apis("m1", "m2", in_swarm=True)
    update = {"Role": "manager", "Availability": "active", "Labels": {}}
    apis[0].update_node(apis[1].node_id, 20, update)
    balance_managers(fake_engine(apis[1]))
    assert [api.manages for api in apis] == [False, True]


def test_a_machine_that_is_down_is_not_promoted() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4", in_swarm=True)
    apis[3].go_down()
    apis[2].leave_swarm(force=True)
    lost = next(node.id for node in apis[0].swarm.nodes.values() if node.api is apis[2])
    apis[0].update_node(lost, 20, {"Role": "worker", "Availability": "active", "Labels": {}})
    apis[0].remove_node(lost)
    balance_managers(fake_engine(apis[0]))
    assert apis[0].swarm.node(apis[3].node_id).role == "worker"


def test_the_right_number_of_managers_is_not_changed() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4", in_swarm=True)
    balance_managers(fake_engine(apis[0]))
    assert apis[0].changes == []


def test_a_manager_that_comes_back_does_not_make_it_four() -> None:
    apis = fake_apis("m1", "m2", "m3", "m4")
    together(*apis)
    manager = fake_engine(apis[1], name="m2")
    apis[0].go_down()
    apis[1].update_node(
        apis[0].node_id,
        apis[1].inspect_node(apis[0].node_id)["Version"]["Index"],
        {"Role": "worker", "Availability": "active", "Labels": {}},
    )
    apis[1].remove_node(apis[0].node_id)
    balance_managers(manager)
    apis[0].come_back()
    together(*apis, manager=apis[1])
    assert len(balanced(apis[1])) == 3
