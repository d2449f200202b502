from __future__ import annotations

import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

from cloudscale import ssh
from cloudscale.certificates import authority
from cloudscale.course import Course
from cloudscale.drivers import over_ssh
from cloudscale.drivers.over_ssh import OverSsh
from cloudscale.errors import ConnectionFailed, MachineError, NotSetUp, RequestError
from cloudscale.fanout import fan_out
from cloudscale.model import CommandResult, Heard, Machine
from cloudscale.provision import MARK, SETTINGS, TLS
from cloudscale.ssh import KnownHosts, Target
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost

GIB = 1024**3


class Lab:
    """Some hosts, the ways to them, and the driver for a course on them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, hosts: int = 2) -> None:
        self.hosts = {f"192.0.2.{at}": self._host(f"192.0.2.{at}") for at in range(11, 11 + hosts)}
        self.logins: list[Target] = []
        self.clients: list[dict[str, Any]] = []
        self.said: list[str] = []
        self.course = Course.named("bio", "generic")
        monkeypatch.setattr(ssh, "connect", self._connect)
        monkeypatch.setattr(over_ssh, "over_tls", self._over_tls)

    @staticmethod
    def _host(address: str) -> FakeHost:
        values = {name: value.replace("192.0.2.11", address) for name, value in FRESH.items()}
        return FakeHost(Target(address, user="debian"), values)

    def _connect(self, target: Target, *, timeout: float, known: KnownHosts) -> FakeHost:
        assert 0 < timeout <= over_ssh.LOGIN
        assert known.path == self.course.known_hosts
        self.logins.append(target)
        host = self.hosts[target.host]
        if host.is_lost:
            raise ConnectionFailed(f"{target.name}: no answer in {timeout:g} s.")
        return host

    def _over_tls(self, machine: str, host: str, port: int, *, ca: Path, certificate: tuple[Path, Path]) -> Any:
        self.clients.append({"machine": machine, "host": host, "port": port, "ca": ca, "certificate": certificate})
        return SimpleNamespace(host=host)

    def driver(self, course: str = "bio") -> OverSsh:
        """As the next run has it."""
        self.course = Course.named(course, "generic")
        return OverSsh({host.target.name: host.target for host in self.hosts.values()}, self.course, self.said.append)

    @property
    def first(self) -> FakeHost:
        return next(iter(self.hosts.values()))

    @property
    def changes(self) -> list[tuple[str, ...]]:
        return [change for host in self.hosts.values() for change in host.changes]


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Lab:
    return Lab(monkeypatch)


@pytest.fixture
def machine(lab: Lab) -> Machine:
    return lab.driver().machines()[0]


def prepared(lab: Lab) -> None:
    driver = lab.driver()
    for machine in driver.machines():
        driver.survey(machine)
        driver.prepare(machine)
    for host in lab.hosts.values():
        host.calls.clear()


# --- looking ---------------------------------------------------------------------------------


def test_a_machine_is_surveyed_without_being_changed(lab: Lab, machine: Machine) -> None:
    survey = lab.driver().survey(machine)
    assert survey.machine == machine == Machine("192.0.2.11", "192.0.2.11")
    assert (survey.address, survey.cpus, survey.memory) == ("192.0.2.11", 4, 8140096 * 1024)
    assert survey.free_disk == 36256724 * 1024
    assert survey.held_ports == {22, 80}
    assert "192.0.2.0/24" in survey.networks
    assert survey.addresses == {"192.0.2.11", "2001:db8::5054:ff:fe12:3456"}
    assert not survey.has_engine
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
    assert lab.driver().survey(machine).has_engine
    lab.first.values["active"] = "failed\n"
    assert not lab.driver().survey(machine).has_engine
    lab.first.values |= {"active": "active\n", "ready": ""}
    assert not lab.driver().survey(machine).has_engine


def test_an_engine_of_the_owners_does_not_serve_the_course_yet(lab: Lab, machine: Machine) -> None:
    lab.first.values = dict(WITH_ENGINE)
    assert not lab.driver().survey(machine).has_engine


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
    with pytest.raises(MachineError, match="serves the course 'bio'"):
        other.survey(machine)
    with pytest.raises(MachineError, match="serves the course 'bio'"):
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
    assert lab.driver().survey(machine).has_engine
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
    assert said.startswith("192.0.2.11: setting up its engine (it has no engine")
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
    assert driver.survey(machine).has_engine


def test_an_engine_that_is_too_old_is_told_even_if_it_was_just_installed(lab: Lab, machine: Machine) -> None:
    up = lab.first._up

    def buster(what: str) -> None:
        up(what)
        lab.first.values["engine"] = "Docker version 18.09.1, build 4c52b90\n"

    lab.first._up = buster  # type: ignore[method-assign]
    with pytest.raises(MachineError, match="is the oldest that will do"):
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
    assert [driver.release(machine) for machine in driver.machines()] == ["engine removed", "engine as before"]
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


# --- images ----------------------------------------------------------------------------------


def copy(lab: Lab, heard: Heard = lambda piece: None) -> FakeHost:
    """Sends an image from the first machine to the second."""
    driver = lab.driver()
    source, target = driver.machines()[:2]
    for machine in (source, target):
        driver.survey(machine)
        driver.prepare(machine)
    lab.first.calls.clear()
    driver.copy_image(source, target, "cloudscale/pydata:1", heard)
    return lab.first


def test_an_image_is_sent_from_machine_to_machine(lab: Lab) -> None:
    heard: list[bytes] = []
    source = copy(lab, heard.append)
    assert source.calls == [("other", "cloudscale/pydata:1", "192.0.2.12:2376")]
    assert heard == [b"12 bytes copied"]
    assert lab.hosts["192.0.2.12"].calls[-1] == ("facts",)  # the other one only takes it


def test_the_sender_gets_a_certificate_for_some_hours_and_no_lasting_key(lab: Lab) -> None:
    files = copy(lab).files
    assert sorted(files) == ["/ca.pem", "/cert.pem", "/key.pem"]
    guest = x509.load_pem_x509_certificate(files["/cert.pem"])
    usage = guest.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [*usage] == [ExtendedKeyUsageOID.CLIENT_AUTH]
    assert (guest.not_valid_after_utc - guest.not_valid_before_utc).total_seconds() <= 2 * 24 * 3600
    own = {path.read_bytes() for path in lab.course.folder.glob("*.pem")} - {files["/ca.pem"]}
    assert not own & {*files.values()}
    assert "PRIVATE" not in repr(lab.first.calls)


def test_an_image_goes_to_an_ipv6_address_in_brackets(lab: Lab) -> None:
    host = lab.hosts.pop("192.0.2.12")
    address = "2001:db8::5054:ff:fe12:3456"
    host.target = Target(address, user="debian")
    lab.hosts[address] = host
    assert copy(lab).calls[-1][-1] == f"[{address}]:2376"


DOCKER = "error during connect: Post https://192.0.2.12:2376/images/load: dial tcp 192.0.2.12:2376: i/o timeout\n"
DD = "\r1048576 bytes (1.0 MB, 1.0 MiB) copied, 1 s, 1.0 MB/s\r2097152 bytes (2.1 MB, 2.0 MiB) copied, 2 s, 1.0 MB/s\n"


@pytest.mark.parametrize(
    "stderr",
    [
        f"{DD}{DOCKER}",
        f"{DOCKER}2+0 records in\n1+1 records out\n{DD}",
    ],
)
def test_an_image_that_can_not_be_sent_is_told_with_both_machines_and_the_cause(lab: Lab, stderr: str) -> None:
    lab.first.failures["other"] = CommandResult(1, "", stderr)
    with pytest.raises(MachineError, match=r"192\.0\.2\.12: .*pydata:1 .*from 192\.0\.2\.11 .*i/o timeout") as raised:
        copy(lab)
    assert "2376" in raised.value.remedy


@pytest.mark.usefixtures("processes")
def test_the_sender_keeps_nothing_of_the_certificate(lab: Lab, tmp_path: Path) -> None:
    data = copy(lab).data
    programs = tmp_path / "bin"
    programs.mkdir()
    docker = programs / "docker"
    docker.write_text(
        '#!/bin/sh\n[ "$1" = save ] && { echo image; exit 0; }\n'
        f'for word; do case $word in /*) [ -s "$word" ] || exit 1; echo "$word" >>{tmp_path}/seen;; esac; done\n'
        f'cat >{tmp_path}/loaded; echo "$*" >{tmp_path}/asked\n'
    )
    docker.chmod(docker.stat().st_mode | stat.S_IXUSR)
    script = over_ssh.COPY.replace("/dev/shm", str(tmp_path))
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-c", script, "cloudscale", "lab:1", "192.0.2.12:2376"],
        input=data,
        capture_output=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "loaded").read_text() == "image\n"
    assert "--tlsverify" in (tmp_path / "asked").read_text()
    seen = [Path(line) for line in (tmp_path / "seen").read_text().split()]
    assert sorted(path.name for path in seen) == ["ca.pem", "cert.pem", "key.pem"]
    assert not any(path.exists() or path.parent.exists() for path in seen)


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
