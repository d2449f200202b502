"""The networks of the machines: found, or refused with their names; and whether they lead outside."""

from __future__ import annotations

import pytest

from cloudscale.errors import SettingsError
from tests.unit.drivers.openstack.cloud import MARKS
from tests.unit.drivers.openstack.course import RealDriverClass, bare, network

pytestmark = MARKS


def test_a_network_without_a_way_out_is_warned_of_at_the_plan(course: RealDriverClass) -> None:
    network(course.stand_in, "lonely", "10.9.0.0/24")
    course.openstack["network"] = "lonely"
    course.plan()
    assert "Warning: no router connects the network 'lonely' to the outside." in course.notes
    course.openstack["network"] = ["lonely", "course-net"]
    course.plan()
    assert "no router connects" not in course.notes


def test_a_second_network_that_leads_nowhere_should_not_announce_a_gateway(course: RealDriverClass) -> None:
    net = network(course.stand_in, "lonely", "10.9.0.0/24")
    course.openstack["network"] = ["lonely", "course-net"]
    course.plan()
    assert "Warning: the network 'lonely' has no way out, but its subnet has a gateway" in course.notes
    for subnet in net["subnets"]:
        course.stand_in.network.subnets.items[subnet]["gateway_ip"] = None
    course.plan()
    assert "Warning" not in course.notes


def test_a_router_that_leads_nowhere_is_no_way_out(course: RealDriverClass) -> None:
    for router in course.stand_in.network.routers.items.values():
        router["external_gateway_info"] = None
    course.plan()
    assert "Warning: no router connects the network 'course-net' to the outside." in course.notes


def test_where_several_networks_are_possible_the_launch_ends_with_their_names(course: RealDriverClass) -> None:
    network(course.stand_in, "another", "10.9.0.0/24", router="public")
    course.openstack["network"] = ""
    with pytest.raises(SettingsError, match=r"openstack\.network is empty, but") as raised:
        course.plan()
    assert raised.value.remedy == "Set openstack.network. Available: another, course-net."


def test_where_several_external_networks_are_possible_too(course: RealDriverClass) -> None:
    network(course.stand_in, "ext-net2", "198.51.100.0/24", external=True)
    course.openstack["external_network"] = ""
    course.plan()
    assert "'public' is taken, to which the router of 'course-net' leads." in course.notes
    course.stand_in.network.routers.items.clear()
    with pytest.raises(SettingsError, match=r"openstack\.external_network is empty, but") as raised:
        course.plan()
    assert "Available: ext-net2, public. none if" in raised.value.remedy


def test_who_may_not_reach_the_machines_by_their_protocol_is_reported(course: RealDriverClass) -> None:
    network(course.stand_in, "ext-v6only1", "2001:db8:1600::/64", external=True, shared=True)
    course.openstack |= {"network": "ext-v6only1", "student_cidr": "192.0.2.0/24"}
    with pytest.raises(SettingsError, match=r"student_cidr: 192\.0\.2\.0/24 has no range of IPv6") as raised:
        course.plan()
    assert raised.value.remedy == "Add one, such as ::/0 for everybody."


def test_a_network_that_nobody_may_join_is_not_found_by_itself(course: RealDriverClass) -> None:
    """An external network that is not shared is for floating IPs only."""
    course.openstack["network"] = ""
    course.plan()
    assert "openstack.network is empty: 'course-net' is taken, the only network." in course.notes


def test_networks_of_other_projects_which_administrators_see_are_left_out(course: RealDriverClass) -> None:
    for name in ("course-net", "private"):
        network(course.stand_in, name, "10.9.0.0/24")["tenant_id"] = "f" * 32
    for net in course.stand_in.network.networks.items.values():
        net["project_id"] = net["tenant_id"]
    for given in ("", "course-net"):
        course.openstack["network"] = given
        assert [machine["machine"] for machine in course.plan()["machines"]] == ["bio-1"]


def test_a_project_without_any_network_is_reported(course: RealDriverClass) -> None:
    bare(course.stand_in, "debian-13")
    course.openstack |= {"network": "", "external_network": ""}
    with pytest.raises(SettingsError, match="has no network that this account can see"):
        course.plan()


def test_a_network_of_the_project_may_have_subnets_that_can_not_be_seen(course: RealDriverClass) -> None:
    (net,) = (net for net in course.stand_in.network.networks.items.values() if net["name"] == "course-net")
    course.stand_in.network.subnets.hidden.add(net["id"])
    course.plan()
    assert "Warning: the subnets of the network 'course-net' can't be seen" in course.notes
