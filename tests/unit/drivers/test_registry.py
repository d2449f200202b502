from __future__ import annotations

import inspect
from typing import Any

import pytest

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import OpenStackSettings, read_settings
from cloudscale.drivers import load_driver
from cloudscale.drivers.generic import Generic
from cloudscale.drivers.local import Local
from cloudscale.drivers.openstack import driver as openstack
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.protocols import Driver, MakesMachines, SetsUpEngines, SingleMachines
from cloudscale.drivers.vm.driver import LocalVms
from cloudscale.drivers.vm.qemu import Qemu
from cloudscale.drivers.vm.virtualbox import VirtualBox
from cloudscale.errors import RequestError

COURSE = CourseFolder.named("bio", "generic")


def test_the_driver_that_the_settings_name_is_loaded() -> None:
    assert isinstance(load_driver(read_settings({"driver": "local"}), COURSE, pytest.fail), Local)
    settings = read_settings({"driver": "generic", "generic": {"hosts": ["a", "b"]}})
    driver = load_driver(settings, COURSE, pytest.fail)
    assert isinstance(driver, Generic)
    assert [machine.name for machine in driver.machines()] == ["a", "b"]


def test_a_cloud_is_loaded_where_the_settings_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[OpenStackSettings] = []
    monkeypatch.setattr(openstack, "open_cloud", opened.append)
    settings = read_settings({"openstack": {"cloud": "course"}})
    assert isinstance(load_driver(settings, COURSE, pytest.fail), OpenStack)
    assert opened == [settings.openstack]


@pytest.mark.parametrize("hypervisor", [Qemu, VirtualBox])
def test_vms_of_this_computer_need_their_hypervisor(
    monkeypatch: pytest.MonkeyPatch, hypervisor: type[Qemu | VirtualBox]
) -> None:
    settings = read_settings({"driver": hypervisor.name})
    with pytest.MonkeyPatch.context() as bare:
        bare.setenv("PATH", "/nowhere")
        with pytest.raises(RequestError, match=f"The driver {hypervisor.name} needs"):
            load_driver(settings, COURSE, pytest.fail)
    monkeypatch.setattr(hypervisor, "check", lambda self: None)
    assert isinstance(load_driver(settings, COURSE, pytest.fail), LocalVms)


def test_a_swarm_of_somebody_else_is_used_on_this_computer_only() -> None:
    assert Local.adopts_swarm
    assert not Generic.adopts_swarm
    assert not OpenStack.adopts_swarm
    assert not LocalVms.adopts_swarm


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
        wanted, found = inspect.signature(vars(protocol)[name]), inspect.signature(getattr(driver, name))
        assert list(wanted.parameters) == list(found.parameters), name
