from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cloudscale.errors import CapacityError, CloudscaleError, RequestError, RosterError
from cloudscale.units import GIB
from cloudscale.workflow import reset, themachine
from tests.unit.api_schema import api_error
from tests.unit.classroom import ANN, BOB, CID, IMAGE, Class
from tests.unit.fakes import fake_engine

# --- themachine ------------------------------------------------------------------------------


def test_every_student_gets_a_seat_that_answers(bio: Class) -> None:
    report = bio.launch()
    ann, bob = bio.rows(report)
    assert report.problems == ()
    assert ann == {
        "student": "Ann Lee",
        "email": "ann@example.org",
        "url": f"http://192.0.2.1:4321{ann['url'][-11:]}",
        "host": "192.0.2.1",
        "port": 4321,
        "password": ann["password"],
        "node": "m1",
        "state": "ready",
    }
    assert (bob["student"], bob["port"], bob["state"]) == ("Bob Ray", 4322, "ready")
    assert len({ann["password"], bob["password"]}) == 2
    assert len({ann["url"][-11:], bob["url"][-11:], ann["password"][:10]}) == 3


def test_the_image_is_there_before_any_seat_starts(bio: Class) -> None:
    bio.launch()
    assert bio.changes.index(f"pull {IMAGE}") < bio.changes.index("create service")


def test_a_second_run_changes_nothing_and_says_the_same(bio: Class) -> None:
    first = bio.launch()
    second = bio.launch()
    assert second == first
    assert bio.changes == []
    assert any("nothing was changed" in line for line in bio.said.lines)


def test_who_stays_keeps_address_and_password_when_others_come_and_go(bio: Class) -> None:
    bio.roster.write_text(BOB)
    (before,) = bio.rows(bio.launch())
    bio.roster.write_text(CID + BOB + ANN)
    rows = bio.rows(bio.launch())
    assert [row["student"] for row in rows] == ["Cid Kim", "Bob Ray", "Ann Lee"]
    assert rows[1] == before


def test_who_left_keeps_the_seat_unless_it_is_pruned(bio: Class) -> None:
    bio.launch()
    bio.roster.write_text(BOB)
    assert [row["student"] for row in bio.rows(bio.launch())] == ["Bob Ray"]
    assert any("Ann Lee" in line and "--prune" in line for line in bio.said.lines)
    assert bio.changes == []
    bio.launch(prune=True)
    assert bio.changes == ["remove service", "remove secret"]
    assert len(bio.api.volumes_) == 2  # the work of who left stays


def test_a_place_is_given_back_after_the_seats_were_cleared(bio: Class) -> None:
    first = bio.rows(bio.launch())
    reset.containers_reset(bio.session(), with_volumes=False)
    bio.roster.write_text(CID + BOB + ANN)
    again = {row["student"]: row for row in bio.rows(bio.launch())}
    assert [again["Ann Lee"], again["Bob Ray"]] == first


def test_only_those_who_are_chosen_are_seated(bio: Class) -> None:
    assert [row["student"] for row in bio.rows(bio.launch(common={"only": "Bob Ray"}))] == ["Bob Ray"]
    assert bio.changes.count("create service") == 1
    assert [row["student"] for row in bio.rows(bio.launch(common={"skip": "2"}))] == ["Ann Lee"]


def test_a_plan_makes_nothing(bio: Class, tmp_path: Path) -> None:
    plan = json.loads(bio.launch(plan=True).text)
    assert [seat["student"] for seat in plan["seats"]] == ["Ann Lee", "Bob Ray"]
    assert plan["machines"][0]["seats"] == 2
    assert bio.api.changes == []
    assert list(tmp_path.iterdir()) == [bio.roster]


def test_a_plan_warns_of_what_the_run_would_warn_of(bio: Class) -> None:
    bio.driver.held = frozenset({4321})
    bio.launch(plan=True)
    assert any(line.startswith("Warning: Port 4321") for line in bio.said.lines)


def test_onlycreate_makes_the_swarm_and_no_seats_and_needs_no_students(bio: Class) -> None:
    bio.roster.unlink()
    (row,) = bio.rows(bio.launch(onlycreate=True))
    assert (row["machine"], row["seats"]) == ("m1", 0)
    assert bio.api.manages
    assert bio.api.services_ == {}
    assert f"pull {IMAGE}" in bio.api.changes


def test_onlycreate_can_be_for_chosen_machines(bio: Class) -> None:
    (row,) = bio.rows(bio.launch(onlycreate=True, common={"only": "m1"}))
    assert row["machine"] == "m1"


def test_ports_that_something_listens_on_are_passed_over_on_every_run(bio: Class) -> None:
    bio.driver.held = frozenset({4321, 4322})
    assert [row["port"] for row in bio.rows(bio.launch())] == [4323, 4324]
    assert any(line.startswith("Warning: Port 4321") for line in bio.said.lines)
    bio.driver.held = frozenset({4321, 4322, 4323, 4324})  # the seats themselves listen now
    assert [row["port"] for row in bio.rows(bio.launch())] == [4323, 4324]


def test_the_port_range_and_the_environment_are_those_of_the_flags(bio: Class) -> None:
    rows = bio.rows(bio.launch(start="5000", end="5001", port="80", env=["TZ=Europe/Madrid"]))
    assert [row["port"] for row in rows] == [5000, 5001]
    for service in bio.api.services_.values():
        assert service["Spec"]["EndpointSpec"]["Ports"][0]["TargetPort"] == 80
        assert "TZ=Europe/Madrid" in service["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"]


def test_one_seat_that_does_not_come_up_is_named_and_the_others_are_ready(bio: Class) -> None:
    bio.mute = {4321}
    report = bio.launch(common={"timeout": 0.01})
    assert [row["state"] for row in bio.rows(report)] == ["starting", "ready"]
    (problem,) = report.problems
    assert problem.startswith("Ann Lee")


def test_one_seat_that_can_not_be_made_is_named_and_the_others_are_ready(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = bio.api.create_service

    def not_for_ann(**spec: Any) -> object:
        if spec["labels"]["cloudscale.student"] == "1":
            raise api_error(500, "rpc error: context deadline exceeded")
        return create(**spec)

    monkeypatch.setattr(bio.api, "create_service", not_for_ann)
    report = bio.launch()
    assert [row["state"] for row in bio.rows(report)] == ["failed", "ready"]
    (problem,) = report.problems
    assert problem.startswith("Ann Lee")
    assert "deadline exceeded" in problem


def test_the_result_is_also_written_for_the_owners_eyes_only(bio: Class, tmp_path: Path) -> None:
    report = bio.launch(output=tmp_path / "out.json")
    assert (tmp_path / "out.json").read_text() == report.text + "\n"
    assert (tmp_path / "out.json").stat().st_mode & 0o777 == 0o600


def test_a_result_that_can_not_be_written_is_reported_all_the_same(
    bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(themachine, "replace_file", full)
    report = bio.launch(output=tmp_path / "out.json")
    assert len(bio.rows(report)) == 2
    assert any("out.json was not written: No space left" in problem for problem in report.problems)


def test_who_left_can_be_chosen_for_pruning(bio: Class) -> None:
    bio.roster.write_text(ANN + BOB + CID)
    bio.launch()
    bio.roster.write_text(CID)
    bio.launch(prune=True, common={"only": "Ann Lee"})
    assert sorted(service["Spec"]["Labels"]["cloudscale.student"] for service in bio.api.services_.values()) == [
        "2",
        "3",
    ]


def test_who_left_and_is_kept_keeps_the_port_from_newcomers(bio: Class) -> None:
    bio.roster.write_text(ANN + BOB)
    (ann, _) = bio.rows(bio.launch())
    bio.roster.write_text(BOB + CID)
    rows = bio.rows(bio.launch(prune=True, common={"skip": "Ann Lee"}))
    assert ann["port"] not in [row["port"] for row in rows]


def test_a_wrong_request_changes_nothing(bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(error: type[CloudscaleError], **flags: Any) -> None:
        with pytest.raises(error):
            bio.launch(**flags)
        assert bio.api.changes == []

    wrong(RequestError, output=tmp_path / "missing" / "out.csv")
    wrong(RequestError, nodes="3")
    wrong(CapacityError, start="4321", end="4321")
    bio.api.memory = GIB // 2
    wrong(CapacityError)
    bio.roster.write_text("1;Ann;Lee\n1;Bob;Ray\n")
    wrong(RosterError)


@pytest.mark.parametrize("flag", ["only", "skip"])
def test_a_choice_of_nobody_is_a_wrong_request_and_changes_nothing(bio: Class, flag: str) -> None:
    with pytest.raises(RequestError, match="Biff"):
        bio.launch(common={flag: "Biff"})
    assert bio.api.changes == []


def test_seats_of_another_key_are_not_touched(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    (tmp_path / "bio" / "local" / "key").write_text("ab" * 32)
    with pytest.raises(RequestError, match="another key"):
        bio.launch()
    assert bio.api.changes == []


def test_a_second_run_at_once_is_refused(bio: Class) -> None:
    with bio.session().course.locked(), pytest.raises(CloudscaleError, match="Another run"):
        bio.launch()


def test_no_password_is_said_aloud(bio: Class) -> None:
    rows = bio.rows(bio.launch())
    assert not any(row["password"] in line for row in rows for line in bio.said.lines)


@pytest.mark.parametrize(
    ("host", "url"), [("192.0.2.1", "http://192.0.2.1:4321"), ("2001:db8::1", "http://[2001:db8::1]:4321")]
)
def test_an_address_can_be_clicked(bio: Class, host: str, url: str) -> None:
    bio.driver.engines["m1"] = fake_engine(bio.api, address=host)
    assert bio.rows(bio.launch())[0]["url"].startswith(f"{url}/")
