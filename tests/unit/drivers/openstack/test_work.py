"""Work volumes as a trainer meets them: a machine is lost, its students find their work; a reset asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers.openstack.inventory import ANSWERED
from cloudscale.drivers.openstack.stored import USED, WORK
from cloudscale.engines.work_volume import KEPT
from cloudscale.errors import CapacityError, Declined, MachineError
from cloudscale.model import CommandResult, MachineState
from cloudscale.workflow import reset
from tests.unit.api_schema import Json
from tests.unit.drivers.openstack.cloud import MARK, MARKS
from tests.unit.drivers.openstack.course import RealDriverClass
from tests.unit.drivers.openstack.testbed import CloudTestbed, boot_one, boot_several, names
from tests.unit.fake_host import FakeHost

pytestmark = MARKS
GIVEN: dict[str, Any] = {"work_volume": "5G"}


def work(testbed: CloudTestbed, name: str = "bio-1", *, used: bool = True, status: str = "available") -> Json:
    """The work volume of a machine that is gone."""
    metadata = {WORK: name, **({USED: "yes"} if used else {})}
    volume = testbed.stand_in.volumes.make(size=5, name=f"{name}-work", text=MARK, metadata=metadata)
    volume["status"] = status
    return volume


def mounted(testbed: CloudTestbed) -> dict[str, list[str]]:
    """The disks that were mounted, by the machine's name."""
    found: dict[str, list[str]] = {}
    for id, host in testbed.hosts.items():
        server = testbed.stand_in.compute.servers.get(id)
        if server:
            found[server.name] = [call[1] for call in host.calls if call[0] == "work-volume"]
    return found


# --- a machine ---


def test_a_machine_mounts_its_volume_before_it_counts_as_up(
    testbed: CloudTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[list[str], Json]] = []
    known = FakeHost.run_root

    def run_root(self: FakeHost, script: str, *arguments: str, **more: Any) -> CommandResult:
        (volume,) = testbed.stand_in.volumes.volumes.values()
        if arguments == (volume["id"], "new"):
            seen.append((testbed.stand_in.compute.server("bio-1").tags, dict(volume["metadata"])))
        return known(self, script, *arguments, **more)

    monkeypatch.setattr(FakeHost, "run_root", run_root)
    boot_one(testbed.driver(**GIVEN))
    assert seen == [([MARK], {WORK: "bio-1"})]  # a run that is cut off here mounts it again
    (volume,) = testbed.stand_in.volumes.volumes.values()
    assert volume["metadata"] == {WORK: "bio-1", USED: "yes"}
    assert ANSWERED in testbed.stand_in.compute.server("bio-1").tags
    assert mounted(testbed) == {"bio-1": [volume["id"]]}


def test_a_machine_that_can_not_mount_it_is_reported_and_tried_again(
    testbed: CloudTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = {"work-volume": CommandResult(1, "", "cloudscale: on its disk /dev/vdb is something else than ext4\n")}
    known = testbed._host
    monkeypatch.setattr(testbed, "_host", lambda server: _with(known(server), failing))
    with pytest.raises(MachineError, match="its work volume can't be used: on its disk /dev/vdb is something else"):
        boot_one(testbed.driver(**GIVEN))
    assert ANSWERED not in testbed.stand_in.compute.server("bio-1").tags
    failing.clear()
    driver = testbed.driver(**GIVEN)
    (machine,) = driver.machines()
    assert driver.survey(machine).state is MachineState.COMING
    driver.boot(machine)
    assert testbed.stand_in.totals()["servers"] == testbed.stand_in.totals()["volumes"] == 1


def _with(host: FakeHost, failures: dict[str, CommandResult]) -> FakeHost:
    host.failures = failures
    return host


def test_volumes_that_an_engine_has_on_its_own_disk_are_warned_of(
    testbed: CloudTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = testbed._host
    kept = {"work-volume": CommandResult(0, "kept\n", "")}
    monkeypatch.setattr(testbed, "_host", lambda server: _with(known(server), kept))
    boot_one(testbed.driver(**GIVEN))
    assert f"Warning: bio-1: {KEPT}" in testbed.messages
    (volume,) = testbed.stand_in.volumes.volumes.values()
    assert USED not in volume["metadata"]


def test_a_volume_that_somebody_detached_comes_back(testbed: CloudTestbed) -> None:
    boot_one(testbed.driver(**GIVEN))
    (volume,), server = testbed.stand_in.volumes.volumes.values(), testbed.stand_in.compute.server("bio-1")
    del server.volumes[volume["id"]]
    testbed.stand_in.volumes.detach(volume["id"], goes=False)
    driver = testbed.driver(**GIVEN)
    (machine,) = driver.machines()
    assert driver.survey(machine).state is MachineState.OFF  # so that it is booted, which looks after it
    driver.boot(machine)
    assert volume["attachments"][0]["server_id"] == server.id
    assert mounted(testbed) == {"bio-1": [volume["id"]] * 2}
    driver = testbed.driver(**GIVEN)
    assert [driver.survey(machine).state for machine in driver.machines()] == [MachineState.BARE]


def test_a_machine_from_before_the_setting_is_left_as_it_is_and_warned_of(testbed: CloudTestbed) -> None:
    testbed.add_machine()
    driver = testbed.driver(**GIVEN)
    (machine,) = driver.machines()
    assert driver.survey(machine).state is MachineState.BARE
    assert testbed.messages == []  # a watch does this every few seconds
    driver.kind()
    driver.kind()
    (warning,) = testbed.messages
    assert warning.startswith("Warning: bio-1: made without a work volume")
    assert testbed.stand_in.totals()["volumes"] == 0


def test_without_the_setting_nobody_asks_for_volumes(testbed: CloudTestbed) -> None:
    work(testbed, "bio-2")
    testbed.add_machine()
    driver = testbed.driver()
    (machine,) = driver.machines()
    driver.survey(machine)
    assert testbed.messages == []
    assert testbed.stand_in.count(path="/volumes") == 0


# --- which machines are made ---


def test_a_machine_whose_work_waits_is_made_first(testbed: CloudTestbed) -> None:
    volume = work(testbed, "bio-3")
    driver = testbed.driver(**GIVEN)
    driver.machines()
    order = driver.order(2, ())
    assert names([survey.machine for survey in order.surveys]) == ["bio-3", "bio-1"]
    for survey in order.surveys:
        driver.boot(survey.machine)
    assert mounted(testbed)["bio-3"] == [volume["id"]]
    assert testbed.stand_in.totals()["volumes"] == 2


def test_work_that_no_machine_is_made_for_is_warned_of(testbed: CloudTestbed) -> None:
    for name in ("bio-1", "bio-2", "bio-3"):
        work(testbed, name)
    work(testbed, "bio-4", used=False)
    driver = testbed.driver(**GIVEN)
    driver.machines()
    driver.order(1, ())
    (warning,) = testbed.messages
    assert warning.startswith("Warning: the work volumes of bio-2, bio-3 stay unused")
    assert warning.endswith("--nodes 3")


def test_the_plan_counts_the_volumes_that_are_missing(testbed: CloudTestbed) -> None:
    work(testbed, "bio-1")
    driver = testbed.driver(boot_volume="9G", volume_type="ssd", **GIVEN)
    testbed.stand_in.volumes.type_quotas["ssd"] = {"volumes": 4, "gigabytes": -1}
    driver.machines()
    demands = {demand.resource: (demand.need, demand.used, demand.limit) for demand in driver.order(2, ()).demands}
    assert demands["volumes"] == (3, 1, 10)
    assert demands["volumes (GiB)"] == (23, 5, 1000)
    assert demands["ssd volumes"] == (3, 0, 4)
    assert "ssd volumes (GiB)" not in demands


def test_what_is_planned_is_what_is_taken(testbed: CloudTestbed) -> None:
    given: dict[str, Any] = {"boot_volume": "9G", **GIVEN}
    boot_several(testbed.driver(**given), 2)
    servers = [*testbed.stand_in.compute.servers.values()]
    testbed.stand_in.compute.remove(servers[0])
    driver = testbed.driver(**given)
    driver.machines()
    order = driver.order(3, ())
    before = {demand.resource: demand.used for demand in order.demands}
    planned = {demand.resource: demand.need for demand in order.demands}
    for survey in order.surveys:
        driver.boot(survey.machine)
    after = {demand.resource: demand.used for demand in testbed.driver(**given).order(0, ()).demands}
    assert {name: after[name] - before[name] for name in planned} == planned
    assert testbed.stand_in.totals()["volumes"] == 4 + 4


# --- what the doctor says ---


def test_the_doctor_finds_work_without_a_machine_and_volumes_in_error(testbed: CloudTestbed) -> None:
    work(testbed, "bio-1", status="error")
    work(testbed, "bio-2", used=False, status="error")
    driver = testbed.driver(**GIVEN)
    driver.machines()
    found = [(one.check, one.state, one.finding.partition(" (")[0]) for one in driver.examine()]
    assert found == [
        ("work volumes", "wrong", "bio-1-work"),
        ("work volumes", "warning", "bio-2-work"),
        ("work volumes", "warning", "those of bio-1 have students' work and no machine."),
    ]


def test_the_doctor_finds_a_volume_that_somebody_detached(testbed: CloudTestbed) -> None:
    boot_one(testbed.driver(**GIVEN))
    testbed.stand_in.compute.server("bio-1").volumes.clear()
    driver = testbed.driver(**GIVEN)
    driver.machines()
    (finding,) = driver.examine()
    assert finding.finding == "those of bio-1 are not attached to these machines, so no seat runs there."


def test_the_doctor_says_where_the_setting_is_gone(testbed: CloudTestbed) -> None:
    boot_one(testbed.driver(**GIVEN))
    driver = testbed.driver()
    driver.machines()
    (finding,) = driver.examine()
    assert "openstack.work_volume is empty" in finding.finding
    assert finding.remedy == "Set openstack.work_volume."
    driver = testbed.driver(**GIVEN)
    driver.machines()
    assert list(driver.examine()) == []


# --- a whole course ---


@pytest.fixture
def school(course: RealDriverClass) -> RealDriverClass:
    """A class of four on two machines, each with a work volume."""
    course.openstack |= GIVEN
    course.enrol(4)
    assert course.launch().problems == ()
    return course


def homes(course: RealDriverClass) -> dict[str, str]:
    """Where each student's volume is."""
    return {
        volume["Labels"]["cloudscale.student"]: api.name
        for api in course.apis
        for volume in api.volumes_.values()
        if "cloudscale.student" in volume["Labels"]
    }


def seats(course: RealDriverClass, **flags: Any) -> dict[str, tuple[str, str, str]]:
    return {row["student"]: (row["node"], row["url"], row["password"]) for row in course.rows(course.launch(**flags))}


@pytest.mark.parametrize("name", ["bio-1", "bio-2"])
def test_students_of_a_lost_machine_find_their_work_at_their_old_address(school: RealDriverClass, name: str) -> None:
    before, where = seats(school), homes(school)
    created = {id: volume["CreatedAt"] for api in school.apis for id, volume in api.volumes_.items()}
    school.lose(name)
    assert len(homes(school)) == 2
    assert seats(school) == before
    assert homes(school) == where
    assert {id: volume["CreatedAt"] for api in school.apis for id, volume in api.volumes_.items()} == created
    assert school.stand_in.totals()["volumes"] == 2


def test_a_course_whose_machines_are_all_lost_comes_back_with_its_work(school: RealDriverClass) -> None:
    before, where = seats(school), homes(school)
    for name in ("bio-1", "bio-2"):
        school.lose(name)
    after = seats(school)
    assert homes(school) == where
    assert {student: (row[0], row[2]) for student, row in after.items()} == {
        student: (row[0], row[2]) for student, row in before.items()
    }


def test_a_machine_that_is_deleted_by_its_name_leaves_the_work(school: RealDriverClass) -> None:
    where = homes(school)
    assert reset.driver_reset(school.session(yes=True, only="bio-2")).problems == ()
    assert "The students' work stays, on bio-2-work" in school.notes
    assert "0 volumes with the students' work" in school.questions[-1]
    assert {volume["status"] for volume in school.stand_in.volumes.volumes.values()} == {"in-use", "available"}
    school.launch()
    assert homes(school) == where


def test_a_reset_asks_for_the_work_and_deletes_it(school: RealDriverClass) -> None:
    school.questions.clear()
    school.stand_in.volumes.looks_to_detach = 2
    assert reset.driver_reset(school.session()).problems == ()
    assert school.questions == [
        "Delete 2 servers, 2 floating IPs, 2 ports, 1 server groups, 1 security groups of the course 'bio', for good?",
        "Also delete the 2 volumes with the students' work of the course 'bio', for good?",
    ]
    assert not any(school.stand_in.totals().values())
    assert not school.testbed.course.folder.exists()


def test_work_that_is_kept_is_found_by_the_next_launch(
    school: RealDriverClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, where = seats(school), homes(school)

    def no_to_the_second(question: str) -> None:
        school.questions.append(question)
        if "volumes with the students' work" in question:
            raise Declined("Nothing was removed.")

    monkeypatch.setattr(school, "_ask", no_to_the_second)
    report = reset.driver_reset(school.session())
    assert report.problems == ()
    assert "Kept, with the students' work: bio-1-work, bio-2-work." in school.notes
    assert "nothing of the course" not in school.notes
    assert {name: count for name, count in school.stand_in.totals().items() if count} == {"volumes": 2}
    assert {volume["status"] for volume in school.stand_in.volumes.volumes.values()} == {"available"}
    school._engines.clear()
    school.apis.clear()
    after = seats(school)
    assert homes(school) == where
    assert {student: (row[0], row[2]) for student, row in after.items()} == {
        student: (row[0], row[2]) for student, row in before.items()
    }


def test_work_that_was_kept_is_deleted_by_the_next_reset(
    school: RealDriverClass, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("bio-1", "bio-2"):
        school.lose(name)
    other = school.stand_in.volumes.make(size=1, name="geo-1-work", text="cloudscale:geo", metadata={WORK: "geo-1"})
    reset.driver_reset(school.session())
    school.questions.clear()
    assert [*school.stand_in.volumes.volumes.values()] == [other]
    assert reset.driver_reset(school.session()).text == "[]"
    assert school.questions == []


# --- wrong from the start ---


def test_a_quota_that_is_too_small_is_reported_before_anything_is_made(course: RealDriverClass) -> None:
    course.openstack |= GIVEN
    course.enrol(4)
    course.stand_in.set_quota("volumes", 1)
    with pytest.raises(CapacityError, match="volumes"):
        course.launch()
    assert not any(course.stand_in.totals().values())
