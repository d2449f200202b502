from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.drivers.generic import Generic
from cloudscale.engines.certificates import authority
from cloudscale.engines.setup import MARK, SETTINGS, TLS
from cloudscale.errors import (
    CloudscaleError,
    ConnectionFailed,
    EngineError,
    MachineError,
    NotReached,
    NotSetUp,
    RequestError,
)
from cloudscale.fanout import fan_out
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, Machine, MachineState
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost
from tests.unit.fake_lab import Lab, prepared


@pytest.fixture
def testbed(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


@pytest.fixture
def machine(testbed: Lab) -> Machine:
    return testbed.driver().machines()[0]


# --- surveys ---------------------------------------------------------------------------------


def test_a_machine_is_surveyed_without_being_changed(testbed: Lab, machine: Machine) -> None:
    survey = testbed.driver().survey(machine)
    assert survey.machine == machine == Machine("192.0.2.11", "192.0.2.11")
    assert (survey.address, survey.cpus, survey.memory) == ("192.0.2.11", 4, 8140096 * 1024)
    assert survey.free_disk == 36256724 * 1024
    assert survey.held_ports == {22, 80}
    assert "192.0.2.0/24" in survey.networks
    assert survey.addresses == {"192.0.2.11", "2001:db8::5054:ff:fe12:3456"}
    assert survey.state is not MachineState.SERVING
    assert not testbed.changes
    assert not testbed.course.folder.exists()


def test_a_machine_behind_a_floating_address_is_known_by_its_own_among_its_like(testbed: Lab) -> None:
    host = testbed.hosts.pop("192.0.2.11")
    host.target = Target("203.0.113.5", user="debian")
    testbed.hosts["203.0.113.5"] = host
    machine = testbed.driver().machines()[-1]
    assert (machine.address, testbed.driver().survey(machine).address) == ("203.0.113.5", "192.0.2.11")


def test_an_engine_that_serves_the_course_is_seen(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    assert testbed.driver().survey(machine).state is MachineState.SERVING
    testbed.first.values["active"] = "failed\n"
    assert testbed.driver().survey(machine).state is not MachineState.SERVING
    testbed.first.values |= {"active": "active\n", "ready": ""}
    assert testbed.driver().survey(machine).state is not MachineState.SERVING


def test_an_engine_of_the_owners_does_not_serve_the_course_yet(testbed: Lab, machine: Machine) -> None:
    testbed.first.values = dict(WITH_ENGINE)
    assert testbed.driver().survey(machine).state is not MachineState.SERVING


def test_a_machine_that_can_not_be_reached_is_reported(testbed: Lab, machine: Machine) -> None:
    testbed.first.is_lost = True
    driver = testbed.driver()
    for _ in range(3):
        with pytest.raises(ConnectionFailed, match=r"192\.0\.2\.11: no answer"):
            driver.survey(machine)
    assert len(testbed.logins) == 1  # the wait for it is not repeated


def test_a_machine_of_another_course_is_not_changed(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    other = testbed.driver("geo")
    with pytest.raises(MachineError, match="in use by course 'bio'"):
        other.survey(machine)
    with pytest.raises(MachineError, match="in use by course 'bio'"):
        other.prepare(machine)
    assert other.release(machine) == ""
    assert not testbed.changes


def test_a_course_whose_folder_is_elsewhere_is_left_alone(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    shutil.rmtree(testbed.course.folder)
    with pytest.raises(MachineError, match="other certificates than yours"):
        testbed.driver().survey(machine)
    with pytest.raises(MachineError, match="other certificates than yours"):
        testbed.driver().release(machine)
    assert not testbed.changes
    assert not testbed.course.folder.exists()


def test_another_trainer_takes_over_with_the_folder(
    testbed: Lab, machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    prepared(testbed)
    shutil.copytree(testbed.course.folder.parent, tmp_path / "other" / "bio")
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "other"))
    assert testbed.driver().survey(machine).state is MachineState.SERVING
    testbed.driver().prepare(machine)
    assert not testbed.changes


# --- preparing -------------------------------------------------------------------------------


def test_a_fresh_machine_is_set_up_and_reached_with_the_trainers_certificate(testbed: Lab, machine: Machine) -> None:
    driver = testbed.driver()
    driver.survey(machine)
    engine = driver.prepare(machine)
    assert engine.machine == machine
    assert testbed.changes == [("engine-up", "install")]
    (message,) = testbed.said
    assert message.startswith("192.0.2.11: setting up its engine (no engine")
    folder = testbed.course.folder
    (client,) = testbed.clients
    assert client == {
        "machine": "192.0.2.11",
        "host": "192.0.2.11",
        "port": 2376,
        "ca": folder / "ca.pem",
        "certificate": (folder / "client.pem", folder / "client.pem"),
    }
    assert folder.stat().st_mode & 0o777 == 0o700


def test_the_courses_folder_is_its_owners_alone(testbed: Lab, machine: Machine) -> None:
    before = os.umask(0o022)
    try:
        testbed.driver().prepare(machine)
    finally:
        os.umask(before)
    assert {folder.stat().st_mode & 0o777 for folder in (testbed.course.folder, testbed.course.folder.parent)} == {
        0o700
    }


def test_a_machine_that_is_ready_is_left_as_it_is(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    before = dict(testbed.first.values)
    testbed.said.clear()
    testbed.driver().prepare(machine)  # also without a survey before
    assert testbed.first.values == before
    assert not testbed.changes
    assert not testbed.said


def test_an_engine_that_does_not_run_is_set_up_again(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    testbed.first.values["active"] = "failed\n"
    driver = testbed.driver()
    driver.survey(machine)
    driver.prepare(machine)
    assert testbed.changes == [("engine-up", "install")] or testbed.changes == [("engine-up", "keep")]
    assert driver.survey(machine).state is MachineState.SERVING


def test_an_engine_that_is_too_old_is_reported_even_if_it_was_just_installed(testbed: Lab, machine: Machine) -> None:
    up = testbed.first._up

    def buster(what: str) -> None:
        up(what)
        testbed.first.values["engine"] = "Docker version 18.09.1, build 4c52b90\n"

    testbed.first._up = buster  # type: ignore[method-assign]
    with pytest.raises(MachineError, match="or later is needed"):
        testbed.driver().prepare(machine)


def test_machines_are_prepared_side_by_side_with_one_authority(monkeypatch: pytest.MonkeyPatch) -> None:
    testbed = Lab(monkeypatch, hosts=8)
    driver = testbed.driver()
    outcomes = fan_out(driver.prepare, driver.machines(), name=lambda machine: machine.name)
    assert all(outcome.ok for outcome in outcomes)
    assert len({host.values["authority"] for host in testbed.hosts.values()}) == 1
    assert len({host.values["certificate"] for host in testbed.hosts.values()}) == 8
    signer = authority(testbed.course.folder, "bio", create=False)
    assert signer
    for address, host in testbed.hosts.items():
        assert not signer.fault(host.values["certificate"].encode(), [address])


def test_a_failure_of_one_machine_is_its_own(testbed: Lab) -> None:
    testbed.first.failures["engine-up"] = CommandResult(1, "", "cloudscale: cloud-init is still busy after 600 s\n")
    driver = testbed.driver()
    first, second = fan_out(driver.prepare, driver.machines(), name=lambda machine: machine.name)
    assert str(first.error).startswith("192.0.2.11: cloud-init is still busy")
    assert second.ok


def test_one_login_serves_a_whole_run(testbed: Lab, machine: Machine) -> None:
    driver = testbed.driver()
    driver.survey(machine)
    driver.prepare(machine)
    driver.run(machine, "ls", 5)
    driver.release(machine)
    assert len(testbed.logins) == 1


def test_without_the_courses_certificates_no_engine_can_be_reached(testbed: Lab, machine: Machine) -> None:
    with pytest.raises(NotSetUp, match=r"192\.0\.2\.11: the course 'bio' has not set it up") as raised:
        testbed.driver().connect(machine)
    assert "themachine" in raised.value.remedy
    assert not testbed.logins
    assert not testbed.course.folder.exists()


def test_connecting_needs_no_login(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    testbed.logins.clear()
    assert testbed.driver().connect(machine).machine == machine
    assert not testbed.logins


# --- releasing -----------------------------------------------------------------------------


def test_a_machine_is_given_back_as_it_was(testbed: Lab) -> None:
    first, second = testbed.hosts.values()
    second.values = second.fresh = {**WITH_ENGINE, "settings": '{"live-restore":true}'}
    prepared(testbed)
    driver = testbed.driver()
    assert [driver.release(machine) for machine in driver.machines()] == ["engine removed", "engine restored"]
    assert first.values == FRESH
    assert second.values == second.fresh
    assert [driver.release(machine) for machine in driver.machines()] == ["", ""]
    assert len(testbed.changes) == 2


def test_a_machine_that_was_never_set_up_is_left_alone(testbed: Lab, machine: Machine) -> None:
    testbed.first.values = dict(WITH_ENGINE)
    assert testbed.driver().release(machine) == ""
    assert not testbed.changes


def test_a_release_that_fails_is_reported(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    testbed.first.failures["engine-down"] = CommandResult(1, "", "cloudscale: the engine's packages can't be removed\n")
    with pytest.raises(MachineError, match=r"192\.0\.2\.11: the engine's packages can't be removed"):
        testbed.driver().release(machine)


# --- commands --------------------------------------------------------------------------------


def test_a_command_runs_as_the_user_who_logs_in(testbed: Lab, machine: Machine) -> None:
    done = testbed.driver().run(machine, "echo $((6*7)) && id", 20)
    assert done == CommandResult(0, "echo $((6*7)) && id within 20\n", "")
    assert testbed.first.commands == ["echo $((6*7)) && id"]


def test_more_nodes_than_hosts_are_refused(testbed: Lab) -> None:
    for nodes in (0, 1, 2):
        testbed.driver().check_nodes(nodes)
    with pytest.raises(RequestError, match=r"3 machines are needed, but generic\.hosts has 2"):
        testbed.driver().check_nodes(3)


def test_the_driver_can_be_used_from_several_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    testbed = Lab(monkeypatch, hosts=6)
    driver, together = testbed.driver(), threading.Barrier(6)
    run = FakeHost.run_root

    def meet(self: FakeHost, *arguments: Any, **settings: Any) -> CommandResult:
        together.wait(10)  # no thread continues before all have arrived
        return run(self, *arguments, **settings)

    monkeypatch.setattr(FakeHost, "run_root", meet)
    outcomes = fan_out(driver.survey, driver.machines(), name=lambda machine: machine.name)
    assert [outcome.target for outcome in outcomes if outcome.ok] == [*testbed.hosts]


def test_the_marks_and_places_are_those_of_the_documentation() -> None:
    assert MARK.startswith("/var/lib/cloudscale/")
    assert SETTINGS == "/etc/docker/daemon.json"
    assert TLS.startswith("/etc/docker/")


# --- behind another host ---------------------------------------------------------------------


class Channel:
    """A connection from a host to its own engine, that ends at once."""

    def recv(self, size: int) -> bytes:
        return b""

    def sendall(self, data: bytes) -> None:
        raise AssertionError

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        pass


def test_an_engine_behind_another_host_is_reached_through_ssh(
    testbed: Lab, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(testbed)
    direct = testbed.clients[-1]
    assert direct["host"] in testbed.hosts
    opened: list[tuple[str, int]] = []

    def connect(self: FakeHost, host: str, port: int, timeout: float) -> Channel:
        opened.append((host, port))
        return Channel()

    monkeypatch.setattr(FakeHost, "open", connect, raising=False)
    testbed.first.target = replace(testbed.first.target, proxy="nc lab1")
    driver = testbed.driver()
    for _ in range(2):
        driver.connect(machine)
    first, second = testbed.clients[-2:]
    assert first == second  # one way for all
    assert first["host"] == "127.0.0.1"
    assert first["port"] not in (direct["port"], 22)
    assert set(opened) == {("127.0.0.1", direct["port"])}


def test_an_engine_behind_another_host_that_does_not_run_is_not_set_up(
    testbed: Lab, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(testbed)

    def connect(self: FakeHost, host: str, port: int, timeout: float) -> Channel:
        raise NotReached("no connection")

    monkeypatch.setattr(FakeHost, "open", connect, raising=False)
    testbed.first.target = replace(testbed.first.target, proxy="nc lab1")
    with pytest.raises(EngineError, match="port 2376, does not run"):
        testbed.driver().connect(machine)


# --- looking only ----------------------------------------------------------------------------


def test_who_only_looks_gets_no_new_certificate(testbed: Lab, machine: Machine) -> None:
    prepared(testbed)
    (testbed.course.folder / "client.pem").unlink()
    testbed.driver()
    looking = CourseFolder.named("bio", "generic", read_only=True)
    driver = Generic({machine.name: testbed.first.target}, looking, testbed.said.append)
    assert driver.survey(machine).state is MachineState.SERVING
    with pytest.raises(NotSetUp, match="your certificate for its engine is missing"):
        driver.connect(machine)
    assert not (testbed.course.folder / "client.pem").exists()


def test_who_is_in_a_hurry_gives_up_a_login_sooner(testbed: Lab, machine: Machine) -> None:
    testbed.first.is_lost = True
    driver = Generic({machine.name: testbed.first.target}, testbed.course, testbed.said.append, patience=3)
    with pytest.raises(ConnectionFailed, match="no answer in 3 s"):
        driver.survey(machine)


# --- one run at a time -----------------------------------------------------------------------


def test_the_first_machine_keeps_the_runs_of_other_trainers_away(testbed: Lab) -> None:
    with testbed.driver().exclusive("ann at laptop"):
        assert [host.holder for host in testbed.hosts.values()] == ["ann at laptop", ""]
        with (
            pytest.raises(CloudscaleError, match="Another run is changing the course: ann at laptop"),
            testbed.driver().exclusive("cid at desk"),
        ):
            raise AssertionError
        assert len(testbed.logins) == 2  # the others were not asked
    assert "ann at laptop" in testbed.said[-1]
    assert testbed.first.holder == ""
    assert not testbed.course.folder.exists()


def test_the_next_one_does_it_where_the_first_is_lost(testbed: Lab) -> None:
    testbed.first.is_lost = True
    with testbed.driver().exclusive("ann at laptop"):
        assert [host.holder for host in testbed.hosts.values()] == ["", "ann at laptop"]


def test_a_run_goes_on_where_no_machine_answers(testbed: Lab) -> None:
    """As before the first launch in a cloud; and whatever needs the machines reports it."""
    for host in testbed.hosts.values():
        host.is_lost = True
    with testbed.driver().exclusive("ann at laptop"):
        assert len(testbed.logins) == 2
