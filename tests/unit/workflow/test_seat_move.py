from __future__ import annotations

from typing import Any

import pytest

from cloudscale.cli.report import Report
from cloudscale.course import naming
from cloudscale.errors import CapacityError, CloudscaleError, RequestError
from cloudscale.seats import moving
from cloudscale.units import GIB
from cloudscale.workflow import one_seat, reset, seat_move
from tests.unit.api_schema import Json, api_error
from tests.unit.classroom import ANN, BOB, CID, IMAGE, Class, messages
from tests.unit.workflow.test_one_seat import behind, passwords, table

__all__ = ["behind"]
NAME = naming.volume_name("bio", "1")
WORK = {"notes.txt": b"mine"}
Killed = type("Killed", (BaseException,), {})


@pytest.fixture
def room(lab: Class) -> Class:
    """Ann is on m1, Bob on m2, and m3 is free. Ann has saved something."""
    lab.launch()
    lab.apis[0].files[NAME] = dict(WORK)
    return lab


def move(room: Class, to: str = "m3", student: str = "1", **common: Any) -> Report:
    return seat_move.seat_move(room.session(**common), student, to)


def where(room: Class) -> dict[str, list[str]]:
    """The machines with a container of Ann's, and those with a volume; one that is unfinished with a `?`."""
    marks = {"cloudscale.student": "1"}.items()
    return {
        "runs": [api.name for api in room.apis if any(marks <= each["Labels"].items() for each in api.containers_)],
        "volumes": [
            api.name + "?" * (naming.unfinished_name(NAME) in api.volumes_) for api in room.apis if NAME in api.volumes_
        ],
    }


def service(room: Class) -> Json:
    (found,) = (s for s in room.api.services_.values() if s["Spec"]["Labels"].get("cloudscale.student") == "1")
    spec: Json = found["Spec"]
    return spec


def is_said(room: Class, text: str) -> bool:
    return any(text in line for line in room.said.lines)


# --- a move ----------------------------------------------------------------------------------


def test_a_seat_moves_with_its_work_and_its_password(room: Class) -> None:
    report = move(room)
    assert report.problems == () and room.questions == []
    (row,) = room.rows(report)
    assert (row["node"], row["host"], row["port"], row["state"]) == ("m3", "192.0.2.3", 4321, "ready")
    assert "password" not in row
    assert where(room) == {"runs": ["m3"], "volumes": ["m3"]}
    assert room.apis[2].files[NAME] == WORK
    assert naming.MOVED not in service(room)["Labels"]
    ann, bob = room.rows(room.launch())
    assert {**row, "password": ann["password"]} == ann and bob["node"] == "m2"
    assert room.changes == []


def test_it_moves_back_to_the_port_that_it_had(room: Class) -> None:
    before = room.launch()
    room.enrol(0)
    room.roster.write_text(ANN + BOB)
    assert room.rows(move(room, "m2"))[0]["port"] == 4322  # beside Bob
    assert room.rows(move(room, "m1"))[0]["port"] == 4321
    assert room.launch() == before


def test_to_where_it_is_it_does_not_move(room: Class) -> None:
    assert move(room, "M1").problems == ()
    assert is_said(room, "Ann Lee is on m1 already")
    assert room.changes == []


def test_the_new_place_is_remembered_after_the_seats_were_cleared(room: Class) -> None:
    move(room)
    reset.containers_reset(room.session(), with_volumes=False)
    assert room.nodes_of(room.launch()) == ["m3", "m2"]


def test_nothing_else_of_the_seat_changes(room: Class) -> None:
    room.launch(env={"COLOR": "red"}, port=9999)
    before = service(room)
    move(room)
    after = service(room)
    for spec in (before, after):
        (port,) = spec["EndpointSpec"]["Ports"]
        assert port.pop("PublishedPort") == 4321
        spec["TaskTemplate"].pop("Placement")
    assert after == before


def test_another_port_that_something_else_holds_is_passed_over(room: Class) -> None:
    room.driver.held = frozenset({4321, 4322})
    assert room.rows(move(room))[0]["port"] == 4323


def test_ports_begin_where_those_of_the_class_do(lab: Class) -> None:
    lab.launch(start=6000)
    lab.apis[0].files[NAME] = dict(WORK)
    assert lab.rows(move(lab))[0]["port"] == 6000


def test_behind_a_gateway_only_its_own_way_changes(behind: Class) -> None:
    def ways() -> list[Json]:
        handlers = table(behind, "caddy")["apps"]["http"]["servers"]["gateway"]["routes"][0]["handle"]
        found: list[Json] = handlers[1]["mappings"]
        return found

    before, students = ways(), behind.rows(behind.launch())
    behind.apis[0].files[NAME] = dict(WORK)
    report = move(behind)
    assert report.problems == ()
    assert behind.rows(report)[0]["url"] == students[0]["url"]
    (old,) = (way for way in before if way not in ways())
    (new,) = (way for way in ways() if way not in before)
    assert old["outputs"] == ["10.0.0.1:4321", new["outputs"][1]] and new["outputs"][0] == "10.0.0.3:4321"
    assert behind.launch().problems == () and behind.changes == []


def test_a_changed_password_moves_too(room: Class) -> None:
    new = passwords(room, one_seat.seat_password(room.session(), "1"))
    move(room)
    assert passwords(room, room.launch())["Ann Lee"] == new["Ann Lee"]
    assert room.changes == []


# --- what can't be ---------------------------------------------------------------------------


def refused(room: Class, kind: type[CloudscaleError], text: str, **words: Any) -> CloudscaleError:
    with pytest.raises(kind, match=text) as raised:
        move(room, **words)
    assert [change for change in room.changes if change not in ("create volume",)] == []
    assert where(room) == {"runs": ["m1"], "volumes": ["m1"]}
    return raised.value


def test_one_machine_has_no_other_to_move_to(bio: Class) -> None:
    bio.launch()
    with pytest.raises(RequestError, match="The driver local has one machine"):
        move(bio, "m1")


def test_a_machine_has_to_be_named(room: Class) -> None:
    with pytest.raises(RequestError, match="--to is missing"):
        seat_move.seat_move(room.session(), "1", None)


def test_an_unknown_machine_is_refused_with_those_there_are(room: Class) -> None:
    error = refused(room, RequestError, "no machine 'm9'", to="m9")
    assert error.remedy == "Available: m1, m2, m3."


def test_a_lost_machine_takes_no_seat(room: Class) -> None:
    room.driver.lose("m3")
    error = refused(room, CloudscaleError, "m3 is not ready for seats")
    assert error.exit_code == 1 and "can't be reached" in error.message and "m1, m2" in error.remedy


def test_work_on_a_lost_machine_can_not_be_moved(room: Class) -> None:
    room.driver.lose("m1")
    with pytest.raises(CloudscaleError, match="the machine m1 is lost"):
        move(room)


def test_a_machine_without_room_is_refused_with_those_that_have_some(room: Class) -> None:
    room.apis[2].memory = GIB // 4
    error = refused(room, CapacityError, "m3 has no room for the seat")
    assert "With room: m2." in error.remedy


def test_a_machine_without_the_image_is_refused_with_what_brings_it(room: Class) -> None:
    room.apis[2].images_.clear()
    error = refused(room, CloudscaleError, "m3 does not have the image")
    assert "themachine --onlycreate" in error.remedy


def test_another_build_of_the_image_is_not_the_image(room: Class) -> None:
    images = room.apis[2].images_
    room.apis[2].images_ = {name: {**image, "RootFS": {"Layers": ["other"]}} for name, image in images.items()}
    refused(room, CloudscaleError, "m3 does not have the image")


def test_the_image_has_its_own_name_on_each_machine(room: Class) -> None:
    """Where an engine keeps images in containerd, the id of one is another one there."""
    same = {"RootFS": {"Layers": ["same"]}}
    room.apis[0].images_[IMAGE] = {**room.apis[0].images_[IMAGE], **same}
    room.apis[2].images_[IMAGE] = {**room.apis[2].images_[IMAGE], **same, "Id": "sha256:99", "RepoDigests": []}
    move(room)
    assert service(room)["TaskTemplate"]["ContainerSpec"]["Image"] == "sha256:99"


# --- what goes wrong on the way --------------------------------------------------------------


def test_work_that_the_disk_has_no_room_for_stays_where_it_was(room: Class) -> None:
    room.driver.free_disk = {"m3": seat_move.RESERVE + 1000}
    with pytest.raises(CloudscaleError, match="m3: its disk has too little room"):
        move(room)
    assert where(room) == {"runs": ["m1"], "volumes": ["m1"]}
    assert is_said(room, "starts again on m1")
    assert {row["state"] for row in room.rows(room.launch())} == {"ready"} and room.changes == []


@pytest.mark.parametrize("fault", ["disk_is_full", "down"])
def test_a_machine_that_does_not_take_the_work_changes_nothing(room: Class, fault: str) -> None:
    def break_it(*words: object, **more: object) -> None:
        room.apis[2].disk_is_full = True
        if fault == "down":
            room.driver.lose("m3")

    begin = moving.StudentVolume.begin

    def begun(self: moving.StudentVolume, labels: Any, disk: int) -> None:
        begin(self, labels, disk)
        break_it()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(moving.StudentVolume, "begin", begun)
        with pytest.raises(CloudscaleError, match="m3"):
            move(room)
    assert where(room)["runs"] == ["m1"]
    assert where(room)["volumes"] == (["m1"] if fault == "disk_is_full" else ["m1", "m3?"])
    assert room.apis[0].files[NAME] == WORK


STEPS = {
    "it stops": (seat_move, "wait_stopped"),
    "the copy begins": (moving.StudentVolume, "begin"),
    "it is copied": (moving, "copy"),
    "it is pinned": (seat_move, "moved"),
}


def killed(room: Class, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A move that was killed in a step of it, with no time to undo anything."""

    def kill(*words: object, **more: object) -> None:
        raise Killed

    owner, name = STEPS[step]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, kill)
        patch.setattr(seat_move, "_undo", kill)
        with pytest.raises(Killed):
            move(room)


@pytest.mark.parametrize("step", STEPS)
def test_cut_off_before_it_has_moved_it_is_where_it_was_and_moves_the_next_time(
    room: Class, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(room, step, monkeypatch)
    assert where(room)["runs"] == [] and where(room)["volumes"][0] == "m1"
    assert move(room).problems == ()
    assert where(room) == {"runs": ["m3"], "volumes": ["m3"]}
    assert room.apis[2].files[NAME] == WORK
    assert room.questions == []


@pytest.mark.parametrize("step", STEPS)
def test_cut_off_before_it_has_moved_a_launch_starts_it_where_it_was(
    room: Class, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = room.launch()
    killed(room, step, monkeypatch)
    assert room.launch() == before
    assert where(room)["runs"] == ["m1"]


@pytest.mark.parametrize("task", [one_seat.seat_restart, one_seat.seat_password])
def test_cut_off_before_it_has_moved_the_other_tasks_for_a_seat_start_it_where_it_was(
    room: Class, task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(room, "it is copied", monkeypatch)
    report = task(room.session(), "1")
    assert room.rows(report)[0]["state"] == "ready"
    assert where(room)["runs"] == ["m1"]


@pytest.mark.parametrize("step", ["it is copied", "it is pinned"])
def test_a_copy_that_does_not_count_brings_nobody_to_the_wrong_machine(
    room: Class, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed(room, step, monkeypatch)
    assert where(room)["volumes"] == ["m1", "m3?"]
    reset.containers_reset(room.session(), with_volumes=False)
    assert room.nodes_of(room.launch()) == ["m1", "m2"]
    reset.containers_reset(room.session(), with_volumes=True)
    assert all(api.volumes_ == {} for api in room.apis)


@pytest.mark.parametrize("is_reset", [False, True])
def test_cut_off_after_it_has_moved_it_stays_there_and_the_next_run_removes_what_it_has_left(
    room: Class, is_reset: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*words: object, **more: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(seat_move, "_arrive", kill)
        with pytest.raises(Killed):
            move(room)
    assert where(room) == {"runs": ["m3"], "volumes": ["m1", "m3?"]}
    assert room.nodes_of(room.launch()) == ["m3", "m2"]
    if is_reset:
        reset.containers_reset(room.session(), with_volumes=False)
        assert room.nodes_of(room.launch()) == ["m3", "m2"]
        assert where(room) == {"runs": ["m3"], "volumes": ["m1", "m3"]}
        return
    assert move(room).problems == ()
    assert where(room) == {"runs": ["m3"], "volumes": ["m3"]}
    assert is_said(room, "nothing of Ann Lee is left on m1")


def test_until_the_seat_answers_its_work_stays_on_both(room: Class) -> None:
    room.mute = {4321}
    report = move(room, timeout="3")
    assert room.rows(report)[0]["state"] == "starting" and "did not answer" in messages(report)
    assert where(room)["volumes"] == ["m1", "m3"] and is_said(room, "still on m1")
    room.mute = set()
    move(room)
    assert where(room)["volumes"] == ["m3"]


def test_what_can_not_be_removed_is_named_and_goes_with_the_next_run(
    room: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(room.apis[0], "remove_volume", lambda name: (_ for _ in ()).throw(api_error(500, "busy")))
        report = move(room)
    assert room.rows(report)[0]["state"] == "ready"
    assert "m1: the volume that Ann Lee had there is still there" in messages(report) and "busy" in messages(report)
    assert move(room).problems == ()
    assert where(room)["volumes"] == ["m3"]


def test_older_work_on_the_other_machine_goes_only_if_the_trainer_agrees(room: Class) -> None:
    room.apis[2].create_volume(NAME, naming.student_labels("bio", "1"))
    room.apis[2].files[NAME] = {"old.txt": b"old"}
    room.agrees = False
    with pytest.raises(RequestError):
        move(room)
    assert "m3 has older work of Ann Lee" in room.questions[0]
    assert where(room)["runs"] == ["m1"] and room.apis[2].files[NAME] == {"old.txt": b"old"}
    room.agrees = True
    move(room)
    assert room.apis[2].files[NAME] == WORK


def test_a_seat_that_another_trainer_starts_meanwhile_stays(room: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = moving.copy

    def copy_and_start(*words: Any, **more: Any) -> None:
        copy(*words, **more)
        (found,) = (s for s in room.api.services_.values() if s["Spec"]["Labels"].get("cloudscale.student") == "1")
        found["Spec"]["Mode"] = {"Replicated": {"Replicas": 1}}
        room.api.swarm.start(found["ID"])

    monkeypatch.setattr(moving, "copy", copy_and_start)
    with pytest.raises(CloudscaleError, match="was started meanwhile"):
        move(room)
    assert where(room) == {"runs": ["m1"], "volumes": ["m1"]}


def test_a_container_that_does_not_stop_is_not_copied(room: Class) -> None:
    room.apis[0].keeps_containers = True
    with pytest.raises(CloudscaleError, match="still runs on m1"):
        move(room)
    assert NAME not in room.apis[2].volumes_


def test_all_students_can_leave_a_machine(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB + CID)
    lab.launch()
    for student in "13":
        move(lab, "m2", student)
    assert lab.nodes_of(lab.launch()) == ["m2", "m2", "m2"]
    assert lab.changes == []
