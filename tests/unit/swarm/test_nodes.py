from __future__ import annotations

import pytest
from docker.errors import APIError

from cloudscale.errors import EngineError, SwarmError
from cloudscale.swarm.nodes import (
    Membership,
    check_ours,
    check_usable,
    demote,
    membership,
    promote,
    remove_node,
    swarm_nodes,
    update_node,
)
from tests.unit.api_schema import Json, api_error
from tests.unit.fake_api import FakeApi
from tests.unit.fake_swarm import FakeNode
from tests.unit.fakes import fake_apis, fake_engine

MINE = {"cloudscale.course": "bio"}


# --- membership ------------------------------------------------------------------------------


def test_an_engine_in_no_swarm_is_inactive() -> None:
    current = membership(fake_engine(FakeApi(in_swarm=False)))
    assert current == Membership("inactive")
    assert not current.is_active


def test_a_manager_knows_the_course_of_its_swarm(api: FakeApi) -> None:
    current = membership(fake_engine(api))
    assert (current.is_active, current.manages, current.mark, current.node_id) == (True, True, "bio", api.node_id)


def test_a_swarm_without_labels_has_no_mark() -> None:
    assert membership(fake_engine(FakeApi())).mark == ""


def test_a_worker_knows_its_managers_but_not_their_course() -> None:
    *managers, worker = fake_apis("m1", "m2", "m3", "m4", in_swarm=True)
    current = membership(fake_engine(worker))
    assert (current.is_active, current.manages, current.mark) == (True, False, "")
    assert current.managers == {manager.node_id for manager in managers}


def test_a_manager_without_a_majority_is_leaderless(three: list[FakeApi]) -> None:
    three[1].go_down()
    assert membership(fake_engine(three[0])).is_active
    three[2].go_down()
    current = membership(fake_engine(three[0]))
    assert (current.state, current.is_active, current.mark) == ("leaderless", False, "")
    assert "does not have a leader" in current.problem


def test_the_membership_of_an_engine_without_swarm_mode_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    api = FakeApi()
    monkeypatch.setattr(api, "info", dict)
    assert membership(fake_engine(api)).state == "unknown"


def test_an_engine_that_is_down_is_named() -> None:
    api = FakeApi()
    api.go_down()
    with pytest.raises(EngineError, match="m1"):
        membership(fake_engine(api))


# --- swarms of others ------------------------------------------------------------------------


@pytest.mark.parametrize("current", [Membership("inactive"), Membership("active", "n", True)])
def test_an_engine_alone_can_use_its_own_swarm_and_none(current: Membership) -> None:
    check_usable("m1", current)


@pytest.mark.parametrize(
    ("current", "message"),
    [
        (Membership("active", "n", False), "worker in somebody else's swarm"),
        (Membership("locked"), "docker swarm unlock"),
        (Membership("error", problem="certificate expired"), "certificate expired"),
        (Membership("pending"), "'pending': no reason given"),
        (Membership("leaderless"), "leaderless"),
        (Membership("unknown"), "unknown"),
    ],
    ids=lambda value: value.state if isinstance(value, Membership) else "",
)
def test_a_swarm_that_can_not_be_used_is_reported(current: Membership, message: str) -> None:
    with pytest.raises(SwarmError, match=message) as raised:
        check_usable("m1", current)
    assert "m1" in raised.value.message


@pytest.mark.parametrize(
    "current",
    [
        Membership("inactive"),
        Membership("pending", "n9"),
        Membership("error", "n9"),
        Membership("active", "n1", True, "bio"),
        Membership("active", "n1"),
        Membership("active", "n9", managers=frozenset({"n1", "n8"})),
    ],
    ids=["in none", "half joined", "in error", "a manager of ours", "a node of ours", "removed from ours"],
)
def test_what_may_be_used_is_in_our_swarm_or_in_none(current: Membership) -> None:
    check_ours("m2", current, "bio", ["n1", "n2"])


@pytest.mark.parametrize(
    ("current", "whose"),
    [
        (Membership("active", "n9", True, ""), "of somebody else"),
        (Membership("active", "n9", True, "geo"), "of the course 'geo'"),
        (Membership("active", "n9", managers=frozenset({"n8"})), "of somebody else"),
    ],
)
def test_a_machine_in_a_swarm_of_others_is_refused_by_name(current: Membership, whose: str) -> None:
    with pytest.raises(SwarmError, match=f"m2: it belongs to a swarm {whose}"):
        check_ours("m2", current, "bio", ["n1"])


# --- nodes -----------------------------------------------------------------------------------


def test_nodes_are_known_by_machine_while_they_are_down(three: list[FakeApi]) -> None:
    three[2].go_down()
    first, _, third = swarm_nodes(fake_engine(three[0]))
    assert (first.machine, first.address, first.is_up, first.is_manager) == ("m1", "10.0.0.1", True, True)
    assert (third.machine, third.address, third.is_up, third.is_manager) == ("m3", "10.0.0.3", False, True)


def test_a_node_without_labels_has_no_machine() -> None:
    (node,) = swarm_nodes(fake_engine(FakeApi()))
    assert (node.machine, node.address) == ("", "")


def test_labels_are_added_and_removed_and_others_stay(three: list[FakeApi]) -> None:
    three[1].node_labels = {"disk": "ssd", "old": "x"}
    update_node(fake_engine(three[0]), three[1].node_id, labels={"new": "y", "old": ""})
    assert three[1].node_labels == {"disk": "ssd", "new": "y"}
    assert three[1].manages


def test_the_role_is_changed_and_labels_stay(three: list[FakeApi]) -> None:
    before = dict(three[1].node_labels)
    update_node(fake_engine(three[0]), three[1].node_id, role="worker")
    assert not three[1].manages
    assert three[1].node_labels == before


@pytest.mark.parametrize(("collisions", "succeeds"), [(2, True), (10**6, False)])
def test_an_update_that_collides_is_repeated(
    three: list[FakeApi], monkeypatch: pytest.MonkeyPatch, collisions: int, succeeds: bool
) -> None:
    monkeypatch.setattr("cloudscale.swarm.nodes.AGREEING", 1)
    three[0].swarm.collisions = collisions
    try:
        update_node(fake_engine(three[0]), three[1].node_id, labels={"new": "y"})
    except Exception as error:
        assert "out of sequence" in str(error)
    assert (three[1].node_labels.get("new") == "y") is succeeds


@pytest.mark.parametrize(
    ("refusal", "is_repeated"),
    [
        ("rpc error: code = Unknown desc = raft: failed to process the request: node lost leader status", True),
        ("rpc error: code = DeadlineExceeded desc = context deadline exceeded", True),
        ("rpc error: code = InvalidArgument desc = invalid name", False),
    ],
)
@pytest.mark.usefixtures("no_waiting")
def test_an_update_is_repeated_while_managers_elect_a_leader_and_for_nothing_else(
    three: list[FakeApi], monkeypatch: pytest.MonkeyPatch, refusal: str, is_repeated: bool
) -> None:
    swarm, change, asked = three[0].swarm, three[0].swarm.change, []

    def refuse_twice(node: FakeNode, version: int, spec: Json) -> None:
        asked.append(node.id)
        if len(asked) < 3:
            raise api_error(500, refusal)
        change(node, version, spec)

    monkeypatch.setattr(swarm, "change", refuse_twice)
    if is_repeated:
        update_node(fake_engine(three[0]), three[1].node_id, labels={"new": "y"})
    else:
        with pytest.raises(APIError, match="invalid name"):
            update_node(fake_engine(three[0]), three[1].node_id, labels={"new": "y"})
    assert len(asked) == (3 if is_repeated else 1)
    assert ("new" in three[1].node_labels) is is_repeated


@pytest.mark.usefixtures("no_waiting")
def test_a_manager_is_a_worker_only_once_the_others_decide_without_it(
    three: list[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect, asked = three[0].inspect_node, []

    def still_a_manager(node_id: str) -> Json:
        asked.append(node_id)
        if len(asked) == 3:
            raise api_error(500, "rpc error: code = Unknown desc = The swarm does not have a leader.")
        return {**inspect(node_id), **({"ManagerStatus": {"Leader": True}} if len(asked) < 5 else {})}

    monkeypatch.setattr(three[0], "inspect_node", still_a_manager)
    demote(fake_engine(three[0]), three[1].node_id)
    assert len(asked) == 5
    assert not three[1].manages


@pytest.mark.usefixtures("no_waiting")
def test_a_new_manager_is_waited_for_until_it_takes_part(monkeypatch: pytest.MonkeyPatch) -> None:
    *_, worker = apis = fake_apis("m1", "m2", "m3", "m4", in_swarm=True)
    inspect, asked = worker.inspect_swarm, []

    def no_leader_yet() -> Json:
        asked.append(1)
        if len(asked) < 3:
            raise api_error(503, "The swarm does not have a leader.")
        return inspect()

    monkeypatch.setattr(worker, "inspect_swarm", no_leader_yet)
    promote(fake_engine(apis[0]), worker.node_id, fake_engine(worker))
    assert len(asked) == 3
    assert worker.manages


def test_a_lost_manager_is_removed_once_or_twice(three: list[FakeApi]) -> None:
    lost = three[2].node_id
    three[2].go_down()
    for _ in range(2):
        remove_node(fake_engine(three[0]), lost)
        assert [node.machine for node in swarm_nodes(fake_engine(three[0]))] == ["m1", "m2"]
