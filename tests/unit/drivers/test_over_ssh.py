from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from cloudscale.engines.certificates import authority
from cloudscale.engines.setup import MARK, SETTINGS, TLS
from cloudscale.errors import ConnectionFailed, MachineError, NotSetUp, RequestError
from cloudscale.fanout import fan_out
from cloudscale.hosts.ssh import Target
from cloudscale.model import CommandResult, Machine, MachineState
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost
from tests.unit.fake_lab import Lab, prepared


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.driver().machines()[0]


# --- looking ---------------------------------------------------------------------------------


def test_a_machine_is_surveyed_without_being_changed(lab: Lab, machine: Machine) -> None:
    survey = lab.driver().survey(machine)
    assert survey.machine == machine == Machine("192.0.2.11", "192.0.2.11")
    assert (survey.address, survey.cpus, survey.memory) == ("192.0.2.11", 4, 8140096 * 1024)
    assert survey.free_disk == 36256724 * 1024
    assert survey.held_ports == {22, 80}
    assert "192.0.2.0/24" in survey.networks
    assert survey.addresses == {"192.0.2.11", "2001:db8::5054:ff:fe12:3456"}
    assert survey.state is not MachineState.SERVING
    assert not lab.changes
    assert not lab.course.folder.exists()


def test_a_machine_behind_a_floating_address_is_known_by_its_own_among_its_like(lab: Lab) -> None:
    host = lab.hosts.pop("192.0.2.11")
    host.target = Target("203.0.113.5", user="debian")
    lab.hosts["203.0.113.5"] = host
    machine = lab.driver().machines()[-1]
    assert (machine.address, lab.driver().survey(machine).address) == ("203.0.113.5", "192.0.2.11")


def test_an_engine_that_serves_the_course_is_seen(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    assert lab.driver().survey(machine).state is MachineState.SERVING
    lab.first.values["active"] = "failed\n"
    assert lab.driver().survey(machine).state is not MachineState.SERVING
    lab.first.values |= {"active": "active\n", "ready": ""}
    assert lab.driver().survey(machine).state is not MachineState.SERVING


def test_an_engine_of_the_owners_does_not_serve_the_course_yet(lab: Lab, machine: Machine) -> None:
    lab.first.values = dict(WITH_ENGINE)
    assert lab.driver().survey(machine).state is not MachineState.SERVING


def test_a_machine_that_can_not_be_reached_is_told(lab: Lab, machine: Machine) -> None:
    lab.first.is_lost = True
    driver = lab.driver()
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match=r"192\.0\.2\.11: no answer"):
            driver.survey(machine)
    assert len(lab.logins) == 1  # nobody waits for it again and again


def test_a_machine_of_another_course_is_left_to_it(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    other = lab.driver("geo")
    with pytest.raises(MachineError, match="in use by course 'bio'"):
        other.survey(machine)
    with pytest.raises(MachineError, match="in use by course 'bio'"):
        other.prepare(machine)
    assert other.release(machine) == ""
    assert not lab.changes


def test_a_course_whose_folder_is_elsewhere_is_left_alone(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    shutil.rmtree(lab.course.folder)
    with pytest.raises(MachineError, match="other certificates than yours"):
        lab.driver().survey(machine)
    with pytest.raises(MachineError, match="other certificates than yours"):
        lab.driver().release(machine)
    assert not lab.changes
    assert not lab.course.folder.exists()


def test_another_trainer_takes_over_with_the_folder(
    lab: Lab, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared(lab)
    shutil.copytree(lab.course.folder.parent, tmp_path / "other" / "bio")
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "other"))
    assert lab.driver().survey(machine).state is MachineState.SERVING
    lab.driver().prepare(machine)
    assert not lab.changes


# --- preparing -------------------------------------------------------------------------------


def test_a_fresh_machine_is_set_up_and_reached_with_the_trainers_certificate(lab: Lab, machine: Machine) -> None:
    driver = lab.driver()
    driver.survey(machine)
    found = driver.prepare(machine)
    assert found.machine == machine
    assert lab.changes == [("engine-up", "install")]
    (said,) = lab.said
    assert said.startswith("192.0.2.11: setting up its engine (no engine")
    folder = lab.course.folder
    (client,) = lab.clients
    assert client == {
        "machine": "192.0.2.11",
        "host": "192.0.2.11",
        "port": 2376,
        "ca": folder / "ca.pem",
        "certificate": (folder / "client.pem", folder / "client.pem"),
    }
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_courses_folder_is_its_owners_alone(lab: Lab, machine: Machine) -> None:
    before = os.umask(0o022)
    try:
        lab.driver().prepare(machine)
    finally:
        os.umask(before)
    assert {folder.stat().st_mode & 0o777 for folder in (lab.course.folder, lab.course.folder.parent)} == {0o700}


def test_a_machine_that_is_ready_is_left_as_it_is(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    before = dict(lab.first.values)
    lab.said.clear()
    lab.driver().prepare(machine)  # also without a survey before
    assert lab.first.values == before
    assert not lab.changes
    assert not lab.said


def test_what_got_lost_is_mended(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    lab.first.values["active"] = "failed\n"
    driver = lab.driver()
    driver.survey(machine)
    driver.prepare(machine)
    assert lab.changes == [("engine-up", "install")] or lab.changes == [("engine-up", "keep")]
    assert driver.survey(machine).state is MachineState.SERVING


def test_an_engine_that_is_too_old_is_told_even_if_it_was_just_installed(lab: Lab, machine: Machine) -> None:
    up = lab.first._up

    def buster(what: str) -> None:
        up(what)
        lab.first.values["engine"] = "Docker version 18.09.1, build 4c52b90\n"

    lab.first._up = buster  # type: ignore[method-assign]
    with pytest.raises(MachineError, match="or later is needed"):
        lab.driver().prepare(machine)


def test_machines_are_prepared_side_by_side_with_one_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch, hosts=8)
    driver = lab.driver()
    outcomes = fan_out(driver.prepare, driver.machines(), name=lambda machine: machine.name)
    assert all(outcome.ok for outcome in outcomes)
    assert len({host.values["authority"] for host in lab.hosts.values()}) == 1
    assert len({host.values["certificate"] for host in lab.hosts.values()}) == 8
    signer = authority(lab.course.folder, "bio", create=False)
    assert signer
    for address, host in lab.hosts.items():
        assert not signer.fault(host.values["certificate"].encode(), [address])


def test_a_failure_of_one_machine_is_its_own(lab: Lab) -> None:
    lab.first.failures["engine-up"] = CommandResult(1, "", "cloudscale: cloud-init is still busy after 600 s\n")
    driver = lab.driver()
    first, second = fan_out(driver.prepare, driver.machines(), name=lambda machine: machine.name)
    assert str(first.error).startswith("192.0.2.11: cloud-init is still busy")
    assert second.ok


def test_one_login_serves_a_whole_run(lab: Lab, machine: Machine) -> None:
    driver = lab.driver()
    driver.survey(machine)
    driver.prepare(machine)
    driver.run(machine, "ls", 5)
    driver.release(machine)
    assert len(lab.logins) == 1


def test_without_the_courses_certificates_no_engine_can_be_reached(lab: Lab, machine: Machine) -> None:
    with pytest.raises(NotSetUp, match=r"192\.0\.2\.11: the course 'bio' has not set it up") as raised:
        lab.driver().connect(machine)
    assert "themachine" in raised.value.remedy
    assert not lab.logins
    assert not lab.course.folder.exists()


def test_whoever_only_looks_needs_no_login(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    lab.logins.clear()
    assert lab.driver().connect(machine).machine == machine
    assert not lab.logins


# --- giving back -----------------------------------------------------------------------------


def test_a_machine_is_given_back_as_it_was(lab: Lab) -> None:
    first, second = lab.hosts.values()
    second.values = second.fresh = {**WITH_ENGINE, "settings": '{"live-restore":true}'}
    prepared(lab)
    driver = lab.driver()
    assert [driver.release(machine) for machine in driver.machines()] == ["engine removed", "engine restored"]
    assert first.values == FRESH
    assert second.values == second.fresh
    assert [driver.release(machine) for machine in driver.machines()] == ["", ""]
    assert len(lab.changes) == 2


def test_a_machine_that_was_never_set_up_is_left_alone(lab: Lab, machine: Machine) -> None:
    lab.first.values = dict(WITH_ENGINE)
    assert lab.driver().release(machine) == ""
    assert not lab.changes


def test_a_machine_that_can_not_be_given_back_is_told(lab: Lab, machine: Machine) -> None:
    prepared(lab)
    lab.first.failures["engine-down"] = CommandResult(1, "", "cloudscale: the engine's packages can't be removed\n")
    with pytest.raises(MachineError, match=r"192\.0\.2\.11: the engine's packages can't be removed"):
        lab.driver().release(machine)


# --- commands --------------------------------------------------------------------------------


def test_a_command_runs_as_the_user_who_logs_in(lab: Lab, machine: Machine) -> None:
    done = lab.driver().run(machine, "echo $((6*7)) && id", 20)
    assert done == CommandResult(0, "echo $((6*7)) && id within 20\n", "")
    assert lab.first.commands == ["echo $((6*7)) && id"]


def test_more_machines_than_there_are_can_not_be_had(lab: Lab) -> None:
    for nodes in (0, 1, 2):
        lab.driver().check_nodes(nodes)
    with pytest.raises(RequestError, match="3 machines are wanted, and there are 2"):
        lab.driver().check_nodes(3)


def test_the_driver_can_be_used_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Lab(monkeypatch, hosts=6)
    driver, together = lab.driver(), threading.Barrier(6)
    run = FakeHost.run_root

    def meet(self: FakeHost, *arguments: Any, **settings: Any) -> CommandResult:
        together.wait(10)  # nobody goes on before all are here
        return run(self, *arguments, **settings)

    monkeypatch.setattr(FakeHost, "run_root", meet)
    outcomes = fan_out(driver.survey, driver.machines(), name=lambda machine: machine.name)
    assert [outcome.target for outcome in outcomes if outcome.ok] == [*lab.hosts]


def test_the_marks_and_places_are_those_of_the_documentation() -> None:
    assert MARK.startswith("/var/lib/cloudscale/")
    assert SETTINGS == "/etc/docker/daemon.json"
    assert TLS.startswith("/etc/docker/")
