"""Booting a machine: it is awaited, replaced if it does not come up, and never replaced once it has answered."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers import made
from cloudscale.drivers.openstack.driver import REPLACEMENTS
from cloudscale.drivers.openstack.inventory import ANSWERED
from cloudscale.errors import CloudError, HostKeyChanged, LoginRefused, MachineError
from cloudscale.fanout import fan_out
from cloudscale.hosts import first_login
from cloudscale.model import CommandResult, Machine, MachineState
from tests.lab.stand_in import Fault
from tests.lab.stand_in.machines import Server
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    Time,
)
from tests.unit.drivers.openstack.testbed import CloudTestbed, boot_one, boot_several, names
from tests.unit.fake_host import FakeHost

pytestmark = MARKS
ONE = {"servers": 1, "server groups": 1, "ports": 1, "floating IPs": 1, "security groups": 1, "volumes": 0}
SILENT = 20  # seconds that these tests give a machine to answer


def server(testbed: CloudTestbed, name: str = "bio-1") -> Server:
    return testbed.stand_in.compute.server(name)


def failure(testbed: CloudTestbed, kind: type[Exception] = MachineError, **given: Any) -> str:
    """The error message for a machine that does not come up."""
    with pytest.raises(kind) as raised:
        boot_one(testbed.driver(boot_timeout=SILENT, **given))
    return str(raised.value)


def left(testbed: CloudTestbed, status: str = "ACTIVE", *, answered: bool) -> Server:
    """The server of an earlier run, which may have been interrupted before the machine answered."""
    existing = testbed.add_machine(answered=answered)
    existing.fate = status
    existing.become(status)
    return existing


def parts(testbed: CloudTestbed) -> tuple[int, int, int]:
    """The number of servers, ports and floating IPs."""
    totals = testbed.stand_in.totals()
    return totals["servers"], totals["ports"], totals["floating IPs"]


def posts(testbed: CloudTestbed, path: str = "/v2.1/servers$") -> int:
    return testbed.stand_in.count("POST", path)


# --- machines that come up ---


def test_a_machine_is_up_when_it_lets_us_in(testbed: CloudTestbed) -> None:
    survey = boot_one(testbed.driver())
    made = server(testbed)
    (port,) = (testbed.stand_in.network.ports.items[id] for id in made.ports)
    assert survey.machine.name == "bio-1"
    assert testbed.at(survey.machine.address) is made
    assert survey.address == port["fixed_ips"][0]["ip_address"]
    assert (survey.state, survey.cpus) == (MachineState.BARE, 4)  # as reported by the machine itself
    assert made.tags == [ANSWERED, MARK]
    assert testbed.stand_in.totals() == ONE


def test_its_address_is_made_while_it_boots(testbed: CloudTestbed) -> None:
    boot_one(testbed.driver())
    asked = [made.path.rpartition("/")[2] for made in testbed.stand_in.requests if made.method == "POST"]
    assert asked.index("ports") < asked.index("servers") < asked.index("floatingips")


def test_one_login_with_the_courses_key_is_enough(testbed: CloudTestbed) -> None:
    driver = testbed.driver(user="ubuntu")
    survey = boot_one(driver)
    driver.prepare(survey.machine)
    driver.run(survey.machine, "ls", 5)
    (target,) = testbed.logins
    assert (target.host, target.user, target.label) == (survey.machine.address, "ubuntu", "bio-1")
    assert testbed.clients[0]["host"] == survey.machine.address


def test_the_packages_of_its_first_boot_are_waited_for(testbed: CloudTestbed, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, float]] = []
    known = FakeHost.run_root

    def run_root(self: FakeHost, script: str, *arguments: str, timeout: float, **more: Any) -> CommandResult:
        ran.append((script, timeout))
        return known(self, script, *arguments, timeout=timeout, **more)

    monkeypatch.setattr(FakeHost, "run_root", run_root)
    boot_one(testbed.driver())
    (first, seconds), *_ = ran
    assert "flock" in first
    assert "/var/lib/cloudscale/course/lock" in first
    assert seconds >= 600


def test_a_machine_that_is_up_can_be_booted_again(testbed: CloudTestbed) -> None:
    driver = testbed.driver()
    survey = boot_one(driver)
    assert driver.boot(survey.machine) == survey
    assert driver.boot(Machine("bio-1", "")) == survey
    assert (testbed.stand_in.totals(), posts(testbed)) == (ONE, 1)


def test_several_come_up_side_by_side(testbed: CloudTestbed) -> None:
    driver = testbed.driver()
    outcomes = fan_out(lambda number: boot_one(driver, f"bio-{number}"), range(1, 5))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert names(testbed.driver().machines()) == [f"bio-{number}" for number in range(1, 5)]
    assert testbed.stand_in.totals() == ONE | {"servers": 4, "ports": 4, "floating IPs": 4}


# --- servers of an earlier run ---


@pytest.mark.parametrize("status", ["ACTIVE", "BUILD", "SHUTOFF"])
def test_a_server_of_an_interrupted_run_is_awaited(testbed: CloudTestbed, status: str) -> None:
    existing = left(testbed, status, answered=False)
    existing.fate = "SHUTOFF" if status == "SHUTOFF" else "ACTIVE"
    driver = testbed.driver()
    (machine,) = driver.machines()
    assert driver.survey(machine).state.needs_boot
    driver.order(0, ())
    assert not driver.boot(machine).state.needs_boot
    assert server(testbed) is existing
    assert existing.tags == [ANSWERED, MARK]
    assert (posts(testbed), parts(testbed)) == (0, (1, 1, 1))


def test_one_in_error_that_never_answered_is_replaced(testbed: CloudTestbed) -> None:
    existing = left(testbed, "ERROR: No valid host was found.", answered=False)
    address = testbed.driver().machines()[0].address
    driver = testbed.driver()
    (machine,) = driver.machines()
    survey = driver.boot(machine)
    assert server(testbed) is not existing
    assert survey.machine.address == address
    assert parts(testbed) == (1, 1, 1)


def test_a_lost_floating_ip_is_replaced(testbed: CloudTestbed) -> None:
    existing = left(testbed, answered=True)
    testbed.stand_in.network.floating_ips.items.clear()
    driver = testbed.driver()
    (machine,) = driver.machines()
    survey = driver.boot(machine)
    assert testbed.at(survey.machine.address) is existing
    assert parts(testbed) == (1, 1, 1)


def test_a_machine_that_was_deleted_comes_back_at_its_address(testbed: CloudTestbed) -> None:
    left(testbed, answered=True)
    (before,) = testbed.driver().machines()
    testbed.stand_in.compute.remove(server(testbed))
    (after,) = boot_several(testbed.driver(), 1, "bio-1")
    assert after.machine == before
    assert parts(testbed) == (1, 1, 1)


# --- replaced servers ---


def test_a_server_in_error_is_replaced_and_its_fault_reported(testbed: CloudTestbed) -> None:
    testbed.stand_in.compute.outcomes["bio-1"] = ["ERROR: No valid host was found."]
    survey = boot_one(testbed.driver())
    assert not survey.state.needs_boot
    assert "bio-1: its server is in ERROR (No valid host was found).\nbio-1: replacing its server" in testbed.messages
    assert (posts(testbed), parts(testbed)) == (2, (1, 1, 1))


def test_so_is_one_that_never_answers_with_the_end_of_its_console(testbed: CloudTestbed, clock: Time) -> None:
    testbed.mute.add("bio-1")
    testbed.stand_in.compute.consoles["bio-1"] = "Linux\nGrub error 17\n"
    boot_one(testbed.driver(boot_timeout=SILENT))
    message = "\n".join(testbed.messages)
    assert f"bio-1: it runs, but nothing answers on 192.0.2.3, port 22, after {SILENT} s." in message
    assert "  | Grub error 17" in message
    assert "bio-1: replacing its server" in message
    assert (posts(testbed), parts(testbed)) == (2, (1, 1, 1))


def test_so_is_one_that_vanishes_while_it_boots(testbed: CloudTestbed) -> None:
    testbed.stand_in.compute.outcomes["bio-1"] = ["BUILD"]
    seen: list[str] = []

    def vanish(request: Any) -> None:
        if request.method == "GET" and "/servers/detail" in request.path and testbed.stand_in.compute.servers:
            seen.append(request.path)
            if len(seen) == 3:
                testbed.stand_in.compute.remove(server(testbed))

    testbed.stand_in.seen = vanish
    boot_one(testbed.driver())
    assert "bio-1: its server was deleted while it booted.\nbio-1: replacing its server" in testbed.messages
    assert parts(testbed) == (1, 1, 1)


def test_so_is_one_that_is_being_deleted(testbed: CloudTestbed) -> None:
    left(testbed, "ACTIVE", answered=False).last_looks = 3
    driver = testbed.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert "bio-1: its server was deleted while it booted.\nbio-1: replacing its server" in testbed.messages
    assert parts(testbed) == (1, 1, 1)


def test_it_is_not_replaced_for_ever(testbed: CloudTestbed) -> None:
    testbed.stand_in.compute.outcomes["bio-1"] = ["ERROR: No valid host was found."] * 10
    message = failure(testbed)
    assert "bio-1: its server is in ERROR (No valid host was found)." in message
    assert f"this was attempt {REPLACEMENTS + 1} of {REPLACEMENTS + 1} to create its server" in message
    assert posts(testbed) == REPLACEMENTS + 1
    assert testbed.stand_in.totals()["ports"] == testbed.stand_in.totals()["floating IPs"] == 1


# --- servers that are not replaced ---


@pytest.mark.parametrize(
    "refusal", [LoginRefused("bio-1: it does not let debian in."), HostKeyChanged("bio-1: other.")]
)
def test_a_login_that_is_refused_would_be_refused_by_the_next_one_too(testbed: CloudTestbed, refusal: Any) -> None:
    testbed.refusals["bio-1"] = refusal
    with pytest.raises(type(refusal), match="bio-1: "):
        boot_one(testbed.driver())
    assert posts(testbed) == 1
    assert server(testbed).tags == [MARK]


@pytest.mark.parametrize("status", ["ACTIVE", "SHUTOFF"])
def test_a_machine_that_has_worked_is_started_and_never_replaced(testbed: CloudTestbed, status: str) -> None:
    existing = left(testbed, status, answered=True)
    driver = testbed.driver(boot_timeout=SILENT)
    (machine,) = driver.machines()
    driver.boot(machine)
    assert server(testbed) is existing
    assert existing.status == "ACTIVE"
    testbed.mute.add("bio-1")
    testbed.always.add("bio-1")
    with pytest.raises(MachineError, match="bio-1: it runs, but nothing answers") as raised:
        again = testbed.driver(boot_timeout=SILENT)
        again.machines()
        again.boot(machine)
    assert "may hold students' work" in raised.value.remedy
    assert server(testbed) is existing
    assert posts(testbed) == 0


def test_nor_is_a_server_that_fails_while_it_is_started(testbed: CloudTestbed) -> None:
    existing = left(testbed, answered=True)
    driver = testbed.driver()
    (machine,) = driver.machines()
    existing.fate = "ERROR: Disk full"
    existing.become(existing.fate)
    with pytest.raises(MachineError, match=r"in ERROR \(Disk full\)"):
        driver.boot(machine)
    assert server(testbed) is existing


def test_one_that_answered_in_this_run_is_not_replaced_either(testbed: CloudTestbed) -> None:
    driver = testbed.driver(boot_timeout=SILENT)
    survey = boot_one(driver)
    existing = server(testbed)
    testbed.mute.add("bio-1")
    testbed.always.add("bio-1")
    with pytest.raises(MachineError, match="nothing answers"):
        driver.boot(survey.machine)
    assert server(testbed) is existing


# --- duplicate servers ---


def twice(testbed: CloudTestbed, *, answered: bool) -> tuple[Server, Server]:
    """A second server with the same name, to which nova has given the port."""
    first = left(testbed, answered=answered)
    second = testbed.stand_in.compute.add_server("bio-1", tags=[MARK], metadata=dict(first.metadata))
    if not answered:
        second.ports, first.ports = first.ports, []
        testbed.stand_in.network.ports.items[second.ports[0]]["device_id"] = second.id
    return first, second


def test_of_a_machine_that_was_made_twice_the_one_with_work_on_it_stays(testbed: CloudTestbed) -> None:
    first, second = twice(testbed, answered=True)
    driver = testbed.driver()
    driver.machines()
    driver.open_ports({})
    assert server(testbed) is first
    assert any(second.id in message for message in testbed.messages)


def test_of_two_without_both_go_and_one_comes(testbed: CloudTestbed) -> None:
    twins = twice(testbed, answered=False)
    driver = testbed.driver()
    (machine,) = driver.machines()
    address = machine.address
    driver.order(0, ())
    survey = driver.boot(machine)
    assert server(testbed) not in twins
    assert survey.machine.address == address
    assert parts(testbed) == (1, 1, 1)


def test_they_are_gone_before_another_is_made(testbed: CloudTestbed) -> None:
    twice(testbed, answered=False)
    testbed.stand_in.compute.looks_to_delete = 3
    driver = testbed.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert parts(testbed) == (1, 1, 1)


# --- failures of the cloud ---


def test_a_quota_that_was_used_up_meanwhile_is_reported_and_nothing_is_replaced(testbed: CloudTestbed) -> None:
    testbed.stand_in.set_quota("instances", 0)
    with pytest.raises(CloudError, match=r"bio-1: creating its server failed: Quota exceeded for instances"):
        boot_one(testbed.driver())
    assert posts(testbed) == 1


def test_a_tag_that_can_not_be_set_is_reported(testbed: CloudTestbed) -> None:
    testbed.stand_in.faults.append(Fault("PUT", f"/tags/{ANSWERED}$", status=403, times=None))
    assert "bio-1: tagging its server" in failure(testbed, CloudError)


def test_the_limits_leave_a_trainer_time_for_another_try() -> None:
    assert 1 <= REPLACEMENTS <= 3
    assert made.INSTALLING >= 600
    assert first_login.SETTLING < 120
