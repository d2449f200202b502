"""A machine is brought up: waited for, replaced where it will never serve, and left alone once it has."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers.openstack import driver as module
from cloudscale.drivers.openstack.driver import REPLACEMENTS
from cloudscale.drivers.openstack.inventory import ANSWERED
from cloudscale.errors import CloudError, HostKeyChanged, LoginRefused, MachineError
from cloudscale.fanout import fan_out
from cloudscale.hosts import first_login
from cloudscale.model import CommandResult, Machine, MachineState
from tests.lab.stand_in import Fault
from tests.lab.stand_in.machines import Server
from tests.unit.drivers.openstack.cloud import (  # noqa: F401 - fixtures
    MARK,
    MARKS,
    OwnCloud,
    Time,
    clock_fixture,
    opened_fixture,
    own_cloud_fixture,
    standing_fixture,
)
from tests.unit.drivers.openstack.lab import CloudLab, brought, lab_fixture, names, up  # noqa: F401 - fixtures
from tests.unit.fake_host import FakeHost

pytestmark = MARKS
ONE = {"servers": 1, "server groups": 1, "ports": 1, "floating IPs": 1, "security groups": 1, "volumes": 0}
SILENT = 20  # seconds that these tests give a machine to answer


def server(lab: CloudLab, name: str = "bio-1") -> Server:
    return lab.stand_in.compute.server(name)


def failure(lab: CloudLab, kind: type[Exception] = MachineError, **given: Any) -> str:
    """What is said of a machine that does not come up."""
    with pytest.raises(kind) as raised:
        up(lab.driver(boot_timeout=SILENT, **given))
    return str(raised.value)


def left(lab: CloudLab, status: str = "ACTIVE", *, answered: bool) -> Server:
    """As an earlier run leaves a machine behind, which may have been cut off before it had answered."""
    there = lab.add_machine(answered=answered)
    there.fate = status
    there.become(status)
    return there


def parts(lab: CloudLab) -> tuple[int, int, int]:
    """How many servers, ports and floating IPs there are."""
    totals = lab.stand_in.totals()
    return totals["servers"], totals["ports"], totals["floating IPs"]


def posts(lab: CloudLab, path: str = "/v2.1/servers$") -> int:
    return lab.stand_in.count("POST", path)


# --- it comes up ---


def test_a_machine_is_up_when_it_lets_us_in(lab: CloudLab) -> None:
    survey = up(lab.driver())
    made = server(lab)
    (port,) = (lab.stand_in.network.ports.items[id] for id in made.ports)
    assert survey.machine.name == "bio-1"
    assert lab.at(survey.machine.address) is made
    assert survey.address == port["fixed_ips"][0]["ip_address"]
    assert (survey.state, survey.cpus) == (MachineState.BARE, 4)  # as it says itself
    assert made.tags == [ANSWERED, MARK]
    assert lab.stand_in.totals() == ONE


def test_it_is_logged_in_to_once_and_by_the_courses_key(lab: CloudLab) -> None:
    driver = lab.driver(user="ubuntu")
    survey = up(driver)
    driver.prepare(survey.machine)
    driver.run(survey.machine, "ls", 5)
    (target,) = lab.logins
    assert (target.host, target.user, target.label) == (survey.machine.address, "ubuntu", "bio-1")
    assert lab.clients[0]["host"] == survey.machine.address


def test_the_packages_of_its_first_boot_are_waited_for(lab: CloudLab, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, float]] = []
    known = FakeHost.run_root

    def run_root(self: FakeHost, script: str, *arguments: str, timeout: float, **more: Any) -> CommandResult:
        ran.append((script, timeout))
        return known(self, script, *arguments, timeout=timeout, **more)

    monkeypatch.setattr(FakeHost, "run_root", run_root)
    up(lab.driver())
    (first, seconds), *_ = ran
    assert "flock" in first
    assert "/var/lib/cloudscale/course/lock" in first
    assert seconds >= 600


def test_a_machine_that_is_up_can_be_brought_again(lab: CloudLab) -> None:
    driver = lab.driver()
    survey = up(driver)
    assert driver.boot(survey.machine) == survey
    assert driver.boot(Machine("bio-1", "")) == survey
    assert (lab.stand_in.totals(), posts(lab)) == (ONE, 1)


def test_several_come_up_side_by_side(lab: CloudLab) -> None:
    driver = lab.driver()
    outcomes = fan_out(lambda number: up(driver, f"bio-{number}"), range(1, 5))
    assert [outcome.error for outcome in outcomes] == [None] * 4
    assert names(lab.driver().machines()) == [f"bio-{number}" for number in range(1, 5)]
    assert lab.stand_in.totals() == ONE | {"servers": 4, "ports": 4, "floating IPs": 4}


# --- what an earlier run left ---


@pytest.mark.parametrize("status", ["ACTIVE", "BUILD", "SHUTOFF"])
def test_a_server_of_a_run_that_was_cut_off_is_waited_for(lab: CloudLab, status: str) -> None:
    there = left(lab, status, answered=False)
    there.fate = "SHUTOFF" if status == "SHUTOFF" else "ACTIVE"
    driver = lab.driver()
    (machine,) = driver.machines()
    assert driver.survey(machine).state.needs_boot
    driver.order(0, ())
    assert not driver.boot(machine).state.needs_boot
    assert server(lab) is there
    assert there.tags == [ANSWERED, MARK]
    assert (posts(lab), parts(lab)) == (0, (1, 1, 1))


def test_one_in_error_that_never_answered_is_replaced(lab: CloudLab) -> None:
    there = left(lab, "ERROR: No valid host was found.", answered=False)
    address = lab.driver().machines()[0].address
    driver = lab.driver()
    (machine,) = driver.machines()
    survey = driver.boot(machine)
    assert server(lab) is not there
    assert survey.machine.address == address
    assert parts(lab) == (1, 1, 1)


def test_a_floating_ip_that_was_taken_away_is_made_anew(lab: CloudLab) -> None:
    there = left(lab, answered=True)
    lab.stand_in.network.floating_ips.items.clear()
    driver = lab.driver()
    (machine,) = driver.machines()
    survey = driver.boot(machine)
    assert lab.at(survey.machine.address) is there
    assert parts(lab) == (1, 1, 1)


def test_a_machine_that_was_deleted_comes_back_at_its_address(lab: CloudLab) -> None:
    left(lab, answered=True)
    (before,) = lab.driver().machines()
    lab.stand_in.compute.remove(server(lab))
    (after,) = brought(lab.driver(), 1, "bio-1")
    assert after.machine == before
    assert parts(lab) == (1, 1, 1)


# --- it is replaced ---


def test_a_server_in_error_is_replaced_and_its_fault_told(lab: CloudLab) -> None:
    lab.stand_in.compute.outcomes["bio-1"] = ["ERROR: No valid host was found."]
    survey = up(lab.driver())
    assert not survey.state.needs_boot
    assert "bio-1: its server is in ERROR (No valid host was found).\nbio-1: it is replaced" in lab.said
    assert (posts(lab), parts(lab)) == (2, (1, 1, 1))


def test_so_is_one_that_never_answers_with_the_end_of_its_console(lab: CloudLab, clock: Time) -> None:
    lab.mute.add("bio-1")
    lab.stand_in.compute.consoles["bio-1"] = "Linux\nGrub error 17\n"
    up(lab.driver(boot_timeout=SILENT))
    said = "\n".join(lab.said)
    assert f"bio-1: its server runs, but nothing answers on 192.0.2.3, port 22, after {SILENT} s." in said
    assert "  | Grub error 17" in said
    assert "bio-1: it is replaced" in said
    assert (posts(lab), parts(lab)) == (2, (1, 1, 1))


def test_so_is_one_that_vanishes_while_it_boots(lab: CloudLab) -> None:
    lab.stand_in.compute.outcomes["bio-1"] = ["BUILD"]
    seen: list[str] = []

    def vanish(request: Any) -> None:
        if request.method == "GET" and "/servers/detail" in request.path and lab.stand_in.compute.servers:
            seen.append(request.path)
            if len(seen) == 3:
                lab.stand_in.compute.remove(server(lab))

    lab.stand_in.seen = vanish
    up(lab.driver())
    assert "bio-1: its server was deleted while it booted.\nbio-1: it is replaced" in lab.said
    assert parts(lab) == (1, 1, 1)


def test_so_is_one_that_is_being_deleted(lab: CloudLab) -> None:
    left(lab, "ACTIVE", answered=False).last_looks = 3
    driver = lab.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert "bio-1: its server was deleted while it booted.\nbio-1: it is replaced" in lab.said
    assert parts(lab) == (1, 1, 1)


def test_it_is_not_replaced_for_ever(lab: CloudLab) -> None:
    lab.stand_in.compute.outcomes["bio-1"] = ["ERROR: No valid host was found."] * 10
    said = failure(lab)
    assert "bio-1: its server is in ERROR (No valid host was found)." in said
    assert f"that was its server number {REPLACEMENTS + 1}, and no other is tried" in said
    assert posts(lab) == REPLACEMENTS + 1
    assert lab.stand_in.totals()["ports"] == lab.stand_in.totals()["floating IPs"] == 1


# --- it is not ---


@pytest.mark.parametrize(
    "refusal", [LoginRefused("bio-1: it does not let debian in."), HostKeyChanged("bio-1: other.")]
)
def test_a_login_that_is_refused_would_be_refused_by_the_next_one_too(lab: CloudLab, refusal: Any) -> None:
    lab.refusals["bio-1"] = refusal
    with pytest.raises(type(refusal), match="bio-1: "):
        up(lab.driver())
    assert posts(lab) == 1
    assert server(lab).tags == [MARK]


@pytest.mark.parametrize("status", ["ACTIVE", "SHUTOFF"])
def test_a_machine_that_has_worked_is_started_and_never_replaced(lab: CloudLab, status: str) -> None:
    there = left(lab, status, answered=True)
    driver = lab.driver(boot_timeout=SILENT)
    (machine,) = driver.machines()
    driver.boot(machine)
    assert server(lab) is there
    assert there.status == "ACTIVE"
    lab.mute.add("bio-1")
    lab.always.add("bio-1")
    with pytest.raises(MachineError, match="bio-1: its server runs, but nothing answers") as raised:
        lab_again = lab.driver(boot_timeout=SILENT)
        lab_again.machines()
        lab_again.boot(machine)
    assert "there may be work on it" in raised.value.remedy
    assert server(lab) is there
    assert posts(lab) == 0


def test_nor_is_one_that_fell_ill_while_it_was_started(lab: CloudLab) -> None:
    there = left(lab, answered=True)
    driver = lab.driver()
    (machine,) = driver.machines()
    there.fate = "ERROR: Disk full"
    there.become(there.fate)
    with pytest.raises(MachineError, match=r"in ERROR \(Disk full\)"):
        driver.boot(machine)
    assert server(lab) is there


def test_one_that_answered_in_this_run_is_not_replaced_either(lab: CloudLab) -> None:
    driver = lab.driver(boot_timeout=SILENT)
    survey = up(driver)
    there = server(lab)
    lab.mute.add("bio-1")
    lab.always.add("bio-1")
    with pytest.raises(MachineError, match="nothing answers"):
        driver.boot(survey.machine)
    assert server(lab) is there


# --- what was made twice ---


def twice(lab: CloudLab, *, answered: bool) -> tuple[Server, Server]:
    """A second server of the name, which got the port for itself, as nova does it."""
    first = left(lab, answered=answered)
    second = lab.stand_in.compute.add_server("bio-1", tags=[MARK], metadata=dict(first.metadata))
    if not answered:
        second.ports, first.ports = first.ports, []
        lab.stand_in.network.ports.items[second.ports[0]]["device_id"] = second.id
    return first, second


def test_of_a_machine_that_was_made_twice_the_one_with_work_on_it_stays(lab: CloudLab) -> None:
    first, second = twice(lab, answered=True)
    driver = lab.driver()
    driver.machines()
    driver.open_ports({})
    assert server(lab) is first
    assert any(second.id in said for said in lab.said)


def test_of_two_without_both_go_and_one_comes(lab: CloudLab) -> None:
    twins = twice(lab, answered=False)
    driver = lab.driver()
    (machine,) = driver.machines()
    address = machine.address
    driver.order(0, ())
    survey = driver.boot(machine)
    assert server(lab) not in twins
    assert survey.machine.address == address
    assert parts(lab) == (1, 1, 1)


def test_they_are_gone_before_another_is_made(lab: CloudLab) -> None:
    twice(lab, answered=False)
    lab.stand_in.compute.looks_to_delete = 3
    driver = lab.driver()
    (machine,) = driver.machines()
    driver.boot(machine)
    assert parts(lab) == (1, 1, 1)


# --- the cloud in between ---


def test_a_quota_that_ran_out_meanwhile_is_told_and_nothing_is_replaced(lab: CloudLab) -> None:
    lab.stand_in.set_quota("instances", 0)
    with pytest.raises(CloudError, match=r"bio-1: making its server: Quota exceeded for instances"):
        up(lab.driver())
    assert posts(lab) == 1


def test_a_mark_that_can_not_be_set_is_told(lab: CloudLab) -> None:
    lab.stand_in.faults.append(Fault("PUT", f"/tags/{ANSWERED}$", status=403, times=None))
    assert "bio-1: marking it" in failure(lab, CloudError)


def test_the_limits_leave_a_trainer_time_for_another_try() -> None:
    assert 1 <= REPLACEMENTS <= 3
    assert module.INSTALLING >= 600
    assert first_login.SETTLING < 120
