"""VMs on this computer as tasks ask for them: which driver is used, and for which task."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cloudscale.course.flags import Common, Launch, read_flags
from cloudscale.course.folder import CourseFolder
from cloudscale.course.session import Session
from cloudscale.course.settings import Settings, read_settings
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.errors import RequestError
from cloudscale.model import Say
from cloudscale.workflow import single_machine, themachine
from tests.unit.classroom import Said
from tests.unit.drivers.openstack.cloud import MARKS
from tests.unit.drivers.vm.fake_hypervisor import VmTestbed

pytestmark = MARKS


def agree(question: str) -> None:
    pass


def session(*, names_driver: bool = False, **settings: Any) -> Session:
    common = read_flags(Common)
    return Session(read_settings({"course": "bio", **settings}), common, Said(), agree, names_driver=names_driver)


@pytest.fixture(name="programs")
def programs_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty folder that is the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def install(programs: Path, *names: str) -> None:
    for name in names:
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)


@pytest.fixture(name="chosen")
def chosen_fixture(monkeypatch: pytest.MonkeyPatch, testbed: VmTestbed) -> list[str]:
    """The names of the drivers that a workflow asks for; it always gets that of the testbed."""
    chosen: list[str] = []

    def load(settings: Settings, course: CourseFolder, say: Say, patience: float | None) -> LocalVms:
        chosen.append(settings.driver)
        assert course == CourseFolder.named("bio", settings.driver)
        testbed.course = course
        return LocalVms(testbed.hypervisor, settings.vm, course, testbed.messages.append)

    monkeypatch.setattr("cloudscale.cluster.driver.load_driver", load)
    return chosen


@pytest.mark.parametrize(
    ("installed", "driver"),
    [
        ((), "qemu"),
        (("qemu-system-x86_64",), "qemu"),
        (("qemu-system-x86_64", "VBoxManage"), "qemu"),
        (("VBoxManage",), "virtualbox"),
    ],
)
def test_a_machine_is_made_here_where_no_driver_is_named(
    programs: Path, chosen: list[str], testbed: VmTestbed, installed: tuple[str, ...], driver: str
) -> None:
    install(programs, *installed)
    report = single_machine.machine_new(session(), "ann")
    assert report.text.startswith("ann is up.")
    assert chosen == [driver]
    assert "already exists" in single_machine.machine_new(session(), "ann").text
    assert testbed.hypervisor.calls == ["make ann", "start ann"]


@pytest.mark.parametrize("names_driver", [True, False])
def test_a_driver_that_is_configured_or_named_is_taken(programs: Path, chosen: list[str], names_driver: bool) -> None:
    install(programs, "qemu-system-x86_64")
    single_machine.machine_new(session(driver="virtualbox", names_driver=names_driver), "ann")
    assert chosen == ["virtualbox"]


@pytest.mark.usefixtures("programs")
def test_with_a_configured_cloud_it_is_made_on_this_computer_with_a_message(chosen: list[str]) -> None:
    given = session(driver="openstack", openstack={"cloud": "course"})
    single_machine.machine_new(given, "ann")
    assert chosen == ["qemu"]
    assert isinstance(given.progress, Said)
    assert given.progress.lines == ["A single machine is a VM on this computer (--driver qemu)"]


@pytest.mark.usefixtures("programs")
def test_a_machine_that_does_not_exist_is_not_removed(chosen: list[str], testbed: VmTestbed) -> None:
    with pytest.raises(RequestError, match="The course 'bio' has no VM ann") as raised:
        single_machine.machine_rm(session(), "ann")
    assert raised.value.exit_code == 2
    assert chosen == ["qemu"]
    assert not testbed.course.folder.exists()


@pytest.mark.parametrize("driver", ["openstack", "local", "generic"])
def test_sizes_of_vms_are_for_no_other_driver(driver: str) -> None:
    meant = replace(session(driver=driver), vm_flags=("--memory",))
    with pytest.raises(RequestError, match=rf"^--memory: only for VMs on this computer, not for the driver {driver}"):
        themachine.themachine(meant, Launch(onlycreate=True))
