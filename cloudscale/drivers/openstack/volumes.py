"""Volumes of the block storage (cinder): which ones a course has, and how a machine gets its own.

A machine may boot from a volume, which goes with its server. And it may have a work volume, where its engine keeps the
students' volumes: that one stays, and the machine that comes in the place of this one gets it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from openstack.exceptions import raise_from_response

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.choices import volume_size, work_size
from cloudscale.drivers.openstack.cloud import MICROVERSION, Cloud
from cloudscale.drivers.openstack.stored import USED, WORK, Volume, read_volumes, work_volumes
from cloudscale.drivers.openstack.watch import Watch
from cloudscale.errors import MachineError
from cloudscale.model import Say

COPYING = 1800.0  # seconds for an image to be copied to a volume
SETTLING = 300.0  # seconds for a volume to be created, attached or detached
FILLING = ("creating", "downloading", "available")  # states of a boot volume that is being made
TRIES = 2  # volumes that are made in the place of one in error
HOLDS_WORK = "It may hold students' work, so it is left as it is. Check it in the cloud, then run again."


class VolumeMaker:
    """Makes volumes, and uses those that exist. Safe to use from several threads.

    `image_id`: what is on boot volumes.
    """

    def __init__(self, cloud: Cloud, mark: str, settings: OpenStackSettings, image_id: str) -> None:
        self._cloud = cloud
        self._mark = mark
        self._settings = settings
        self._image_id = image_id
        self._watch: Watch[Volume] = Watch(lambda: read_volumes(cloud, mark), cloud.clock)

    # --- to boot from ----------------------------------------------------------------------------

    def boot_volume(self, name: str) -> str:
        """Waits for a volume that has the image on it; returns its id. Raises CloudError, MachineError."""

        def find() -> Volume | None:
            volumes = self._watch.now()
            return next((v for v in volumes if v.name == name and not v.machine and v.status in FILLING), None)

        create = partial(self._create, name, volume_size(self._settings), image_id=self._image_id)
        volume = find() or self._cloud.attempt(f"{name}: creating its volume", create, found=find)

        def is_filled(volumes: Sequence[Volume]) -> bool | None:
            state = _state(volumes, volume.id)
            if state.startswith("error") or state == "deleted":
                self._delete(name, volume)
                raise MachineError(
                    f"{name}: its volume is in the state {state}.", "Run again, or leave out openstack.boot_volume."
                )
            return state == "available" or None

        if not self._watch.until(is_filled, COPYING):
            raise MachineError(f"{name}: the image was not copied to its volume in {COPYING:.0f} s.", "Run again.")
        return volume.id

    # --- for the work ----------------------------------------------------------------------------

    def work_volume(self, name: str, say: Say) -> Volume:
        """The machine's work volume, attached to no server. Raises CloudError, MachineError.

        One in error is replaced as long as it never held work.
        """
        for _ in range(TRIES):
            volume = self._existing(name) or self._new(name)
            if volume.size and volume.size != work_size(self._settings):
                say(f"{name}: its work volume keeps its {volume.size} GiB: openstack.work_volume is for new ones")
            volume = self._settled(name, volume, lambda one: one.status == "available")
            if volume.status == "available":
                return volume
            if volume.is_used:
                break
            self._delete(name, volume)
        raise _unusable(name, volume)

    def attached(self, name: str, server_id: str, say: Say) -> Volume:
        """The machine's work volume once its server, which is ACTIVE, has it; it is made and attached if necessary.

        Raises CloudError, MachineError.
        """
        volume = self._existing(name)
        if volume:  # a request of an earlier run may still be under way
            volume = self._settled(name, volume, lambda one: one.status in ("available", "in-use"))
        if volume and server_id in volume.servers:
            return volume
        volume = self.work_volume(name, say)
        self._attach(name, volume, server_id)
        volume = self._settled(name, volume, lambda one: one.status == "available" or server_id in one.servers)
        if server_id not in volume.servers:
            raise MachineError(
                f"{name}: the cloud could not attach its work volume {volume.id} to its server.",
                "Run again. If it fails again, ask the cloud's administrators.",
            )
        return volume

    def note_used(self, name: str, volume: Volume) -> None:
        """Writes down that the volume may hold students' work from now on. Raises CloudError."""
        if not volume.is_used:
            note = partial(self._cloud.api.block_storage.set_volume_metadata, volume.id, **{USED: "yes"})
            self._cloud.attempt(f"{name}: noting that its work volume is used", note)

    def _existing(self, name: str) -> Volume | None:
        return work_volumes(self._watch.now()).get(name)

    def _new(self, name: str) -> Volume:
        create = partial(self._create, f"{name}-work", work_size(self._settings), metadata={WORK: name}, machine=name)
        found = partial(self._existing, name)
        return self._cloud.attempt(f"{name}: creating its work volume", create, found=found)

    def _settled(self, name: str, volume: Volume, is_over: Callable[[Volume], bool]) -> Volume:
        """The volume in a state that is wanted, or in error. Raises MachineError after SETTLING seconds."""

        def find(volumes: Sequence[Volume]) -> Volume | None:
            now = next((one for one in volumes if one.id == volume.id), None)
            if now is None or now.status == "deleting":
                raise MachineError(f"{name}: its work volume {volume.id} was deleted meanwhile.", "Run again.")
            return now if is_over(now) or now.status.startswith("error") else None

        settled = self._watch.until(find, SETTLING)
        if settled is None:
            latest = next((one for one in self._watch.latest if one.id == volume.id), volume)
            raise _unusable(name, latest)
        return settled

    def _attach(self, name: str, volume: Volume, server_id: str) -> None:
        """Asks for it. Compute's answer comes before the volume is attached, and its name of the device is a guess."""
        compute = self._cloud.api.compute
        body = {"volumeAttachment": {"volumeId": volume.id}}

        def attach() -> bool:
            path = f"/servers/{server_id}/os-volume_attachments"
            raise_from_response(compute.post(path, json=body, microversion=MICROVERSION))
            return True

        def is_asked() -> bool | None:
            return _state(self._watch.now(), volume.id) not in ("available", "deleted") or None

        self._cloud.attempt(f"{name}: attaching its work volume", attach, found=is_asked)

    # --- both ------------------------------------------------------------------------------------

    def _create(self, name: str, size: int, machine: str = "", **more: Any) -> Volume:
        volume = self._cloud.api.block_storage.create_volume(
            name=name,
            description=self._mark,
            size=size,
            availability_zone=self._settings.volume_zone,
            volume_type=self._settings.volume_type,
            **more,
        )
        return Volume(volume.id, name, machine=machine)

    def _delete(self, name: str, volume: Volume) -> None:
        delete = partial(self._cloud.api.block_storage.delete_volume, volume.id)
        self._cloud.attempt(f"{name}: deleting its volume", delete)


def _state(volumes: Iterable[Volume], id: str) -> str:
    return next((volume.status for volume in volumes if volume.id == id), "deleted")


def _unusable(name: str, volume: Volume) -> MachineError:
    where = f", attached to the server {', '.join(volume.servers)}" if volume.servers else ""
    remedy = "Run again, or leave out openstack.work_volume."
    if volume.servers:
        remedy = "Detach it in the cloud (openstack server remove volume), then run again."
    elif volume.is_used:
        remedy = HOLDS_WORK
    return MachineError(f"{name}: its work volume {volume.id} is in the state {volume.status}{where}.", remedy)
