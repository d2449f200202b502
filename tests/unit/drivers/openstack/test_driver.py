"""The driver as a workflow uses it: existing machines, new ones, and resources."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.openstack.inventory import ANSWERED
from cloudscale.errors import MachineError, NotSetUp, RequestError, SettingsError
from cloudscale.hosts.facts import usable_memory
from cloudscale.model import Kind, Machine, MachineState, Survey
from tests.lab.stand_in.machines import Server
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    Time,
)
from tests.unit.drivers.openstack.testbed import CloudTestbed, boot_one, boot_several, names

pytestmark = MARKS


def made(testbed: CloudTestbed, count: int = 1) -> list[Server]:
    """The servers of machines that an earlier run booted."""
    return [testbed.add_machine(f"bio-{number}") for number in range(1, count + 1)]


def become(server: Server, status: str, *, answered: bool) -> None:
    server.fate = status
    server.become(status)
    server.tags = [MARK, *([ANSWERED] if answered else [])]


def surveyed(driver: OpenStack, name: str = "bio-1") -> Survey:
    (machine,) = (machine for machine in driver.machines() if machine.name == name)
    return driver.survey(machine)


# --- existing machines ---


def test_an_empty_project_has_no_machines(testbed: CloudTestbed) -> None:
    driver = testbed.driver()
    assert driver.machines() == []
    assert driver.resources() == ""


def test_the_machines_are_read_back_with_the_addresses_that_students_type(testbed: CloudTestbed) -> None:
    made(testbed, 3)
    machines = testbed.driver().machines()
    assert names(machines) == ["bio-1", "bio-2", "bio-3"]
    for machine in machines:
        server = testbed.at(machine.address)
        assert server and server.name == machine.name
        assert machine.address.startswith("192.0.2.")


def test_without_floating_ips_it_is_their_own_address(testbed: CloudTestbed) -> None:
    boot_one(testbed.driver(external_network="none"))
    (machine,) = testbed.driver(external_network="none").machines()
    assert machine.address.startswith("10.20.")


def test_a_machine_that_has_no_floating_ip_any_more_has_no_address(testbed: CloudTestbed) -> None:
    made(testbed)
    testbed.stand_in.network.floating_ips.items.clear()
    assert testbed.driver().machines() == [Machine("bio-1", "")]


def test_a_course_sees_its_own_machines_only(testbed: CloudTestbed) -> None:
    made(testbed)
    assert testbed.driver("bi").machines() == []
    assert testbed.driver("bio-1").machines() == []
    assert testbed.driver("bio").machines() != []


# --- surveys ---


def test_a_machine_that_is_up_is_looked_at_over_ssh(testbed: CloudTestbed) -> None:
    (server,) = made(testbed)
    driver = testbed.driver()
    survey = surveyed(driver)
    port = testbed.stand_in.network.ports.items[server.ports[0]]
    assert survey.address == port["fixed_ips"][0]["ip_address"]  # at which the machines reach each other
    assert (survey.cpus, survey.state) == (4, MachineState.BARE)
    driver.prepare(survey.machine)
    assert surveyed(testbed.driver()).state is MachineState.SERVING
    assert testbed.clients[0]["host"] == survey.machine.address


def test_looking_changes_nothing(testbed: CloudTestbed) -> None:
    made(testbed, 2)
    driver = testbed.driver()
    for machine in driver.machines():
        driver.survey(machine)
    driver.resources()
    driver.order(2, ())
    assert {made.method for made in testbed.stand_in.requests if "/identity/" not in made.path} == {"GET"}


@pytest.mark.parametrize(
    ("status", "answered", "set_up"),
    [
        *((status, False, False) for status in ("BUILD", "ERROR", "SHUTOFF", "ACTIVE", "PAUSED", "UNKNOWN")),
        *((status, True, True) for status in ("BUILD", "SHUTOFF", "REBOOT", "HARD_REBOOT")),
    ],
)
def test_one_that_is_on_its_way_is_as_large_as_its_flavor(
    testbed: CloudTestbed, status: str, answered: bool, set_up: bool
) -> None:
    (server,) = made(testbed)
    become(server, status, answered=answered)
    before = len(testbed.logins)
    survey = surveyed(testbed.driver())
    assert survey.state is (MachineState.OFF if set_up else MachineState.COMING)
    assert (survey.cpus, survey.memory) == (1, usable_memory(1536))
    assert survey.networks == {"10.20.0.0/20"}
    assert len(testbed.logins) == before


def test_one_whose_floating_ip_was_taken_away_comes_again(testbed: CloudTestbed) -> None:
    made(testbed)
    testbed.stand_in.network.floating_ips.items.clear()
    survey = surveyed(testbed.driver())
    assert survey.state is MachineState.OFF


@pytest.mark.parametrize("status", ["ERROR: Disk full", "PAUSED", "SUSPENDED", "UNKNOWN"])
def test_a_machine_that_has_worked_and_does_not_any_more_is_reported(testbed: CloudTestbed, status: str) -> None:
    (server,) = made(testbed)
    become(server, status, answered=True)
    with pytest.raises(MachineError) as raised:
        surveyed(testbed.driver())
    state = status.replace(": Disk full", " (Disk full)")
    assert raised.value.message == f"bio-1: its server is {state}."
    assert "invoke driver_reset --only bio-1" in raised.value.remedy


def test_a_machine_that_is_being_deleted_is_reported(testbed: CloudTestbed) -> None:
    (server,) = made(testbed)
    become(server, "ACTIVE", answered=True)
    server.last_looks = 100
    with pytest.raises(MachineError, match=r"^bio-1: its server is ACTIVE deleting\."):
        surveyed(testbed.driver())


# --- machines of others ---


def test_a_course_with_another_key_is_refused_before_anything_is_done(testbed: CloudTestbed) -> None:
    made(testbed)
    shutil.rmtree(testbed.course.folder)
    driver = testbed.driver()
    (machine,) = driver.machines()
    with pytest.raises(RequestError) as raised:
        driver.survey(machine)
    assert raised.value.exit_code == 2
    assert "bio-1 was made with another SSH key (SHA256:" in raised.value.message
    assert str(testbed.course.folder) in raised.value.message
    assert "--course" in raised.value.remedy
    boot_one(testbed.driver("geo"), "geo-1")  # which makes another key
    shutil.copytree(
        testbed.course.folder, testbed.course.folder.parent.parent / "bio" / "openstack", dirs_exist_ok=True
    )
    driver = testbed.driver()
    driver.machines()
    with pytest.raises(RequestError, match="another SSH key"):
        driver.survey(machine)
    with pytest.raises(RequestError, match="another SSH key"):
        driver.run(machine, "ls", 5)


def test_the_folder_is_all_that_another_trainer_needs(testbed: CloudTestbed) -> None:
    made(testbed)
    kept = testbed.course.folder / "id_ed25519"
    private = kept.read_bytes()
    shutil.rmtree(testbed.course.folder)
    testbed.course.make_folder()
    kept.write_bytes(private)
    assert not surveyed(testbed.driver()).state.needs_boot


def test_a_course_can_be_swept_without_its_folder(testbed: CloudTestbed) -> None:
    made(testbed)
    shutil.rmtree(testbed.course.folder)
    driver = testbed.driver()
    driver.machines()
    assert all(outcome.ok for outcome in driver.sweep())
    assert not any(testbed.stand_in.totals().values())


# --- commands and engines ---


def test_commands_run_on_machines_that_are_up(testbed: CloudTestbed) -> None:
    made(testbed)
    driver = testbed.driver()
    (machine,) = driver.machines()
    assert driver.run(machine, "ls", 5).stdout == "ls within 5\n"
    assert [login.label for login in testbed.logins] == ["bio-1"]


@pytest.mark.parametrize(
    ("status", "state"), [("ERROR: No host", r"ERROR \(No host\)"), ("SHUTOFF", "SHUTOFF"), ("BUILD", "BUILD")]
)
def test_the_state_of_other_machines_is_reported(testbed: CloudTestbed, status: str, state: str) -> None:
    (server,) = made(testbed)
    become(server, status, answered=True)
    driver = testbed.driver()
    (machine,) = driver.machines()
    with pytest.raises(MachineError, match=rf"bio-1: its server is {state}") as raised:
        driver.run(machine, "ls", 5)
    assert "invoke themachine" in raised.value.remedy


def test_a_missing_machine_is_reported(testbed: CloudTestbed) -> None:
    driver = testbed.driver()
    driver.machines()
    with pytest.raises(MachineError, match="bio-7: its server is missing"):
        driver.run(Machine("bio-7", ""), "ls", 5)


def test_a_machine_that_has_not_answered_has_no_engine_yet(testbed: CloudTestbed) -> None:
    (server,) = made(testbed)
    become(server, "ACTIVE", answered=False)
    driver = testbed.driver()
    (machine,) = driver.machines()
    with pytest.raises(NotSetUp, match=r"bio-1: it has not come up yet \(ACTIVE\)"):
        driver.connect(machine)


def test_nobody_logs_in_to_a_machine_before_its_boot_has_read_its_keys_from_the_console(testbed: CloudTestbed) -> None:
    (server,) = made(testbed)
    become(server, "ACTIVE", answered=False)
    driver = testbed.driver()
    (machine,) = driver.machines()
    with driver.exclusive("ann at lab"):
        pass
    with pytest.raises(MachineError, match="bio-1: its server is not up yet"):
        driver.run(machine, "true", 5)
    assert testbed.logins == []


def test_it_is_once_the_machine_is_set_up(testbed: CloudTestbed) -> None:
    made(testbed)
    driver = testbed.driver()
    (machine,) = driver.machines()
    driver.survey(machine)
    driver.prepare(machine)
    assert testbed.driver().machines() == [machine]
    later = testbed.driver()
    later.machines()
    assert later.connect(machine).machine == machine


# --- new machines ---


def test_a_machine_is_of_the_flavors_kind(testbed: CloudTestbed) -> None:
    assert testbed.driver(flavor="m1.large").kind() == Kind("m1.large", 4, usable_memory(4096))


def test_a_misspelt_name_is_refused_before_anything_is_made(
    monkeypatch: pytest.MonkeyPatch, stand_in: OwnCloud, clock: Time
) -> None:
    testbed = CloudTestbed(monkeypatch, stand_in, clock)
    with pytest.raises(SettingsError, match=r"openstack\.flavor"):
        testbed.driver(flavor="m1.smal").kind()
    testbed.close()
    assert {made.method for made in stand_in.requests if "/identity/" not in made.path} == {"GET"}


def test_new_machines_are_named_by_their_course(testbed: CloudTestbed) -> None:
    assert names([survey.machine for survey in testbed.driver().order(3, ()).surveys]) == ["bio-1", "bio-2", "bio-3"]


@pytest.mark.parametrize(
    ("course", "prefix", "first"),
    [
        ("bio", "lab-", "lab-bio-1"),
        ("Bio_2.0", "", "bio-2-0-1"),
        ("BIO", "x", "xbio-1"),
        ("0", "", "0-1"),
        ("a...", "", "a-1"),
    ],
)
def test_their_names_are_hostnames(testbed: CloudTestbed, course: str, prefix: str, first: str) -> None:
    order = testbed.driver(course, server_prefix=prefix).order(1, ())
    assert names([survey.machine for survey in order.surveys]) == [first]


def test_names_that_are_free_again_are_used_first_and_in_their_order(testbed: CloudTestbed) -> None:
    servers = made(testbed, 4)
    for server in (servers[1], servers[3]):
        testbed.stand_in.compute.remove(server)  # but not its port
    driver = testbed.driver()
    assert names(driver.machines()) == ["bio-1", "bio-3"]
    surveys = driver.order(5, ("bio-12", "old-2", "bio-3")).surveys
    assert names([survey.machine for survey in surveys]) == ["bio-2", "bio-4", "bio-12", "old-2", "bio-5"]
    assert [survey.machine.address != "" for survey in surveys] == [True, True, False, False, False]


def test_no_name_is_given_twice(testbed: CloudTestbed) -> None:
    made(testbed, 2)
    driver = testbed.driver()
    driver.machines()
    surveys = driver.order(3, ("bio-1", "bio-3")).surveys
    assert names([survey.machine for survey in surveys]) == ["bio-3", "bio-4", "bio-5"]


def test_what_is_to_come_is_coming(testbed: CloudTestbed) -> None:
    (survey,) = testbed.driver().order(1, ()).surveys
    assert survey == Survey(
        Machine("bio-1", ""),
        address="",
        cpus=1,
        memory=usable_memory(1536),
        networks=frozenset({"10.20.0.0/20"}),
        state=MachineState.COMING,
    )


def test_nothing_to_come_takes_nothing(testbed: CloudTestbed) -> None:
    made(testbed, 2)
    testbed.stand_in.network.groups.add(MARK, MARK)
    driver = testbed.driver()
    driver.machines()
    order = driver.order(0, ())
    assert (order.surveys, order.fits) == ((), 0)
    assert {demand.need for demand in order.demands} == {0}


def test_a_quota_that_is_too_small_is_shown_with_what_would_fit(testbed: CloudTestbed) -> None:
    testbed.stand_in.set_quota("cores", 3)
    order = testbed.driver().order(5, ())
    assert order.fits == 3
    assert [demand.resource for demand in order.demands if not demand.is_met] == ["cores"]


def test_what_is_planned_is_what_is_taken(testbed: CloudTestbed) -> None:
    testbed.stand_in.set_quota("server_group_members", 2)
    given: dict[str, Any] = {"boot_volume": "5G"}
    boot_several(testbed.driver(**given), 2)
    servers = [*testbed.stand_in.compute.servers.values()]
    testbed.stand_in.compute.remove(servers[0])
    testbed.stand_in.network.floating_ips.items.popitem()
    testbed.stand_in.add_ip()
    driver = testbed.driver(**given)
    (other,) = driver.machines()  # which is booted again, because it has no floating IP
    before = {demand.resource: demand.used for demand in driver.order(0, ()).demands}
    planned = {demand.resource: demand.need for demand in driver.order(3, ()).demands}
    for machine in (other, *(survey.machine for survey in driver.order(3, ()).surveys)):
        driver.boot(machine)
    after = {demand.resource: demand.used for demand in testbed.driver(**given).order(0, ()).demands}
    assert {name: after[name] - before[name] for name in planned} == planned


def test_any_number_of_machines_may_be_asked_for(testbed: CloudTestbed) -> None:
    testbed.driver().check_nodes(10**6)  # the quota decides


# --- ports and deletion ---


def test_the_seats_ports_are_opened_and_closed(testbed: CloudTestbed) -> None:
    made(testbed)
    driver = testbed.driver()
    driver.machines()

    def from_outside() -> set[tuple[int, int]]:
        rules = testbed.stand_in.network.rules.items.values()
        return {(r["port_range_min"], r["port_range_max"]) for r in rules if r["remote_ip_prefix"]}

    driver.open_ports({"bio-1": {4321}, "bio-2": {4321, 4322}})
    assert from_outside() == {(22, 22), (4321, 4322)}
    driver.open_ports({"bio-1": set(), "bio-2": {4322}})
    assert from_outside() == {(22, 22), (4322, 4322)}


def test_the_resources_are_described_in_words(testbed: CloudTestbed) -> None:
    boot_several(testbed.driver(boot_volume="5G"), 2)
    state = testbed.driver().resources()
    assert state == "2 servers, 2 floating IPs, 2 ports, 2 volumes, 1 server groups, 1 security groups"


def test_a_machine_goes_with_all_that_it_has(testbed: CloudTestbed) -> None:
    made(testbed, 2)
    driver = testbed.driver()
    assert all(outcome.ok for outcome in driver.sweep(["bio-2"]))
    assert names(testbed.driver().machines()) == ["bio-1"]
    assert all(outcome.ok for outcome in driver.sweep())
    assert not any(testbed.stand_in.totals().values())
