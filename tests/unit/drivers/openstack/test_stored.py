"""Which volumes are the course's, and which of them are for the work of which machine."""

from __future__ import annotations

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.stored import USED, WORK, Volume, read_volumes, work_volumes
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud

pytestmark = MARKS


def test_a_volume_is_read_with_all_that_a_course_wants_to_know(stand_in: OwnCloud, cloud: Cloud) -> None:
    made = stand_in.volumes.make(size=5, name="bio-1-work", text=MARK, metadata={WORK: "bio-1", USED: "yes"})
    server = stand_in.compute.add_server("bio-1", "m1.small")
    stand_in.volumes.attach(made, server.id)
    (volume,) = read_volumes(cloud, MARK)
    assert volume == Volume(
        made["id"], "bio-1-work", "in-use", 5, "bio-1", is_used=True, servers=(server.id,), created=made["created_at"]
    )


def test_volumes_of_others_are_not_read_whatever_their_names(stand_in: OwnCloud, cloud: Cloud) -> None:
    for mark in ("", "cloudscale:geo", f"{MARK}-2"):
        stand_in.volumes.make(size=5, name="bio-1-work", text=mark, metadata={WORK: "bio-1"})
    assert read_volumes(cloud, MARK) == []


def test_each_machine_has_one_work_volume_and_that_it_boots_from_is_none() -> None:
    boots = Volume("a", "bio-1", "in-use")
    work = [Volume("b", "bio-1-work", "in-use", machine="bio-1"), Volume("c", "bio-2-work", machine="bio-2")]
    assert work_volumes([boots, *work]) == {"bio-1": work[0], "bio-2": work[1]}


def test_of_two_volumes_the_one_with_work_counts_then_the_attached_then_the_older_one() -> None:
    newer = Volume("a", "bio-1-work", machine="bio-1", created="2026-02")
    older = Volume("b", "bio-1-work", machine="bio-1", created="2026-01")
    attached = Volume("c", "bio-1-work", machine="bio-1", created="2026-03", servers=("s",))
    used = Volume("d", "bio-1-work", machine="bio-1", created="2026-04", is_used=True)
    volumes = [newer, older, attached, used]
    for best in (used, attached, older, newer):
        assert work_volumes(volumes) == {"bio-1": best}
        volumes.remove(best)


def test_a_volume_that_is_being_deleted_is_none_any_more() -> None:
    assert work_volumes([Volume("a", "bio-1-work", "deleting", machine="bio-1", is_used=True)]) == {}
