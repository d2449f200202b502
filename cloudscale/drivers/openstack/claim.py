"""Which course's folder a course in the cloud belongs to, from the first thing that is made for it.

Two trainers may begin a course of one name at the same moment, where no machine answers yet that could keep one of them
away. The security group is made first: of two, the older one decides, and a tag on it says whose it is. Of two made in
the same second neither does: both are taken back.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial

from openstack.exceptions import raise_from_response

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import read_owners
from cloudscale.drivers.openstack.security import create_group
from cloudscale.errors import RequestError
from cloudscale.waiting import poll

OWNER = "cloudscale.key:"  # tag of the security group, before what stands for the SSH key of the course's folder
CLAIMING = 5.0  # seconds from the making of a group to its tag, for whoever makes it


@dataclass(frozen=True)
class Group:
    created: str
    owners: frozenset[str]


def claim(cloud: Cloud, mark: str, fingerprint: str) -> None:
    """Makes the course in the cloud the one of the folder with this SSH key. Idempotent.

    Raises RequestError if it belongs to another one, CloudError.
    """
    own = tag(fingerprint)
    groups, made = _read(cloud, mark), ""
    if not groups:
        made = create_group(cloud, mark)
        groups = _read(cloud, mark)
        created = groups[made].created if made in groups else ""
        if any(id != made and group.created <= created for id, group in groups.items()):
            cloud.attempt("Deleting a second security group", partial(cloud.api.network.delete_security_group, made))
            raise RequestError(
                f"Another trainer began the course {_course(mark)!r} in this cloud at the same moment.",
                "Agree on who makes it: that one runs again. Or use another --course.",
            )
        if len(groups) > 1:  # whoever made the later one takes it away
            poll(lambda: len(_read(cloud, mark)) == 1, timeout=CLAIMING, interval=1, clock=cloud.clock)
    elif not any(group.owners for group in groups.values()):

        def owned() -> dict[str, Group]:
            found = _read(cloud, mark)
            return found if any(group.owners for group in found.values()) else {}

        # it is being made now, or is of a run that was cut off
        groups = poll(owned, timeout=CLAIMING, interval=1, clock=cloud.clock) or groups
    owners = frozenset[str]().union(*(group.owners for group in groups.values()))
    if owners - {own}:
        raise _others(mark)
    if not owners:
        path = f"/security-groups/{made or min(groups)}/tags/{own}"
        cloud.attempt("Tagging the security group", lambda: raise_from_response(cloud.api.network.put(path)))


def tag(fingerprint: str) -> str:
    """As short as the tags of all releases of neutron have to be (60 characters), and with no character of a path."""
    return OWNER + hashlib.sha256(fingerprint.encode()).hexdigest()[:32]


def _read(cloud: Cloud, mark: str) -> dict[str, Group]:
    return {id: Group(created, owners) for id, created, owners in read_owners(cloud, mark, OWNER)}


def _others(mark: str) -> RequestError:
    course = _course(mark)
    return RequestError(
        f"The course {course!r} in this cloud belongs to another trainer's folder, or is just being made from it.",
        "Copy the course's folder from the computer that makes it, or use another --course. If nobody uses it any more,"
        f" invoke driver_reset --course {course} removes it.",
    )


def _course(mark: str) -> str:
    return mark.partition(":")[2]
