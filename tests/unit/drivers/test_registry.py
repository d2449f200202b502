from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from cloudscale.course import settings as settings_module
from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import OpenStackSettings, Section, Settings, read_settings
from cloudscale.drivers import DRIVERS, generic, load_driver, local
from cloudscale.drivers.generic import Generic
from cloudscale.drivers.local import Local
from cloudscale.drivers.openstack import driver as openstack
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.protocols import Driver, MakesMachines, SetsUpEngines, SingleMachines
from cloudscale.drivers.vm import qemu, virtualbox
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.drivers.vm.qemu import Qemu
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.errors import RequestError
from cloudscale.model import Say

COURSE = CourseFolder.named("bio", "generic")


def test_the_driver_that_the_settings_name_is_loaded() -> None:
    assert isinstance(load_driver(read_settings({"driver": "local"}), COURSE, pytest.fail), Local)
    settings = read_settings({"driver": "generic", "generic": {"hosts": ["a", "b"]}})
    driver = load_driver(settings, COURSE, pytest.fail)
    assert isinstance(driver, Generic)
    assert [machine.name for machine in driver.machines()] == ["a", "b"]


def test_a_cloud_is_loaded_where_the_settings_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[OpenStackSettings] = []
    patiences: list[float | None] = []

    def open_cloud(given: OpenStackSettings, patience: float | None) -> None:
        opened.append(given)
        patiences.append(patience)

    monkeypatch.setattr(openstack, "open_cloud", open_cloud)
    settings = read_settings({"openstack": {"cloud": "course"}})
    assert isinstance(load_driver(settings, COURSE, pytest.fail), OpenStack)
    assert isinstance(load_driver(settings, COURSE, pytest.fail, 5), OpenStack)
    assert opened == [settings.openstack] * 2
    assert patiences == [None, 5]


@pytest.mark.parametrize(("driver", "hypervisor"), [("qemu", Qemu), ("virtualbox", VirtualBox)])
def test_vms_of_this_computer_need_their_hypervisor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, driver: str, hypervisor: type
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    settings, course = read_settings({"driver": driver}), CourseFolder.named("bio", driver)
    with pytest.raises(RequestError, match=f"The driver {driver} needs") as raised:
        load_driver(settings, course, pytest.fail)
    assert raised.value.exit_code == 2
    for program in ("qemu-system-x86_64", "qemu-img", "VBoxManage"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    loaded = load_driver(settings, course, pytest.fail)
    assert isinstance(loaded, LocalVms)
    assert isinstance(loaded._hypervisor, hypervisor)
    assert loaded.machines() == []


def test_a_swarm_of_somebody_else_is_used_on_this_computer_only() -> None:
    assert Local.adopts_swarm
    assert not Generic.adopts_swarm
    assert not OpenStack.adopts_swarm
    assert not LocalVms.adopts_swarm


LOADERS: dict[str, Callable[[Any, CourseFolder, Say], Driver]] = {
    "openstack": openstack.load,
    "local": local.load,
    "generic": generic.load,
    "virtualbox": virtualbox.load,
    "qemu": qemu.load,
}


def test_the_registry_has_the_drivers_that_the_settings_know() -> None:
    assert {*DRIVERS} == {*get_args(settings_module.Driver)} == {*LOADERS}


@pytest.mark.parametrize("driver", DRIVERS)
def test_a_row_has_the_drivers_module_and_its_section_of_the_settings(driver: str) -> None:
    row = DRIVERS[driver]
    assert importlib.import_module(row.module).load is LOADERS[driver]
    assert get_type_hints(LOADERS[driver])["settings"] is Settings.model_fields[row.section].annotation


def test_every_section_of_the_settings_is_a_drivers_or_for_all() -> None:
    annotations = {name: field.annotation for name, field in Settings.model_fields.items()}
    sections = {name for name, kind in annotations.items() if isinstance(kind, type) and issubclass(kind, Section)}
    assert sections == {row.section for row in DRIVERS.values()} | {"seat", "gateway"}


PROTOCOLS: dict[Any, list[type]] = {
    Driver: [Local, Generic, OpenStack, LocalVms],
    SetsUpEngines: [Generic, OpenStack, LocalVms],
    MakesMachines: [OpenStack, LocalVms],
    SingleMachines: [Local, LocalVms],
}


def asked(protocol: type) -> set[str]:
    return {name for name, member in vars(protocol).items() if inspect.isfunction(member) and not name.startswith("_")}


@pytest.mark.parametrize("driver", PROTOCOLS[Driver])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_driver_has_the_methods_of_what_it_can_do_and_no_others(protocol: type, driver: type) -> None:
    if driver not in PROTOCOLS[protocol]:
        assert not any(hasattr(driver, name) for name in asked(protocol))
        return
    for name in asked(protocol):
        expected, actual = inspect.signature(vars(protocol)[name]), inspect.signature(getattr(driver, name))
        assert list(expected.parameters) == list(actual.parameters), name
