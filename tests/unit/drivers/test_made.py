"""What the drivers for machines that are made for a course have in common."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.folder import CourseFolder
from cloudscale.course.naming import natural
from cloudscale.drivers.made import BOOTED, INSTALLING, MadeMachines, survey_not_up
from cloudscale.errors import RequestError
from cloudscale.fanout import fan_out
from cloudscale.hosts import first_login, ssh
from cloudscale.hosts.first_login import Booting, NoLogin
from cloudscale.hosts.target import Target
from cloudscale.model import CommandResult, Machine, MachineState
from tests.unit.fake_host import FakeHost
from tests.unit.fakes import FakeClock

CIDRS = frozenset({"192.0.2.0/24"})


class Made(MadeMachines):
    """Its machines exist already, and boot with each start."""

    def __init__(self, course: str = "bio") -> None:
        self.messages: list[str] = []
        super().__init__(CourseFolder.named(course, "made"), self.messages.append, user="debian", boot_timeout=20)

    def machines(self) -> list[Machine]:
        return [Machine("bio-1", "192.0.2.11")]

    def _target(self, machine: Machine) -> Target:
        return self._login_target(machine.address, machine.name, "an-id")

    def _start(self, name: str) -> Machine:
        (machine,) = self.machines()
        self._first_login(Booting(lambda: "Linux\n", FakeClock()), self._target(machine))
        return machine


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> FakeHost:
    """The one machine; it answers as soon as it was started."""
    host = FakeHost()
    host.target = Target("192.0.2.11")
    monkeypatch.setattr(first_login, "_answers", lambda target, over: True)
    for module in (first_login, ssh):
        monkeypatch.setattr(module, "connect", lambda target, **given: host)
    return host


# --- the SSH key of the course ---


def test_the_key_is_made_once_for_all_threads() -> None:
    driver = Made()
    keys = fan_out(lambda number: driver._key(), range(8)).get()
    assert len({key.public for key in keys}) == 1


def test_a_machine_with_the_courses_key_is_accepted() -> None:
    driver = Made()
    driver._check_key("bio-1", driver._key().fingerprint, "")
    driver._check_key("bio-1", "", "")  # the fingerprint is unknown


@pytest.mark.parametrize("has_key", [True, False])
def test_a_machine_with_another_key_is_refused(has_key: bool) -> None:
    driver = Made()
    if has_key:
        driver._key()
    folder = CourseFolder.named("bio", "made").folder
    with pytest.raises(RequestError) as raised:
        driver._check_key("bio-1", "SHA256:of-another", "Use another --course.")
    assert raised.value.message == f"bio-1 was made with another SSH key (SHA256:of-another) than the one in {folder}."
    assert raised.value.remedy == "Use another --course."


def test_logins_use_the_courses_key_and_know_a_machine_by_its_id() -> None:
    target = Made()._target(Machine("bio-1", "192.0.2.11"))
    key_file = CourseFolder.named("bio", "made").folder / "id_ed25519"
    assert target == Target("192.0.2.11", 22, "debian", key_file=key_file, label="bio-1", alias="an-id")


# --- new machines ---


@pytest.mark.parametrize(
    ("course", "prefix", "name"),
    [("bio", "", "bio-1"), ("Bio_2.0", "", "bio-2-0-1"), ("...", "", "course-1"), ("bio", "lab-", "lab-bio-1")],
)
def test_new_machines_are_named_after_their_course(course: str, prefix: str, name: str) -> None:
    assert Made(course)._new_names(1, (), (), prefix) == [name]


def test_names_of_former_machines_come_first_and_none_is_given_twice() -> None:
    names = Made()._new_names(5, ["bio-2", "bio-3"], ["old", "bio-10", "bio-3", "bio-4"])
    assert names == ["bio-4", "bio-10", "old", "bio-1", "bio-5"]
    assert Made()._new_names(0, (), ["old"]) == []


@given(st.sets(st.integers(1, 2000), min_size=1))
def test_numbers_are_counted_not_spelt(numbers: set[int]) -> None:
    shuffled = [f"bio-{number}" for number in numbers]
    random.Random(0).shuffle(shuffled)
    assert sorted(shuffled, key=natural) == [f"bio-{number}" for number in sorted(numbers)]


@given(st.text(st.characters(exclude_categories=["Cc", "Cs"])))
def test_any_name_has_its_place(name: str) -> None:
    assert natural(name) == natural(name)


# --- booting a machine ---


def test_a_machine_is_surveyed_after_the_end_of_its_first_boot(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[tuple[str, float]] = []
    run_root = FakeHost.run_root

    def record(self: FakeHost, script: str, *arguments: str, timeout: float) -> CommandResult:
        ran.append((script, timeout))
        return run_root(self, script, *arguments, timeout=timeout)

    monkeypatch.setattr(FakeHost, "run_root", record)
    survey = Made().boot(Machine("bio-1", ""))
    assert ran[0] == (BOOTED, INSTALLING)
    assert "prjquota" in ran[1][0] and len(ran) == 3  # room for limits, and the facts
    assert (survey.machine, survey.state) == (Machine("bio-1", "192.0.2.11"), MachineState.BARE)


def test_where_the_disk_of_seats_can_not_be_limited_the_launch_says_so(host: FakeHost) -> None:
    made = Made()
    host.failures["disk-limits"] = CommandResult(0, "its kernel has no quotas of XFS\n", "")
    made.boot(Machine("bio-1", ""))
    assert made.messages[1:] == [
        "Warning: bio-1: the disk of its seats is not limited, since its kernel has no quotas of XFS"
    ]


def test_the_connection_of_the_first_login_is_kept(host: FakeHost, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ssh, "connect", pytest.fail)
    driver = Made()
    host.target = driver._target(driver.machines()[0])
    assert driver.boot(Machine("bio-1", "")).cpus == 4


def test_a_machine_that_does_not_answer_is_reported_with_the_end_of_its_console(
    host: FakeHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(first_login, "_answers", lambda target, over: False)
    with pytest.raises(NoLogin) as raised:
        Made().boot(Machine("bio-1", ""))
    assert str(raised.value) == (
        "bio-1: it runs, but nothing answers on 192.0.2.11, port 22, after 20 s.\nThe end of its console:\n  | Linux"
    )


@pytest.mark.parametrize(("has_answered", "state"), [(True, MachineState.OFF), (False, MachineState.COMING)])
def test_a_machine_that_is_not_up_has_a_state_and_the_size_that_it_will_have(
    has_answered: bool, state: MachineState
) -> None:
    machine = Machine("bio-1", "")
    survey = survey_not_up(machine, cpus=2, memory=1024, networks=CIDRS, has_answered=has_answered)
    assert (survey.machine, survey.address, survey.state) == (machine, "", state)
    assert (survey.cpus, survey.memory, survey.networks, survey.held_ports) == (2, 1024, CIDRS, frozenset())
