"""Work volumes: made, attached, found again, and never lost while they may hold students' work."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.drivers.openstack import volumes as module
from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.drivers.openstack.inventory import ANSWERED, Server
from cloudscale.drivers.openstack.making import Faulty
from cloudscale.drivers.openstack.stored import USED, WORK, Volume
from cloudscale.drivers.openstack.volumes import SETTLING
from cloudscale.errors import CloudError, MachineError
from tests.lab.stand_in import Fault
from tests.lab.stand_in.machines import Server as Machine
from tests.unit.api_schema import Json
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud, Time
from tests.unit.drivers.openstack.making import machine, new_maker, parts

pytestmark = [*MARKS, pytest.mark.usefixtures("few_rules")]
SERVERS, VOLUMES = "/v2.1/servers$", "/volumes$"
GIVEN: dict[str, Any] = {"work_volume": "5G"}


def work(stand_in: OwnCloud, name: str = "bio-1", *, used: bool = True, **more: Any) -> Json:
    """A work volume that is free, of an earlier run."""
    metadata = {WORK: name, **({USED: "yes"} if used else {})}
    volume = stand_in.volumes.make(size=5, name=f"{name}-work", text=MARK, metadata=metadata)
    volume |= {"status": "available", **more}
    return volume


def only(stand_in: OwnCloud) -> Json:
    (volume,) = stand_in.volumes.volumes.values()
    return volume


def attached(
    stand_in: OwnCloud, cloud: Cloud, *tags: str, noted: str = "", said: list[str] | None = None
) -> tuple[Machine, Volume | None]:
    """What becomes of a machine that exists without its work volume. `noted`: the id of the one that it had."""
    server = stand_in.add_machine("bio-1", tags=tags)
    seen = Server(server.id, "bio-1", "ACTIVE", has_answered=ANSWERED in tags, work=noted)
    return server, new_maker(stand_in, cloud, said=[] if said is None else said, **GIVEN).attached_work("bio-1", seen)


# --- a new machine ---


def test_a_machine_gets_a_volume_of_its_own_with_its_server(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, work_volume="4.5G", volume_type="ssd", volume_zone="ceph"))
    (asked,) = stand_in.bodies(VOLUMES)
    assert asked == {
        "name": "bio-1-work",
        "description": MARK,
        "size": 5,
        "metadata": {WORK: "bio-1"},
        "volume_type": "ssd",
        "availability_zone": "ceph",
    }
    volume, server = only(stand_in), stand_in.compute.server("bio-1")
    (image,) = (image["id"] for image in stand_in.images.images.values() if image["name"] == "debian-13")
    made = stand_in.bodies(SERVERS)[0]["server"]
    assert made["imageRef"] == image
    assert made["block_device_mapping_v2"] == [
        {
            "uuid": image,
            "source_type": "image",
            "destination_type": "local",
            "boot_index": 0,
            "delete_on_termination": True,
        },
        {
            "uuid": volume["id"],
            "source_type": "volume",
            "destination_type": "volume",
            "boot_index": -1,
            "delete_on_termination": False,
        },
    ]
    assert (volume["status"], volume["attachments"][0]["server_id"]) == ("in-use", server.id)
    assert made["metadata"][WORK] == volume["id"]


def test_a_machine_that_boots_from_a_volume_has_another_one_for_the_work(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, boot_volume="9G", **GIVEN))
    server = stand_in.compute.server("bio-1")
    names = {stand_in.volumes.volumes[id]["name"]: goes for id, goes in server.volumes.items()}
    assert names == {"bio-1": True, "bio-1-work": False}
    assert "imageRef" not in stand_in.bodies(SERVERS)[0]["server"]


def test_without_the_setting_there_is_none(stand_in: OwnCloud, cloud: Cloud) -> None:
    maker = new_maker(stand_in, cloud)
    server = machine(maker)
    assert maker.attached_work("bio-1", server) is None
    assert stand_in.count(path="/volume/v3/.*/volumes") == 0


def test_the_volume_is_awaited(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 4
    maker = new_maker(stand_in, cloud, **GIVEN)
    server = machine(maker)
    volume = maker.attached_work("bio-1", server)
    assert volume and volume.servers == (server.id,)
    assert stand_in.count("POST", "/os-volume_attachments") == 0


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 500}])
def test_one_volume_is_made_whatever_happens_to_the_answer(
    stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]
) -> None:
    stand_in.faults += [Fault("POST", path, **fault) for path in (VOLUMES, SERVERS)]
    machine(new_maker(stand_in, cloud, **GIVEN))
    assert only(stand_in)["status"] == "in-use"
    assert stand_in.totals()["servers"] == 1


@pytest.mark.parametrize("status", ["creating", "available"])
def test_the_volume_of_a_run_that_was_cut_off_is_used(stand_in: OwnCloud, cloud: Cloud, status: str) -> None:
    volume = work(stand_in, used=False, status=status)
    machine(new_maker(stand_in, cloud, **GIVEN))
    assert [*stand_in.compute.server("bio-1").volumes] == [volume["id"]]
    assert only(stand_in) is volume


def test_a_quota_that_was_used_up_meanwhile_is_reported_and_nothing_else_is_made(
    stand_in: OwnCloud, cloud: Cloud
) -> None:
    stand_in.set_quota("volumes", 0)
    with pytest.raises(CloudError, match="bio-1: creating its work volume failed: VolumeLimitExceeded"):
        machine(new_maker(stand_in, cloud, **GIVEN))
    assert stand_in.totals()["servers"] == 0


# --- a machine in the place of another one ---


def test_the_successor_has_the_same_volume(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_detach = 3
    maker = new_maker(stand_in, cloud, **GIVEN)
    server = machine(maker)
    before = only(stand_in)["id"]
    maker.discard(server.id)
    successor = machine(maker)
    assert [*stand_in.compute.server("bio-1").volumes] == [before]
    assert only(stand_in)["attachments"][0]["server_id"] == successor.id != server.id


def test_a_server_that_could_not_have_it_is_replaced_by_one_that_has(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.attachments_fail = 1
    maker = new_maker(stand_in, cloud, **GIVEN)
    with pytest.raises(Faulty, match="could not be attached") as raised:
        machine(maker)
    maker.discard(raised.value.server_id)
    server = machine(maker)
    assert only(stand_in)["attachments"][0]["server_id"] == server.id


def test_a_later_run_finds_the_volume_of_a_machine_that_is_gone(stand_in: OwnCloud, cloud: Cloud) -> None:
    machine(new_maker(stand_in, cloud, **GIVEN))
    before = only(stand_in)["id"]
    stand_in.compute.remove(stand_in.compute.server("bio-1"))
    said: list[str] = []
    machine(new_maker(stand_in, cloud, said=said, work_volume="9G"))
    assert [*stand_in.compute.server("bio-1").volumes] == [before]
    assert said == ["bio-1: its work volume keeps its 5 GiB: openstack.work_volume is for new ones"]


def test_each_machine_has_its_own(stand_in: OwnCloud, cloud: Cloud) -> None:
    volumes = {name: work(stand_in, name)["id"] for name in ("bio-2", "bio-1")}
    maker = new_maker(stand_in, cloud, **GIVEN)
    for name, volume in volumes.items():
        machine(maker, name)
        assert [*stand_in.compute.server(name).volumes] == [volume]


def test_a_volume_that_another_server_has_is_not_taken_from_it(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert SETTLING >= 120
    monkeypatch.setattr(module, "SETTLING", 6.0)
    volume, other = work(stand_in), stand_in.compute.add_server("theirs", "m1.small")
    stand_in.volumes.attach(volume, other.id)
    with pytest.raises(MachineError) as raised:
        machine(new_maker(stand_in, cloud, **GIVEN))
    where = f"is in the state in-use, attached to the server {other.id}."
    assert raised.value.message == f"bio-1: its work volume {volume['id']} {where}"
    assert "openstack server remove volume" in raised.value.remedy
    assert volume["attachments"][0]["server_id"] == other.id
    assert stand_in.totals()["servers"] == 1


# --- volumes in error ---


def test_a_new_volume_in_error_is_replaced(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 1
    stand_in.volumes.creations_fail = 1
    machine(new_maker(stand_in, cloud, **GIVEN))
    assert stand_in.count("POST", VOLUMES) == 2
    assert only(stand_in)["status"] == "in-use"


def test_one_that_fails_again_is_reported_and_leaves_nothing(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 1
    stand_in.volumes.creations_fail = 9
    with pytest.raises(MachineError, match="is in the state error") as raised:
        machine(new_maker(stand_in, cloud, **GIVEN))
    assert raised.value.remedy == "Run again, or leave out openstack.work_volume."
    assert stand_in.totals()["volumes"] == stand_in.totals()["servers"] == 0


@pytest.mark.parametrize("status", ["error", "error_restoring"])
def test_one_that_may_hold_work_is_reported_and_stays(stand_in: OwnCloud, cloud: Cloud, status: str) -> None:
    volume = work(stand_in, status=status)
    with pytest.raises(MachineError, match=f"{volume['id']} is in the state {status}") as raised:
        machine(new_maker(stand_in, cloud, **GIVEN))
    assert "It may hold students' work" in raised.value.remedy
    assert only(stand_in) is volume
    assert stand_in.count("DELETE") == 0


def test_one_that_somebody_deletes_meanwhile_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_create = 9
    polls: list[str] = []

    def delete(request: Any) -> None:
        polls.extend(["x"] if request.path.endswith("/volumes/detail") else [])
        if len(polls) == 4:
            stand_in.volumes.volumes.clear()

    stand_in.seen = delete
    with pytest.raises(MachineError, match="was deleted meanwhile"):
        machine(new_maker(stand_in, cloud, **GIVEN))


# --- a machine that exists without it ---


@pytest.mark.parametrize("looks", [0, 3])
def test_one_that_somebody_detached_is_attached_again(stand_in: OwnCloud, cloud: Cloud, looks: int) -> None:
    stand_in.volumes.looks_to_attach = looks
    volume = work(stand_in)
    server, got = attached(stand_in, cloud, ANSWERED, noted=volume["id"])
    assert got and got.id == volume["id"]
    assert (volume["status"], volume["attachments"][0]["server_id"]) == ("in-use", server.id)
    assert server.volumes == {volume["id"]: False}
    assert stand_in.bodies("/os-volume_attachments$") == [{"volumeId": volume["id"]}]


@pytest.mark.parametrize("fault", [{"drop": "after"}, {"drop": "before"}, {"status": 500}])
def test_it_is_attached_once_whatever_happens_to_the_answer(
    stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]
) -> None:
    stand_in.volumes.looks_to_attach = 2
    stand_in.faults.append(Fault("POST", "/os-volume_attachments$", **fault))
    server, got = attached(stand_in, cloud, ANSWERED, noted=work(stand_in)["id"])
    assert got and got.servers == (server.id,)


def test_a_request_of_a_run_that_was_cut_off_is_awaited(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_attach = 3
    volume, server = work(stand_in), stand_in.add_machine("bio-1", tags=(ANSWERED,))
    stand_in.volumes.attach(volume, server.id)
    maker = new_maker(stand_in, cloud, **GIVEN)
    got = maker.attached_work("bio-1", Server(server.id, "bio-1", "ACTIVE", work=volume["id"]))
    assert got and got.servers == (server.id,)
    assert stand_in.count("POST", "/os-volume_attachments") == 0


def test_one_that_can_not_be_attached_is_reported_and_stays(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.volumes.looks_to_attach = 2
    stand_in.volumes.attachments_fail = 1
    volume = work(stand_in)
    with pytest.raises(MachineError, match=f"could not attach its work volume {volume['id']}"):
        attached(stand_in, cloud, ANSWERED, noted=volume["id"])
    assert volume["status"] == "available"
    assert stand_in.compute.server("bio-1").volumes == {}


def test_a_machine_in_use_from_before_the_setting_gets_none(stand_in: OwnCloud, cloud: Cloud) -> None:
    volume = work(stand_in)  # of a machine of this name that was there before
    server, got = attached(stand_in, cloud, ANSWERED)
    assert got is None
    assert (volume["status"], server.volumes) == ("available", {})


def test_one_whose_volume_was_deleted_gets_another_and_that_is_said(stand_in: OwnCloud, cloud: Cloud) -> None:
    said: list[str] = []
    server, got = attached(stand_in, cloud, ANSWERED, noted="gone", said=said)
    assert got and got.servers == (server.id,) and not got.is_used
    assert said == ["Warning: bio-1: its work volume was deleted in the cloud, with the students' work on it"]
    assert server.metadata[WORK] == got.id


def test_a_machine_that_never_answered_gets_one_even_so(stand_in: OwnCloud, cloud: Cloud) -> None:
    server, got = attached(stand_in, cloud)
    assert got and got.servers == (server.id,)
    assert only(stand_in)["name"] == "bio-1-work"
    assert server.metadata[WORK] == got.id


def test_it_is_noted_once_that_there_is_work_on_it(stand_in: OwnCloud, cloud: Cloud) -> None:
    maker = new_maker(stand_in, cloud, **GIVEN)
    for _ in range(2):
        server = machine(maker)
        volume = maker.attached_work("bio-1", server)
        assert volume
        maker.note_used("bio-1", volume)
        assert only(stand_in)["metadata"] == {WORK: "bio-1", USED: "yes"}
    assert stand_in.count("POST", "/volumes/.*/metadata") == 1


def test_a_volume_to_boot_from_is_never_taken_for_the_work(stand_in: OwnCloud, cloud: Cloud) -> None:
    volume = work(stand_in)
    volume["name"] = "bio-1"
    parts(new_maker(stand_in, cloud, boot_volume="9G"))
    assert volume["status"] == "available"
    assert stand_in.totals()["volumes"] == 2
