"""`doctor` on fake machines: what it finds is what a launch on the same set-up then meets."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cloudscale.course.flags import Common, Launch, read_flags
from cloudscale.course.session import Session
from cloudscale.course.settings import DEFAULT_IMAGE
from cloudscale.course.usable_settings import read_usable
from cloudscale.errors import CloudscaleError, LoginRefused, RequestError
from cloudscale.gateway import certificates, program
from cloudscale.model import Machine, Survey
from cloudscale.units import MIB
from cloudscale.workflow import doctor, gateway, themachine
from tests.unit.api_schema import Json, api_error
from tests.unit.classroom import IMAGE, Class, Said
from tests.unit.fake_api import FakeApi
from tests.unit.fake_cloud import CloudClass

KEYS = ["check", "state", "finding", "remedy"]


def examined(course: Class, **common: Any) -> list[Json]:
    """The rows, of a run that changes nothing."""
    before = _files(course.roster.parent)
    report = doctor.doctor(course.session(**common))
    assert course.changes == course.driver.done == []
    assert _files(course.roster.parent) == before
    rows = course.rows(report)
    assert all(list(row) == KEYS for row in rows)
    assert bool(report.problems) == any(row["state"] == "wrong" for row in rows)
    return rows


def _files(folder: Path) -> dict[str, tuple[int, float]]:
    return {str(path): (path.stat().st_mode, path.stat().st_mtime) for path in folder.rglob("*")}


def wrong(rows: list[Json]) -> list[str]:
    return [row["check"] for row in rows if row["state"] == "wrong"]


def finding(rows: list[Json], check: str, state: str) -> str:
    (text,) = [row["finding"] for row in rows if (row["check"], row["state"]) == (check, state)]
    return str(text)


def met_by_a_launch(course: Class, **flags: Any) -> str:
    """What ends a launch, or what it reports at its end."""
    try:
        return "\n".join(course.launch(**flags).problems)
    except CloudscaleError as error:
        return str(error)


def same_as_a_launch(course: Class) -> list[str]:
    """The checks that are wrong. A launch then says the same, in the same words."""
    rows = examined(course)
    met = met_by_a_launch(course)
    for row in rows:
        if row["state"] == "wrong":
            expected = CloudscaleError(row["finding"], row["remedy"])
            assert str(expected) in met, (row, met)
    assert met, rows
    return wrong(rows)


# --- nothing is wrong ------------------------------------------------------------------------


def test_where_all_is_well_every_row_is_ok(bio: Class) -> None:
    rows = examined(bio)
    assert {row["state"] for row in rows} == {"ok"}
    assert [row["check"] for row in rows] == [
        "this computer",
        "configuration",
        "students",
        "course folder",
        "driver local",
        "machine m1",
        "image",
        "seats",
    ]
    assert finding(rows, "students", "ok") == f"2 students in {bio.roster}"
    assert finding(rows, "seats", "ok") == "2 seats on m1"
    assert finding(rows, "image", "ok").endswith("can be pulled")
    assert {row["remedy"] for row in rows} == {""}


def test_a_course_that_runs_is_well_too(lab: Class) -> None:
    lab.launch()
    lab.trainer = FakeApi()
    rows = examined(lab)
    assert {row["state"] for row in rows} == {"ok"}
    assert finding(rows, "swarm", "ok") == "machines: 3; seats: 2"
    assert "is on m1" in finding(rows, "image", "ok")


def test_machines_that_a_launch_sets_up_are_well(lab: Class) -> None:
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    rows = examined(lab)
    assert wrong(rows) == []
    assert finding(rows, "machine m2", "ok").startswith("it has no engine for the course yet, a launch sets it up; ")
    assert "of disk free" in finding(rows, "machine m2", "ok")


def test_a_class_in_a_cloud_needs_no_machine_yet(cloud: CloudClass) -> None:
    cloud.trainer = FakeApi()
    cloud.trainer.registry = cloud.registry
    cloud.enrol(9)
    rows = examined(cloud)
    assert wrong(rows) == []
    assert finding(rows, "quota", "ok") == "servers: 3 more, 0 used of 20\ncores: 6 more, 0 used of 40"
    assert finding(rows, "new machines", "ok") == "small: 2 cores, 2.0 GiB for seats"
    assert finding(rows, "seats", "ok") == "9 seats on bio-1, bio-2, bio-3"
    assert cloud.driver.resources() == ""


def test_a_class_in_a_cloud_that_runs_needs_no_more(cloud: CloudClass) -> None:
    cloud.launch()
    rows = examined(cloud)
    assert finding(rows, "quota", "ok") == "no more machines are needed"


def test_it_can_be_read_as_a_table(bio: Class) -> None:
    report = doctor.doctor(bio.session(format="table"))
    assert report.text.splitlines()[0].split() == KEYS
    assert report.problems == ()


# --- what is wrong is what a launch meets ----------------------------------------------------


def no_students(course: Class) -> None:
    course.roster.unlink()


def a_header_that_is_not_understood(course: Class) -> None:
    course.roster.write_text("Postfach;Wer\nann1;Ann Lee\n")


def a_student_twice(course: Class) -> None:
    course.roster.write_text("1;Ann;Lee\n1;Bob;Ray\n")


def no_answer(course: Class) -> None:
    course.driver.lose("m2")


def a_login_that_is_refused(course: Class) -> None:
    course.driver.refusals["m2"] = LoginRefused("m2: the login as root was refused.", "Check the key.")


def a_swarm_of_others(course: Class) -> None:
    course.driver.bare.discard("m2")
    api = course.apis[1]
    api.init_swarm(
        advertise_addr=api.address,
        listen_addr=api.address,
        data_path_addr=api.address,
        default_addr_pool=["10.9.0.0/16"],
        swarm_spec={"Labels": {}},
    )


def a_folder_that_others_may_write(course: Class) -> None:
    folder = Path(os.environ["CLOUDSCALE_HOME"]) / "bio"
    folder.mkdir()
    folder.chmod(0o777)


def a_folder_that_is_a_file(course: Class) -> None:
    (Path(os.environ["CLOUDSCALE_HOME"]) / "bio").write_text("")


def a_key_that_is_damaged(course: Class) -> None:
    folder = Path(os.environ["CLOUDSCALE_HOME"]) / "bio" / course.kind
    folder.mkdir(parents=True, mode=0o700)
    folder.parent.chmod(0o700)
    (folder / "key").write_text("abc\n")
    (folder / "key").chmod(0o600)


def an_image_that_is_not_built(course: Class) -> None:
    course.image = "pydata"
    course.trainer = FakeApi()


def an_image_without_a_form(course: Class) -> None:
    course.image = "quay.io/Jupyter/Lab:1"


def more_students_than_fit(course: Class) -> None:
    course.enrol(500)


def a_port_that_is_held(course: Class) -> None:
    course.gateway = {"mode": "path", "tls": "internal"}
    course.driver.held = frozenset({443})


def a_certificate_that_is_missing(course: Class) -> None:
    course.gateway = {"mode": "path", "tls": "/no/cert.pem,/no/key.pem"}


@pytest.mark.parametrize(
    ("broken", "checks"),
    [
        (no_students, ["students"]),
        (a_header_that_is_not_understood, ["students"]),
        (a_student_twice, ["students"]),
        (no_answer, ["machine m2"]),
        (a_login_that_is_refused, ["machine m2"]),
        (a_swarm_of_others, ["machine m2"]),
        (a_folder_that_others_may_write, ["course folder"]),
        (a_folder_that_is_a_file, ["course folder"]),
        (a_key_that_is_damaged, ["course folder"]),
        (an_image_that_is_not_built, ["image"]),
        (an_image_without_a_form, ["image"]),
        (more_students_than_fit, ["seats"]),
        (a_port_that_is_held, ["gateway"]),
        (a_certificate_that_is_missing, ["gateway"]),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_what_is_wrong_is_what_a_launch_then_meets(
    lab: Class, broken: Callable[[Class], None], checks: list[str]
) -> None:
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    broken(lab)
    assert same_as_a_launch(lab) == checks


def test_an_image_that_no_registry_has_is_met_by_a_launch_in_the_same_words(bio: Class) -> None:
    bio.image = "quay.io/jupyter/lba:1"
    assert same_as_a_launch(bio) == ["image"]


def test_seats_of_another_key_are_met_by_a_launch_in_the_same_words(bio: Class) -> None:
    bio.launch()
    (key,) = bio.roster.parent.glob("bio/local/key")
    key.write_text("ab" * 32)
    assert same_as_a_launch(bio) == ["course folder"]


def test_a_quota_that_is_too_small_is_met_by_a_launch_in_the_same_words(cloud: CloudClass) -> None:
    cloud.trainer = FakeApi()
    cloud.trainer.registry = cloud.registry
    cloud.enrol(9)
    cloud.driver.limits["servers"] = 2
    rows = examined(cloud)
    assert "What would fit: 2 more machines" in finding(rows, "quota", "wrong")
    assert [row["state"] for row in rows if row["check"] == "seats"] == ["unknown"]
    assert same_as_a_launch(cloud) == ["quota"]


def test_a_swarm_without_its_quorum_is_met_by_a_launch(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1", "m2")
    rows = examined(lab)
    assert sorted(wrong(rows)) == ["machine m1", "machine m2", "swarm"]
    assert finding(rows, "swarm", "wrong") in met_by_a_launch(lab)


def test_a_name_that_does_not_lead_to_the_machine_is_a_warning_here_and_there(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "addresses_of", lambda name: {name} if name[0].isdigit() else set())
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    lab.gateway = {"mode": "path", "domain": "seats.example.org", "tls": "internal"}
    lab.registry[program.IMAGE] = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    rows = examined(lab)
    assert wrong(rows) == []
    (row,) = [row for row in rows if (row["check"], row["state"]) == ("gateway", "warning")]
    met_by_a_launch(lab)
    assert f"Warning: {row['finding']} {row['remedy']}" in lab.said.lines


def test_the_name_of_a_machine_that_is_not_made_yet_is_looked_at_later(cloud: CloudClass) -> None:
    cloud.gateway = {"mode": "path", "domain": "seats.example.org", "tls": "internal"}
    cloud.image = "cloudscale/pydata:latest"
    assert "has no address yet" in finding(examined(cloud), "gateway", "warning")


# --- warnings --------------------------------------------------------------------------------


def test_how_the_students_file_is_read_is_shown(bio: Class) -> None:
    bio.roster.write_text("id;name\n1;Ann\nTotal;1\n")
    rows = examined(bio)
    assert "is the header" in finding(rows, "students", "ok")
    assert finding(rows, "students", "warning").startswith(str(bio.roster))


def test_what_a_plan_warns_of_is_a_warning(lab: Class) -> None:
    lab.driver.free_disk = {"m1": 100 * MIB}
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    assert finding(examined(lab), "seats", "warning").startswith("m1: its disk has")


def test_no_engine_here_is_no_fault_where_none_is_needed(lab: Class) -> None:
    lab.launch()
    rows = examined(lab)
    assert wrong(rows) == []
    assert "Only images that are built here need one." in "".join(row["finding"] for row in rows)


def test_no_engine_here_is_one_where_the_image_has_to_be_built_here(lab: Class) -> None:
    lab.image = "pydata"
    assert wrong(examined(lab)) == ["this computer", "image"]


def test_a_registry_that_this_computer_does_not_reach_may_be_reached_by_the_machines(
    lab: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(image: str) -> Json:
        raise api_error(500, "no route to host")

    lab.trainer = FakeApi()
    monkeypatch.setattr(lab.trainer, "inspect_distribution", unreachable)
    assert "could not be asked from here (no route to host)" in finding(examined(lab), "image", "warning")


def test_a_registry_that_a_machine_does_not_reach_is_wrong(bio: Class, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(image: str) -> Json:
        raise api_error(500, "no route to host")

    monkeypatch.setattr(bio.api, "inspect_distribution", unreachable)
    assert "is not on m1 and can't be pulled: no route to host" in finding(examined(bio), "image", "wrong")


# --- who does not answer ---------------------------------------------------------------------


@pytest.fixture(name="silence")
def silence_fixture() -> Iterator[threading.Event]:
    """Calls that wait for it end with the test."""
    event = threading.Event()
    yield event
    event.set()


def test_a_machine_that_hangs_does_not_keep_the_others_waiting(
    lab: Class, monkeypatch: pytest.MonkeyPatch, silence: threading.Event
) -> None:
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    survey = lab.driver.survey

    def hanging(machine: Machine) -> Survey:
        if machine.name == "m2":
            silence.wait(20)
        return survey(machine)

    monkeypatch.setattr(lab.driver, "survey", hanging)
    monkeypatch.setattr(doctor, "SPEAKING", 0.5)
    rows = examined(lab, timeout="1")
    assert wrong(rows) == ["machine m2"]
    assert finding(rows, "machine m2", "wrong") == "m2: no answer in 1.5 s."
    assert finding(rows, "seats", "ok") == "2 seats on m1, m3"


def test_an_engine_that_hangs_is_named(lab: Class, monkeypatch: pytest.MonkeyPatch, silence: threading.Event) -> None:
    lab.launch()
    connect = lab.driver.connect

    def hanging(machine: Machine) -> object:
        if machine.name == "m2":
            silence.wait(20)
        return connect(machine)

    monkeypatch.setattr(lab.driver, "connect", hanging)
    monkeypatch.setattr(doctor, "REST", 1.0)
    rows = examined(lab)
    assert finding(rows, "machine m2", "wrong").startswith("m2: its Docker Engine: no answer in ")
    assert wrong(rows) == ["machine m2"]


def test_a_driver_that_hangs_ends_the_look_at_machines(
    lab: Class, monkeypatch: pytest.MonkeyPatch, silence: threading.Event
) -> None:
    monkeypatch.setattr(lab.driver, "machines", lambda: silence.wait(20))
    monkeypatch.setattr(doctor, "SPEAKING", 0.1)
    rows = examined(lab, timeout="0.2")
    assert wrong(rows) == ["driver generic"]
    assert [row["state"] for row in rows if row["check"] == "machines"] == ["unknown"]


def test_a_machine_that_is_left_out_is_not_reported(lab: Class) -> None:
    lab.trainer = FakeApi()
    lab.trainer.registry = lab.registry
    lab.driver.lose("m2")
    rows = examined(lab, skip="m2")
    assert wrong(rows) == []
    assert finding(rows, "seats", "ok") == "2 seats on m1, m3"


# --- a wrong configuration -------------------------------------------------------------------


def with_configuration(**configuration: Any) -> tuple[Session, Said]:
    usable = read_usable(configuration)
    said = Said()
    common = read_flags(Common, format="json")
    return (
        Session(usable.settings, common, said, lambda question: None, refused=usable.refused, left_out=usable.left_out),
        said,
    )


def rows_with(**configuration: Any) -> list[Json]:
    rows: list[Json] = json.loads(doctor.doctor(with_configuration(**configuration)[0]).text)
    return rows


def test_a_wrong_key_is_named_and_what_does_not_depend_on_it_is_looked_at(bio: Class) -> None:
    bio.api.images_[DEFAULT_IMAGE] = bio.registry[IMAGE]
    rows = rows_with(driver="local", course="bio", students=str(bio.roster), openstack={"flavr": "big"})
    assert wrong(rows) == ["configuration"]
    assert "cloudscale.openstack.flavr: unknown key." in finding(rows, "configuration", "wrong")
    assert finding(rows, "machine m1", "ok")


@pytest.mark.parametrize("configuration", [{"driver": "lokal"}, {"local": {"adress": "a"}}, {"course": "Ä"}])
def test_machines_are_not_looked_at_where_it_is_not_known_which(bio: Class, configuration: Json) -> None:
    rows = rows_with(**{"driver": "local", "students": str(bio.roster), **configuration})
    assert wrong(rows) == ["configuration"]
    assert rows[-1]["check"] == "machines" and rows[-1]["state"] == "unknown"


def test_students_are_not_looked_at_where_it_is_not_known_which(bio: Class) -> None:
    rows = rows_with(driver="local", course="bio", students=7)
    assert [row["state"] for row in rows if row["check"] == "students"] == ["unknown"]
    assert [row["state"] for row in rows if row["check"] == "seats"] == ["unknown"]


def test_a_driver_without_its_programs_is_met_by_a_launch_in_the_same_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "class.csv").write_text("1;Ann;Lee\n")
    configuration = {"driver": "virtualbox", "course": "bio", "students": str(tmp_path / "class.csv")}
    rows = rows_with(**configuration)
    assert wrong(rows) == ["driver virtualbox"]
    with pytest.raises(RequestError) as raised:
        themachine.themachine(with_configuration(**configuration)[0], read_flags(Launch))
    (row,) = [row for row in rows if row["state"] == "wrong"]
    assert (raised.value.message, raised.value.remedy) == (row["finding"], row["remedy"])


def test_an_engine_that_is_missing_is_met_by_a_launch_in_the_same_words(no_engine: None, tmp_path: Path) -> None:
    (tmp_path / "class.csv").write_text("1;Ann;Lee\n")
    configuration = {"driver": "local", "course": "bio", "students": str(tmp_path / "class.csv")}
    rows = rows_with(**configuration)
    assert wrong(rows) == ["driver local"]
    with pytest.raises(CloudscaleError) as raised:
        themachine.themachine(with_configuration(**configuration)[0], read_flags(Launch))
    (row,) = [row for row in rows if row["state"] == "wrong"]
    assert (raised.value.message, raised.value.remedy) == (row["finding"], row["remedy"])
