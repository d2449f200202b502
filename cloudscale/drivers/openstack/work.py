"""The students' work on volumes that survive the machines: when it is put there, and what to say of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cloudscale.course.naming import natural
from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import Inventory, Server
from cloudscale.drivers.openstack.making import Maker
from cloudscale.drivers.openstack.stored import Volume, read_volumes, work_volumes
from cloudscale.engines import work_volume
from cloudscale.hosts.ssh import Connection
from cloudscale.model import Finding, Say, WorkVolume

WELL = ("available", "reserved", "attaching", "in-use", "detaching", "creating", "downloading")
CHECK = "work volumes"


def use(maker: Maker, server: Server, connection: Connection, say: Say) -> None:
    """Puts the students' volumes of a machine on its work volume, if it is to have one.

    To be called before the machine's engine starts for the first time. Raises CloudError, MachineError.
    """
    volume = maker.attached_work(server.name, server)
    if volume is None:
        return
    if kept := work_volume.mount(connection, volume.id, is_used=volume.is_used):
        say(f"Warning: {server.name}: {kept}")
    else:
        maker.note_used(server.name, volume)


def say_missing(inventory: Inventory, settings: OpenStackSettings, say: Say) -> None:
    """Warns of machines that are in use without a work volume: they are from before the setting."""
    without = [name for name, server in inventory.servers.items() if server.has_answered and not server.work]
    if settings.work_volume and without:
        say(
            f"Warning: {', '.join(without)}: made without a work volume, so the students' work there goes with the"
            " machine. A machine that is made in its place has one."
        )


def say_waiting(inventory: Inventory, ordered: Collection[str], say: Say) -> None:
    """Warns of work that no student finds, because the class has fewer machines than before."""
    if left := [name for name in inventory.waiting if name not in ordered]:
        total = len(inventory.servers) + len(ordered) + len(left)
        say(
            f"Warning: the work volumes of {', '.join(left)} stay unused: the course does not need these machines."
            f" Students whose work is on them begin with an empty folder. To have them back: --nodes {total}"
        )


def read_work(cloud: Cloud, mark: str) -> list[WorkVolume]:
    """The course's work volumes, in the order of their machines. Raises CloudError."""
    volumes = sorted(read_volumes(cloud, mark), key=lambda volume: (natural(volume.machine), volume.id))
    return [
        WorkVolume(volume.machine, volume.name, is_used=volume.is_used, is_attached=bool(volume.servers))
        for volume in volumes
        if volume.machine
    ]


def findings(cloud: Cloud, mark: str, servers: Mapping[str, Server], settings: OpenStackSettings) -> list[Finding]:
    """What `doctor` says of the work volumes, also where none are configured. Raises CloudError."""
    volumes = work_volumes(read_volumes(cloud, mark))
    found = [_odd(volume) for volume in volumes.values() if volume.status not in WELL]
    if detached := [name for name, server in servers.items() if server.lacks_work]:
        text = f"those of {', '.join(detached)} are not attached to these machines, so no seat runs there."
        found.append(Finding(CHECK, "warning", text, "invoke themachine attaches them again."))
    waiting = sorted((name for name, v in volumes.items() if v.is_used and name not in servers), key=natural)
    if waiting:
        text = f"those of {', '.join(waiting)} have students' work and no machine."
        remedy = f"invoke themachine --nodes {len(servers) + len(waiting)} makes these machines again."
        found.append(Finding(CHECK, "warning", text, remedy))
    if volumes and not settings.work_volume:
        text = "the course has some, and openstack.work_volume is empty: a machine that is made again gets none."
        found.append(Finding(CHECK, "warning", text, "Set openstack.work_volume."))
    return found


def _odd(volume: Volume) -> Finding:
    text = f"{volume.name} ({volume.id}) is in the state {volume.status}."
    if volume.is_used:
        return Finding(CHECK, "wrong", text, "It may hold students' work. Ask the cloud's administrators.")
    return Finding(CHECK, "warning", text, "It never held any work: invoke themachine replaces it.")
