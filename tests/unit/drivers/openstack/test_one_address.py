"""A class behind a gateway has one floating IP: the first machine's, through which the others are reached."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.errors import CapacityError, ConnectionFailed
from cloudscale.gateway import certificates, program
from tests.unit.classroom import messages
from tests.unit.drivers.openstack.cloud import MARKS
from tests.unit.drivers.openstack.course import RealDriverClass
from tests.unit.fake_host import FakeHost

pytestmark = MARKS
CADDY = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}


class Channel:
    """The engine of a machine, as the machine itself reaches it."""

    def recv(self, size: int) -> bytes:
        return b""

    def sendall(self, data: bytes) -> None:
        pass

    def settimeout(self, seconds: float) -> None:
        pass

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass


@pytest.fixture
def hidden(course: RealDriverClass, monkeypatch: pytest.MonkeyPatch, loopback: str) -> RealDriverClass:
    """Six students, for three machines, in a network that nobody outside reaches."""
    course.enrol(6)
    course.gateway = {"tls": "internal"}
    course.registry[program.IMAGE] = CADDY
    course.testbed.hides_inner = True
    monkeypatch.setattr(FakeHost, "open", lambda self, host, port, timeout: Channel(), raising=False)
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    return course


def ips(course: RealDriverClass) -> dict[str, str]:
    """The floating IPs that lead to machines, by machine."""
    network, compute = course.stand_in.network, course.stand_in.compute
    owners = {port: server.name for server in compute.servers.values() for port in server.ports}
    found = network.floating_ips.items.values()
    return {owners[ip["port_id"]]: ip["floating_ip_address"] for ip in found if ip["port_id"] in owners}


def launch(course: RealDriverClass, **flags: Any) -> list[dict[str, Any]]:
    report = course.launch(**flags)
    assert not report.problems, messages(report)
    return course.rows(report)


def test_a_class_behind_a_gateway_takes_one(hidden: RealDriverClass) -> None:
    course = hidden
    course.stand_in.set_quota("floatingip", 1)
    rows = launch(course, gateway="path")
    assert set(ips(course)) == {"bio-1"} and {row["node"] for row in rows} == {"bio-1", "bio-2", "bio-3"}
    assert all(row["url"].startswith(f"https://{ips(course)['bio-1']}/") for row in rows)
    through = {target.label: target.via.label for target in course.testbed.logins if target.via}
    assert through == {"bio-2": "bio-1", "bio-3": "bio-1"}
    course.testbed.logins.clear()
    again = launch(course)
    assert [row["url"] for row in again] == [row["url"] for row in rows]
    assert set(ips(course)) == {"bio-1"}


def test_the_plan_counts_one_and_without_a_gateway_all(hidden: RealDriverClass) -> None:
    course = hidden
    needs = {row["resource"]: row["need"] for row in course.plan(gateway="path")["quota"]}
    assert needs["floating IPs"] == 1 and "give back" not in course.notes
    needs = {row["resource"]: row["need"] for row in course.plan()["quota"]}
    assert needs["floating IPs"] == 3


def test_without_one_there_is_too_little_for_each(hidden: RealDriverClass) -> None:
    course = hidden
    course.stand_in.set_quota("floatingip", 1)
    with pytest.raises(CapacityError, match="floating IPs"):
        course.launch()


def test_machines_give_theirs_back_when_the_class_gets_a_gateway(hidden: RealDriverClass) -> None:
    course = hidden
    course.gateway["port"] = 8443  # something else has port 80 of these machines
    launch(course)
    before = ips(course)
    assert len(before) == 3
    course.plan(gateway="path")
    assert "give back the floating IPs that they have" in course.notes
    assert ips(course) == before
    launch(course, gateway="path")
    assert ips(course) == {"bio-1": before["bio-1"]}
    assert len(course.stand_in.network.floating_ips.items) == 1
    assert "bio-2: its floating IP" in course.notes
    assert "its engine" not in course.notes
    assert {row["state"] for row in launch(course)} == {"ready"}
    assert "its engine" not in course.notes  # which would restart, and the seats with it


def test_one_that_is_not_reached_through_the_first_keeps_its_own(
    hidden: RealDriverClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = hidden
    course.gateway["port"] = 8443
    launch(course)

    def refuse(self: FakeHost, host: str, port: int, timeout: float) -> Channel:
        raise ConnectionFailed("bio-1: its SSH server does not let you connect to others through it.")

    monkeypatch.setattr(FakeHost, "open", refuse, raising=False)
    launch(course, gateway="path")
    assert len(ips(course)) == 3
    assert "Warning: bio-2 keeps its floating IP" in course.notes
    assert {row["state"] for row in launch(course)} == {"ready"}


def test_one_that_was_given_stays_with_the_project(hidden: RealDriverClass) -> None:
    course = hidden
    given = str(course.stand_in.add_ip(marked="for the class")["floating_ip_address"])
    course.openstack = {**course.openstack, "floating_ips": [given]}
    launch(course, gateway="path")
    assert ips(course) == {"bio-1": given}


def test_they_get_addresses_of_their_own_when_it_goes(hidden: RealDriverClass) -> None:
    course = hidden
    launch(course, gateway="path")
    rows = launch(course, gateway="none")
    assert set(ips(course)) == {"bio-1", "bio-2", "bio-3"}
    assert {row["host"] for row in rows} == set(ips(course).values())
    assert "Machines that get a public address restart" in course.notes
    assert {row["state"] for row in launch(course)} == {"ready"}


def test_the_students_ports_are_open_to_the_gateways_machine_alone(hidden: RealDriverClass) -> None:
    course = hidden
    launch(course, gateway="path")
    (group,) = (one for one in course.stand_in.network.groups.items.values() if one["name"] != "default")
    rules = [rule for rule in course.stand_in.network.rules.items.values() if rule["security_group_id"] == group["id"]]
    opened = {(rule["port_range_min"], rule["remote_ip_prefix"]) for rule in rules if rule["direction"] == "ingress"}
    first = course.testbed.addresses(course.stand_in.compute.server("bio-1"))[0]
    assert {(80, "0.0.0.0/0"), (443, "0.0.0.0/0"), (4321, f"{first}/32")} <= opened
    assert (4321, "0.0.0.0/0") not in opened


def test_a_first_machine_that_was_lost_comes_again_at_its_address(hidden: RealDriverClass) -> None:
    course = hidden
    launch(course, gateway="path")
    before = ips(course)
    course.lose("bio-1")
    report = course.launch()
    assert not report.problems, messages(report)
    assert ips(course) == before
    assert {row["url"].split("/")[2] for row in course.rows(report)} == {before["bio-1"]}


def test_so_does_the_only_manager_which_the_others_are_reached_through(hidden: RealDriverClass) -> None:
    course = hidden
    course.enrol(4)  # on two machines
    first = launch(course, gateway="path")
    course.lose("bio-1")
    report = course.launch()
    assert not report.problems, messages(report)
    assert "a new swarm is created" in course.notes
    assert course.rows(report) == first
    again = course.launch()
    assert "nothing was changed" in course.notes, course.notes
    assert course.rows(again) == first
