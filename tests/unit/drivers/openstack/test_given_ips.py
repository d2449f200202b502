"""Floating IPs that the project has already: used first, checked before anything is made, and kept."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.errors import SettingsError
from tests.unit.drivers.openstack.cloud import MARKS
from tests.unit.drivers.openstack.course import RealDriverClass, network

pytestmark = MARKS


def given_ip(course: RealDriverClass, **more: Any) -> str:
    """The address of a floating IP that the project has already."""
    ip = course.stand_in.add_ip(marked="for the web server", **more)
    return str(ip["floating_ip_address"])


def test_a_floating_ip_of_the_project_is_used_first_and_stays(course: RealDriverClass) -> None:
    other, address = given_ip(course), given_ip(course)
    course.stand_in.set_quota("floatingip", 3)  # one more can be made
    course.openstack["floating_ips"] = [address]
    course.enrol(2)
    plan = course.plan(nodes=2)
    assert {d["resource"]: (d["need"], d["used"]) for d in plan["quota"]}["floating IPs"] == (1, 2)
    for _ in range(2):
        hosts = {row["node"]: row["host"] for row in course.rows(course.launch(nodes=2))}
        assert hosts["bio-1"] == address
        assert hosts["bio-2"] not in (address, other)
    course.reset()
    left = {ip["floating_ip_address"]: ip for ip in course.stand_in.network.floating_ips.items.values()}
    assert left.keys() == {address, other}
    assert (left[address]["port_id"], left[address]["tags"]) == (None, [])
    assert left[address]["description"] == "for the web server"


def test_it_stays_with_a_machine_that_is_deleted_alone(course: RealDriverClass) -> None:
    address = given_ip(course)
    course.openstack["floating_ips"] = [address]
    course.launch(nodes=1)
    course.openstack["floating_ips"] = []  # it leads to the course's machine, and is found by that
    assert {row["host"] for row in course.rows(course.launch(nodes=1))} == {address}
    course.reset()
    assert [ip["floating_ip_address"] for ip in course.stand_in.network.floating_ips.items.values()] == [address]


def test_a_floating_ip_that_is_not_the_projects_or_in_use_is_refused(course: RealDriverClass) -> None:
    free, used = given_ip(course), given_ip(course, port=course.stand_in.add_port("web", marked="mine"))
    course.openstack["floating_ips"] = ["192.0.2.250"]
    with pytest.raises(SettingsError, match=r"the project has no floating IP 192\.0\.2\.250") as raised:
        course.plan()
    assert raised.value.remedy == f"Free floating IPs of the project: {free}."
    course.openstack["floating_ips"] = [used]
    with pytest.raises(SettingsError, match="is in use for something else"):
        course.plan()
    course.openstack |= {"floating_ips": [free], "external_network": "none"}
    with pytest.raises(SettingsError, match=r"floating_ips is set, but openstack\.external_network is none"):
        course.plan()
    assert course.stand_in.totals()["servers"] == 0


def test_a_floating_ip_of_another_external_network_is_refused_with_that(course: RealDriverClass) -> None:
    other = network(course.stand_in, "ext-net2", "198.51.100.0/24", external=True)
    ip = course.stand_in.network.floating_ips.make({"floating_network_id": other["id"], "description": ""})
    course.openstack["floating_ips"] = [ip["floating_ip_address"]]
    with pytest.raises(SettingsError, match="is not of the external network of this course") as raised:
        course.plan()
    assert other["id"] in raised.value.remedy
