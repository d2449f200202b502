"""`machine_new` and `machine_rm`: one machine, by name."""

from __future__ import annotations

import shutil
from dataclasses import replace

from cloudscale.cli.report import Report
from cloudscale.cluster.driver import driver_of
from cloudscale.course.session import Session
from cloudscale.drivers.protocols import Driver, MakesMachines, SingleMachines
from cloudscale.errors import RequestError
from cloudscale.workflow.reset import driver_reset


def machine_new(session: Session, name: str) -> Report:
    """Adds a machine with an engine."""
    session = _on_this_computer(session)
    with session.locked():
        return Report(_single_machines(driver_of(session), session, name).add(name))


def machine_rm(session: Session, name: str) -> Report:
    """Removes what machine_new made, with the seats that are on it."""
    session = _on_this_computer(session)
    driver = driver_of(session)
    single = _single_machines(driver, session, name)
    what = single.describe_removal(name)
    if isinstance(driver, MakesMachines):  # it may have seats, and its swarm other machines
        return driver_reset(replace(session, common=session.common.model_copy(update={"only": (name,), "skip": ()})))
    session.ask(f"{what} will be removed. Go on?")
    return Report(single.remove(name))


def _single_machines(driver: Driver, session: Session, name: str) -> SingleMachines:
    if isinstance(driver, SingleMachines):
        return driver
    kind = session.settings.driver
    if isinstance(driver, MakesMachines):
        raise RequestError(
            f"The driver {kind} names its machines itself: {name} can't be added or removed alone.",
            "invoke themachine makes as many as the students need (--nodes N: as many as you say);"
            f" invoke driver_reset --only {name} removes one. --driver qemu or virtualbox: a VM on this computer.",
        )
    raise RequestError(
        f"The driver {kind} neither makes nor deletes machines: {name} would have to be a host that exists.",
        f"Add it to {kind}.hosts; before you remove one there, run invoke driver_reset --only {name}.",
    )


def _on_this_computer(session: Session) -> Session:
    """With a driver for VMs here, unless a flag names another: as in 2016, single machines are not made in a cloud."""
    if session.names_driver or session.settings.driver != "openstack":
        return session
    only_virtualbox = shutil.which("VBoxManage") and not shutil.which("qemu-system-x86_64")
    driver = "virtualbox" if only_virtualbox else "qemu"
    session.progress.say(f"A single machine is a VM on this computer (--driver {driver})")
    return replace(session, settings=session.settings.model_copy(update={"driver": driver}))
