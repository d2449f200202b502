"""The driver of a course."""

from __future__ import annotations

from cloudscale.course.session import Session
from cloudscale.drivers import load_driver
from cloudscale.drivers.protocols import Driver
from cloudscale.errors import RequestError


def driver_of(session: Session) -> Driver:
    """The driver that the session names. Raises RequestError where it can't work here."""
    if session.vm_flags and session.settings.driver not in ("qemu", "virtualbox"):
        raise RequestError(
            f"{', '.join(session.vm_flags)}: only for VMs on this computer, not for the driver"
            f" {session.settings.driver}.",
            "For the limits of a seat use seat.cpus and seat.memory; for the size of a cloud's machines"
            " openstack.flavor.",
        )
    return load_driver(session.settings, session.course, session.progress.say, session.patience)
