"""Whole launches in clouds as they differ: what each of them offers, and what a trainer has to configure for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from cloudscale.errors import CapacityError, SettingsError
from cloudscale.workflow import reset
from tests.unit.api_schema import Json
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud
from tests.unit.drivers.openstack.course import RealDriverClass, bare, network

pytestmark = MARKS
EMPTY = {"image": "", "user": "", "network": "", "external_network": ""}


@dataclass(frozen=True)
class World:
    """`furnish` makes the cloud out of the stand-in. A launch with `given` reaches the machines at `hosts`…, as `user`.

    `says`: what is reported. `ports`: how many each machine takes of the quota.
    """

    furnish: Callable[[OwnCloud], None]
    hosts: str
    user: str
    says: tuple[str, ...]
    given: Json = field(default_factory=dict)
    floating: bool = False
    ports: int = 1


def csc(stand_in: OwnCloud) -> None:
    """No image of Debian; eight servers and cores, two floating IPs."""
    bare(stand_in, "AlmaLinux-9", "CentOS-Stream-10", "Ubuntu-22.04", "Ubuntu-24.04", "Ubuntu-25.10")
    network(stand_in, "public", "192.0.2.0/24", external=True)
    network(stand_in, "project_2001234", "192.168.1.0/24", router="public")
    for name, number in {"instances": 8, "cores": 8, "floatingip": 2}.items():
        stand_in.set_quota(name, number)


def jetstream2(stand_in: OwnCloud) -> None:
    """Names with a prefix, images without a plain version, and one of ARM."""
    bare(stand_in, "Featured-RockyLinux9", "Featured-Ubuntu24", "Featured-Ubuntu22", "Featured-Ubuntu24-arm64")
    network(stand_in, "public", "192.0.2.0/24", external=True)
    network(stand_in, "auto_allocated_network", "10.5.0.0/20", "fd00:5::/64", router="public")


def ovh(stand_in: OwnCloud) -> None:
    """Machines have public addresses of their own; private networks have no way out; no quota of floating IPs."""
    bare(stand_in, "Debian 12", "Ubuntu 24.04", "Debian 13", "Debian 13 - Plesk", "Debian 11", "Windows 2022")
    network(stand_in, "Ext-Net", "198.51.100.0/24", "2001:db8:41d0::/56", external=True, shared=True)
    network(stand_in, "private-vrack", "10.7.0.0/24")
    stand_in.set_quota("floatingip", 0)


def nectar(stand_in: OwnCloud) -> None:
    """A network of the provider with public addresses, in which only compute makes ports; floating IPs on request."""
    bare(stand_in, "NeCTAR Debian 13 (Trixie) amd64 v4", "NeCTAR Ubuntu 24.04 LTS (Noble) amd64", os_distro="")
    provider = network(stand_in, "Classic Provider", "203.0.113.0/24", shared=True)
    stand_in.network.ports.computes.add(provider["id"])
    stand_in.set_quota("floatingip", 0)


def nectar_hidden(stand_in: OwnCloud) -> None:
    """The same, with subnets that only administrators see."""
    nectar(stand_in)
    stand_in.network.subnets.hidden |= stand_in.network.networks.items.keys()


def strict(stand_in: OwnCloud) -> None:
    """Floating IPs, and a network in which only compute makes ports."""
    csc(stand_in)
    stand_in.network.ports.computes |= stand_in.network.networks.items.keys()


def infomaniak(stand_in: OwnCloud) -> None:
    """Several external networks, some of them with IPv6 only; the project's router leads to one."""
    bare(stand_in, "Debian 13 trixie", "Debian 12 bookworm", "Ubuntu 24.04 LTS Noble Numbat")
    network(stand_in, "ext-net1", "198.51.100.0/24", external=True, shared=True)
    network(stand_in, "ext-v6only1", "2001:db8:1600::/64", external=True, shared=True)
    network(stand_in, "ext-floating1", "192.0.2.0/24", external=True)
    network(stand_in, "mine", "10.10.0.0/24", router="ext-floating1")


WORLDS = {
    "CSC": World(
        csc,
        hosts="192.0.2.",
        user="ubuntu",
        given=EMPTY,
        floating=True,
        says=(
            "openstack.image is empty: 'Ubuntu-24.04' is taken, the newest public Ubuntu image.",
            "openstack.user: 'ubuntu' is taken, the user of the image 'Ubuntu-24.04'.",
            "openstack.network is empty: 'project_2001234' is taken, the only network.",
            "openstack.external_network is empty: 'public' is taken, the only one.",
        ),
    ),
    "Jetstream2": World(
        jetstream2,
        hosts="192.0.2.",
        user="ubuntu",
        given=EMPTY,
        floating=True,
        says=("'Featured-Ubuntu24' is taken", "'auto_allocated_network' is taken"),
    ),
    "OVH": World(
        ovh,
        hosts="198.51.100.",
        user="debian",
        given=EMPTY,
        says=(
            "'Debian 13' is taken, the newest public Debian image.",
            "'Ext-Net' is taken, the only network with a way out.",
            "No floating IPs are made: the network 'Ext-Net' is an external one itself.",
        ),
    ),
    "OVH, with a private network too": World(
        ovh,
        hosts="198.51.100.",
        user="debian",
        given={"image": "Debian 12", "network": ["private-vrack", "Ext-Net"]},
        ports=2,
        says=("No floating IPs are made: the network 'Ext-Net' is an external one itself.",),
    ),
    "Nectar": World(
        nectar,
        hosts="203.0.113.",
        user="debian",
        given=EMPTY,
        says=(
            "'NeCTAR Debian 13 (Trixie) amd64 v4' is taken",
            "'Classic Provider' is taken, the only network.",
            "the network 'Classic Provider' has public addresses and no router of the project.",
        ),
    ),
    "Nectar, with hidden subnets": World(
        nectar_hidden,
        hosts="203.0.113.",
        user="debian",
        given=EMPTY,
        says=("Warning: the subnets of the network 'Classic Provider' can't be seen",),
    ),
    "Infomaniak": World(
        infomaniak,
        hosts="192.0.2.",
        user="debian",
        given={**EMPTY, "network": "mine"},
        floating=True,
        says=("'ext-floating1' is taken, to which the router of 'mine' leads.",),
    ),
    "Infomaniak, IPv6 only": World(
        infomaniak,
        hosts="2001:db8:1600::",
        user="debian",
        given={"image": "", "network": "ext-v6only1"},
        says=("the network 'ext-v6only1' is an external one itself",),
    ),
    "floating IPs for ports of compute": World(
        strict,
        hosts="192.0.2.",
        user="ubuntu",
        given=EMPTY,
        floating=True,
        says=("'project_2001234' is taken",),
    ),
    "a site that reaches its private networks": World(
        csc,
        hosts="192.168.1.",
        user="ubuntu",
        given={**EMPTY, "external_network": "none"},
        says=("'project_2001234' is taken",),
    ),
}


@pytest.fixture(name="world", params=list(WORLDS.values()), ids=list(WORLDS))
def world_fixture(request: pytest.FixtureRequest, course: RealDriverClass) -> World:
    world: World = request.param
    world.furnish(course.stand_in)
    course.openstack = {"cloud": "course", **world.given}
    course.enrol(3)
    return world


def test_a_plan_finds_what_is_left_open_and_reports_it_once(course: RealDriverClass, world: World) -> None:
    plan = course.plan(nodes=2)
    for note in world.says:
        assert course.notes.count(note) == 1, course.notes
    needs = {demand["resource"]: demand["need"] for demand in plan["quota"]}
    assert needs["ports"] == 2 * world.ports
    assert needs.get("floating IPs", 0) == (2 if world.floating else 0)
    assert course.stand_in.totals() == dict.fromkeys(course.stand_in.totals(), 0)


def test_a_launch_reaches_every_machine_and_a_second_one_changes_nothing(course: RealDriverClass, world: World) -> None:
    first = course.launch(nodes=2)
    assert first.problems == ()
    rows = course.rows(first)
    assert [row["state"] for row in rows] == ["ready"] * 3
    assert len({row["host"] for row in rows}) == 2
    assert all(row["host"].startswith(world.hosts) for row in rows)
    assert {login.user for login in course.testbed.logins} == {world.user}
    course.stand_in.asked.clear()
    assert course.launch(nodes=2) == first
    assert [asked.path for asked in course.stand_in.asked if not asked.path.endswith("/action")] == []


def test_machines_are_in_the_courses_group_alone(course: RealDriverClass, world: World) -> None:
    course.enrol(2)
    course.launch(nodes=1)
    (server,) = course.stand_in.compute.servers.values()
    (group,) = (group["id"] for group in course.stand_in.network.groups.items.values() if group["name"] == MARK)
    ports = [course.stand_in.network.ports.items[port] for port in server.ports]
    assert [port["security_groups"] for port in ports] == [[group]] * world.ports


def test_in_the_end_nothing_of_the_course_is_left(course: RealDriverClass, world: World) -> None:
    course.launch(nodes=2)
    course.reset()
    assert course.stand_in.totals() == dict.fromkeys(course.stand_in.totals(), 0)


def test_one_machine_can_be_removed_with_all_that_it_has(course: RealDriverClass, world: World) -> None:
    course.launch(nodes=2)
    reset.driver_reset(course.session(yes=True, only="bio-2"))
    totals = course.stand_in.totals()
    assert (totals["servers"], totals["ports"]) == (1, world.ports)
    assert totals["floating IPs"] == world.floating


# --- what is refused, and what fails ---


def test_where_there_are_two_floating_ips_a_third_machine_is_refused_before_anything_is_made(
    course: RealDriverClass,
) -> None:
    csc(course.stand_in)
    course.openstack |= EMPTY
    with pytest.raises(CapacityError, match="floating IPs") as raised:
        course.launch(nodes=3)
    assert raised.value.exit_code == 2
    assert "Or name floating IPs that the project has: openstack.floating_ips." in raised.value.remedy
    assert course.stand_in.totals() == dict.fromkeys(course.stand_in.totals(), 0)


def test_a_server_that_fails_with_a_port_of_computes_is_replaced_with_another_port(course: RealDriverClass) -> None:
    nectar(course.stand_in)
    course.openstack |= EMPTY
    course.stand_in.compute.outcomes["bio-1"] = ["ERROR: No valid host was found."]
    assert [row["state"] for row in course.rows(course.launch(nodes=1))] == ["ready"] * 2
    assert "replacing its server" in course.notes
    assert course.stand_in.totals()["ports"] == 1


# --- volumes ---


def test_volumes_have_a_type_and_a_zone_of_their_own(course: RealDriverClass) -> None:
    course.openstack |= {"boot_volume": "20G", "volume_type": "ssd", "volume_zone": "ceph"}
    course.openstack["availability_zone"] = "nova"
    course.launch(nodes=1)
    (asked,) = course.stand_in.bodies("/volumes$")
    assert (asked["volume_type"], asked["availability_zone"]) == ("ssd", "ceph")
    assert course.stand_in.bodies("/servers$")[0]["server"]["availability_zone"] == "nova"


@pytest.mark.parametrize(
    ("key", "wrong", "available"), [("volume_type", "sdd", "ssd, __DEFAULT__"), ("volume_zone", "nova", "ceph")]
)
def test_a_misspelt_type_or_zone_of_volumes_is_refused_with_those_that_exist(
    course: RealDriverClass, key: str, wrong: str, available: str
) -> None:
    course.openstack |= {"boot_volume": "20G", key: wrong}
    with pytest.raises(SettingsError, match=f"does not have openstack.{key}: '{wrong}'") as raised:
        course.plan()
    assert raised.value.remedy == f"Available: {available}."
