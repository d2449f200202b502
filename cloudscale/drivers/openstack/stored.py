"""The volumes that a course has in the block storage (cinder), recognised by their description: the course's mark."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cloudscale.drivers.openstack.cloud import Cloud, understood
from cloudscale.outside import shaped, typed

# in the metadata of a work volume: the machine that it is for, and whether it may hold students' work
WORK, USED = "cloudscale.work", "cloudscale.used"


VOLUME = {"id": str, "name?": str, "size?": int, "metadata?": {"*": str}, "attachments?": [{"server_id?": str}]}


@dataclass(frozen=True)
class Volume:
    """A volume as cinder has it. `size`: in GiB; 0 if it is not known yet. `servers`: ids of those that have it.

    `machine`: of a work volume, the name of the machine that it is for; "" of one that a machine boots from.
    """

    id: str
    name: str
    status: str = ""
    size: int = 0
    machine: str = ""
    is_used: bool = False
    servers: tuple[str, ...] = ()
    created: str = ""


@understood("Reading the volumes")
def read_volumes(cloud: Cloud, mark: str) -> list[Volume]:
    """The volumes of the course; none if the cloud has no block storage. Raises CloudError."""
    if not cloud.api.has_service("block-storage"):
        return []
    volumes = cloud.attempt(
        "Reading the volumes", lambda: shaped(cloud.api.block_storage.volumes(details=True), VOLUME)
    )
    found = [
        Volume(
            id=volume.id,
            name=volume.name or "",
            status=str(volume.status),
            size=int(volume.size or 0),
            machine=str((volume.metadata or {}).get(WORK, "")),
            is_used=USED in (volume.metadata or {}),
            servers=tuple(str(each["server_id"]) for each in volume.attachments or () if each.get("server_id")),
            created=str(volume.created_at or ""),
        )
        for volume in volumes
        if volume.description == mark
    ]
    return list(map(typed, found))


def work_volumes(volumes: Iterable[Volume]) -> dict[str, Volume]:
    """The work volume of each machine. Of two, the one that is used, or attached, or older."""
    chosen: dict[str, Volume] = {}
    for volume in sorted(volumes, key=lambda v: (not v.is_used, not v.servers, v.created, v.id)):
        if volume.machine and volume.status != "deleting":
            chosen.setdefault(volume.machine, volume)
    return chosen
