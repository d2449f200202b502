"""`seat.shared` on fake machines, whose volumes are folders."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudscale.course import naming
from cloudscale.course.flags import Distribution, read_flags
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.material.shared import Mirror
from cloudscale.seats.services import running_seats
from cloudscale.seats.spec import has_shared
from cloudscale.workflow import doctor, material, reset, seat_move
from tests.unit.api_schema import Json
from tests.unit.classroom import ANN, BOB, CID, Class, messages
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

pytestmark = pytest.mark.usefixtures("processes")
VOLUME = naming.shared_name("bio")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "source"
    made.mkdir()
    (made / "data.csv").write_text("1,2")
    return made


def shared(room: Class, folder: Path | None, tmp_path: Path) -> Class:
    for api in room.apis:
        api.disk = tmp_path / "volumes" / api.name
    room.seat = {"shared": str(folder)} if folder else {}
    return room


@pytest.fixture
def one(bio: Class, folder: Path, tmp_path: Path) -> Class:
    return shared(bio, folder, tmp_path)


@pytest.fixture
def several(lab: Class, folder: Path, tmp_path: Path) -> Class:
    return shared(lab, folder, tmp_path)


def copy(api: FakeApi) -> dict[str, str]:
    if VOLUME not in api.volumes_:
        return {}
    return {path.name: path.read_text() for path in api.folder(VOLUME).iterdir()}


def with_it(room: Class) -> list[bool]:
    return [has_shared(seat.spec) for seat in running_seats(fake_engine(room.api), "bio")]


def said(room: Class, text: str) -> bool:
    return any(text in line for line in room.said.lines)


def test_every_machine_has_it_and_a_second_run_sends_nothing(several: Class) -> None:
    assert several.launch().problems == ()
    assert [copy(api) for api in several.apis] == [{"data.csv": "1,2"}] * 3
    assert with_it(several) == [True, True]
    assert said(several, "Shared folder: sent 9 bytes to 3 of 3 machines")
    several.launch()
    assert said(several, "nothing was sent") and said(several, "nothing was changed") and several.changes == []


def test_a_change_arrives_without_a_restart(one: Class, folder: Path) -> None:
    one.launch()
    (folder / "data.csv").write_text("3,4,5")
    (folder / "new.csv").write_text("6")
    assert one.launch().problems == ()
    assert copy(one.api) == {"data.csv": "3,4,5", "new.csv": "6"}
    assert one.changes == [] and not said(one, "nothing was changed") and not said(one, "restart")


def test_the_plan_says_what_would_be_sent_and_makes_nothing(several: Class, folder: Path) -> None:
    several.launch(plan=True)
    assert said(several, "Shared folder: 1 file, 3 bytes; to m1, m2, m3: all of it")
    assert all(VOLUME not in api.volumes_ for api in several.apis)
    several.launch()
    (folder / "data.csv").chmod(0o4755)
    several.launch(plan=True)
    assert said(several, "to machines that have it: what has changed")
    assert said(several, "Warning: data.csv in the shared folder loses its setuid or setgid bit")


def test_a_small_disk_is_a_warning_of_the_plan(one: Class, folder: Path) -> None:
    os.truncate(folder / "data.csv", 2**20)
    (machine,) = one.driver.machines()
    one.driver.free_disk = {machine.name: 2**19}
    one.launch(plan=True)
    assert said(one, "its disk has 0.0 GiB free, and the shared folder has 1 MiB")


def test_seats_restart_where_it_comes_or_goes_and_the_plan_says_so(bio: Class, folder: Path, tmp_path: Path) -> None:
    shared(bio, None, tmp_path).launch()
    assert with_it(bio) == [False, False]
    own = bio.api.folder(naming.volume_name("bio", "1")) / "shared"
    own.write_text("mine")
    shared(bio, folder, tmp_path).launch(plan=True)
    assert said(bio, "Warning: 2 running seats restart once, to get the shared folder")
    bio.launch()
    assert with_it(bio) == [True, True]
    assert said(bio, "Ann Lee: an own 'shared' was renamed")
    assert (own.parent / "shared (own)").read_text() == "mine"

    shared(bio, None, tmp_path).launch(plan=True)
    assert said(bio, "2 running seats restart without the shared folder")
    bio.launch()
    assert with_it(bio) == [False, False] and VOLUME not in bio.api.volumes_
    assert said(bio, "The shared folder was removed")


def test_seats_that_were_left_out_keep_it_and_so_does_their_machine(several: Class, tmp_path: Path) -> None:
    several.launch()
    shared(several, None, tmp_path).launch(common={"only": "1"})
    assert sorted(with_it(several)) == [False, True]
    assert [bool(copy(api)) for api in several.apis] == [False, True, False]


def test_a_newcomer_and_a_new_machine_have_it(several: Class, tmp_path: Path, folder: Path) -> None:
    several.launch()
    several.add_machines("m4")
    shared(several, folder, tmp_path).roster.write_text(ANN + BOB + CID)
    assert several.launch().problems == ()
    assert copy(several.apis[3]) and with_it(several) == [True] * 3


def test_where_it_can_not_be_brought_no_seat_starts_and_the_others_do(
    several: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    bring = Mirror.bring

    def failing(self: Mirror, engine: object, *given: object) -> int:
        if engine.name == "m2":  # type: ignore[attr-defined]
            raise EngineError("m2: its disk is full.")
        return bring(self, engine, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Mirror, "bring", failing)
    report = several.launch()
    assert [row["state"] for row in several.rows(report)] == ["ready", "failed"]
    text = messages(report)
    assert "m2: its disk is full." in text and "Bob Ray: the shared folder is not on m2" in text
    monkeypatch.setattr(Mirror, "bring", bring)
    several.launch()
    monkeypatch.setattr(Mirror, "bring", failing)
    report = several.launch()  # a seat that runs goes on
    assert [row["state"] for row in several.rows(report)] == ["ready", "ready"] and several.changes == []
    assert "m2: its disk is full." in messages(report)


def test_a_folder_that_does_not_exist_is_refused_before_anything_is_made(one: Class, tmp_path: Path) -> None:
    shared(one, tmp_path / "none", tmp_path)
    with pytest.raises(RequestError, match=r"seat.shared: .*none does not exist"):
        one.launch()
    assert one.changes == []


def test_doctor_looks_at_it(one: Class, tmp_path: Path) -> None:
    assert '"1 file, 3 bytes"' in doctor.doctor(one.session()).text
    shared(one, tmp_path / "none", tmp_path)
    assert "none does not exist" in doctor.doctor(one.session()).text


def test_a_reset_of_the_seats_keeps_it_unless_the_volumes_go(one: Class) -> None:
    one.launch()
    reset.containers_reset(one.session(), with_volumes=False)
    assert copy(one.api)
    one.launch()
    reset.containers_reset(one.session(), with_volumes=True)
    assert one.api.volumes_ == {}


def test_a_reset_of_the_driver_removes_it(several: Class) -> None:
    several.launch()
    assert reset.driver_reset(several.session()).problems == ()
    assert [api.volumes_ for api in several.apis] == [{}] * 3


def test_a_machine_that_a_seat_moves_to_has_it_before(several: Class, tmp_path: Path) -> None:
    several.launch()
    third = several.apis[2]
    third.remove_volume(VOLUME)
    shared(several, None, tmp_path)
    with pytest.raises(CloudscaleError, match="m3 does not have the shared folder"):
        seat_move.seat_move(several.session(), "1", "m3")


def test_nothing_can_be_distributed_into_it(one: Class, tmp_path: Path) -> None:
    one.launch()
    (tmp_path / "more/shared").mkdir(parents=True)
    (tmp_path / "more/shared/x").write_text("x")

    def distribute(**flags: Json) -> None:
        order = read_flags(Distribution, source=str(tmp_path / "more"), **flags)
        material.distribute(one.session(), order)

    for flags in ({}, {"into": "shared/day1"}):
        with pytest.raises(RequestError, match="'shared' is the shared folder"):
            distribute(**flags)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="'shared' is the shared folder"):
        one.launch(material=str(tmp_path / "more"))
    distribute(into="lessons")  # type: ignore[arg-type]
