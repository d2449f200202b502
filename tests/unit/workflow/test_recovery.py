"""What a launch gives up for good is decided once, and changes nothing."""

from __future__ import annotations

import pytest

from cloudscale.cluster.look import look
from cloudscale.cluster.state import Cluster
from cloudscale.course.flags import Launch, read_flags
from cloudscale.errors import CloudscaleError, ConnectionFailed
from cloudscale.model import Survey
from cloudscale.workflow.recovery import Recovery, decide
from tests.unit.classroom import Class


def seen(lab: Class) -> Cluster:
    """The course as a launch sees it."""
    surveys: dict[str, Survey | CloudscaleError] = {}
    for machine in lab.driver.machines():
        try:
            surveys[machine.name] = lab.driver.survey(machine)
        except ConnectionFailed as error:
            surveys[machine.name] = error
    return look(lab.session(), lab.driver, surveys)


def decided(lab: Class, *usable: str, **flags: bool) -> Recovery:
    session = lab.session()
    recovery = decide(seen(lab), usable, session, read_flags(Launch, **flags))
    assert lab.changes == []
    return recovery


def test_where_all_is_well_nothing_is_given_up(lab: Class) -> None:
    lab.launch()
    assert decided(lab, "m1", "m2", "m3") == Recovery(frozenset(), replaces_lost=False, replaces_swarm=False)


def test_a_lost_machine_is_given_up_only_where_the_user_says_so(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m2")
    assert decided(lab, "m1", "m3").machines == frozenset()
    assert decided(lab, "m1", "m3", replace_lost=True).machines == {"m2"}


def test_a_machine_that_answers_is_not_given_up_though_it_is_not_used(lab: Class) -> None:
    lab.launch()
    assert decided(lab, "m1", "m2", replace_lost=True).machines == frozenset()


def test_without_a_quorum_the_user_has_to_decide(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1", "m2")
    with pytest.raises(CloudscaleError, match="lost its quorum"):
        decided(lab, "m3")
    assert decided(lab, "m3", replace_lost=True).replaces_lost


def test_the_nodes_of_what_is_given_up_are_removed_once_the_swarm_has_noticed(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m2")
    recovery = decided(lab, "m1", "m3", replace_lost=True)
    assert recovery.remove_lost_nodes(seen(lab), ["m1", "m3"], lab.session()) == {"m2"}
    assert sorted(lab.members()) == ["m1", "m3"]
    assert recovery.remove_lost_nodes(seen(lab), ["m1", "m3"], lab.session()) == frozenset()


def test_a_machine_that_half_joined_and_is_lost_is_removed_too_where_the_user_says_so(lab: Class) -> None:
    lab.launch()
    lab.add_machines("m4")
    api = lab.apis[3]
    api.join_swarm(
        ["10.0.0.1:2377"], lab.api.inspect_swarm()["JoinTokens"]["Manager"], api.address, api.address, api.address
    )
    lab.launch(common={"skip": ("m4",)}, replace_lost=True)
    assert api.node_id in lab.members(), "it is up, so it may get its name yet"
    lab.driver.lose("m4")
    lab.launch()
    assert api.node_id in lab.members()
    lab.launch(replace_lost=True)
    assert sorted(lab.members()) == ["m1", "m2", "m3"]
