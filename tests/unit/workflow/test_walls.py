"""Walls come with the first seat on the trainer's own engine, and go with the last one."""

from __future__ import annotations

from cloudscale.workflow import reset
from tests.unit.classroom import Class


def made(lab: Class) -> tuple[int, int, int]:
    """How many networks, configurations of such, and sets of rules there are."""
    return len(lab.api.overlays), len(lab.api.configurations), len(lab.api.rules)


def test_the_seats_of_this_computer_are_in_a_network_of_their_own(bio: Class) -> None:
    bio.launch()
    (network,) = bio.api.overlays
    for seat in bio.api.services_.values():
        assert seat["Spec"]["TaskTemplate"]["Networks"] == [{"Target": network["Id"]}]
    assert not any("reach what this computer" in line for line in bio.said.lines)
    bio.launch()
    assert bio.changes == []


def test_machines_that_are_set_up_for_the_course_have_theirs_already(lab: Class) -> None:
    lab.launch()
    assert made(lab) == (0, 0, 0)
    assert all(not seat["Spec"]["TaskTemplate"]["Networks"] for seat in lab.api.services_.values())


def test_seats_that_are_open_all_the_same_are_warned_of(bio: Class) -> None:
    bio.api.rules_fault = "iptables: not found"
    report = bio.launch()
    assert report.problems == ()
    (warning,) = [line for line in bio.said.lines if "reach what this computer reaches" in line]
    assert "(iptables: not found)" in warning and "use VMs or a cloud" in warning


def test_they_stay_as_long_as_a_seat_is_there(bio: Class) -> None:
    bio.launch()
    reset.containers_reset(bio.session(only="1"), with_volumes=False)
    assert made(bio) == (1, 1, 1)
    reset.containers_reset(bio.session(), with_volumes=False)
    assert made(bio) == (0, 0, 0)


def test_a_reset_that_was_cut_off_is_finished_by_the_next(bio: Class) -> None:
    bio.launch()
    for seat in list(bio.api.services_):
        bio.api.remove_service(seat)
    reset.containers_reset(bio.session(), with_volumes=False)
    assert made(bio) == (0, 0, 0)


def test_the_end_of_a_course_leaves_none_and_the_swarm_is_dissolved(bio: Class) -> None:
    bio.launch()
    assert reset.driver_reset(bio.session()).problems == ()
    assert made(bio) == (0, 0, 0) and not bio.api.manages


def test_what_can_not_be_removed_is_named_and_the_next_reset_ends_it(bio: Class) -> None:
    bio.launch()
    bio.api.rules_fault = "no iptables"
    (problem,) = reset.driver_reset(bio.session()).problems
    assert problem.startswith("m1") and "could not be removed (no iptables)" in problem
    assert reset.driver_reset(bio.session()).problems == ()
    assert not bio.api.manages
