"""Where machines come from: one module for each driver, loaded when it is needed."""

from __future__ import annotations

from cloudscale.course.folder import CourseFolder
from cloudscale.course.settings import Settings
from cloudscale.drivers.protocols import Driver
from cloudscale.model import Say


def load_driver(settings: Settings, course: CourseFolder, say: Say) -> Driver:
    """The driver that the settings name. Raises RequestError if it can't work here."""
    if settings.driver == "local":
        from cloudscale.drivers.local import Local

        return Local(settings.local)
    if settings.driver == "generic":
        from cloudscale.drivers.generic import generic

        return generic(settings.generic, course, say)
    if settings.driver == "openstack":
        from cloudscale.drivers.openstack.driver import OpenStack

        return OpenStack(settings.openstack, course, say)
    from cloudscale.drivers.vm.driver import LocalVms

    if settings.driver == "qemu":
        from cloudscale.drivers.vm.qemu import Qemu

        return LocalVms(Qemu(course.name, kvm=settings.vm.kvm), settings.vm, course, say)
    from cloudscale.drivers.vm.virtualbox import VirtualBox

    return LocalVms(VirtualBox(course.name), settings.vm, course, say)
