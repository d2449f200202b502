from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from cloudscale.course import naming
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.gateway import certificates, program
from cloudscale.workflow import gateway, one_seat, reset, status
from tests.unit.api_schema import Json, api_error
from tests.unit.classroom import ANN, BOB, CID, Class, messages


def passwords(room: Class, report: Any) -> dict[str, str]:
    return {row["student"]: row["password"] for row in room.rows(report)}


def container(room: Class, student_id: str) -> str:
    (found,) = (
        each["Id"]
        for api in room.apis
        for each in api.containers_
        if each["Labels"].get("cloudscale.student") == student_id
    )
    return str(found)


def configuration(room: Class, student_id: str) -> Json:
    """What the server of a student reads."""
    (service,) = (s for s in room.api.services_.values() if s["Spec"]["Labels"].get("cloudscale.student") == student_id)
    secret = service["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretID"]
    found: Json = json.loads(room.api.secret_data[secret])
    return found


@pytest.fixture
def behind(monkeypatch: pytest.MonkeyPatch, lab: Class) -> Class:
    """A class of three machines behind a gateway."""
    lab.registry[program.IMAGE] = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}
    lab.gateway = {"tls": "internal"}
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    monkeypatch.setattr(gateway, "addresses_of", lambda name: {name} if name[0].isdigit() else set())
    lab.launch(gateway="path")
    return lab


# --- a restart -------------------------------------------------------------------------------


def test_a_restart_is_of_one_seat_at_its_address_with_its_password(lab: Class) -> None:
    before = lab.launch()
    ann, bob = container(lab, "1"), container(lab, "2")
    report = one_seat.seat_restart(lab.session(), "Ann")
    assert report.problems == () and lab.questions == []
    (row,) = lab.rows(report)
    assert row == {key: value for key, value in lab.rows(before)[0].items() if key != "password"}
    assert row["state"] == "ready"
    assert container(lab, "1") != ann and container(lab, "2") == bob
    assert lab.changes == ["update service"]
    assert lab.launch() == before and lab.changes == []


def test_each_restart_is_one(bio: Class) -> None:
    bio.launch()
    seen = {container(bio, "1")}
    for _ in range(3):
        one_seat.seat_restart(bio.session(), "1")
        seen.add(container(bio, "1"))
    assert len(seen) == 4


def test_a_seat_that_does_not_answer_is_reported_with_its_line(bio: Class) -> None:
    bio.launch()
    bio.mute = {4321}
    report = one_seat.seat_restart(bio.session(timeout="3"), "1")
    assert bio.rows(report)[0]["state"] == "starting"
    assert "did not answer within 3 s" in messages(report)


def test_a_service_that_the_swarm_has_just_changed_is_restarted_all_the_same(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()
    update, tries = bio.api.update_service, iter([api_error(500, "rpc error: update out of sequence")])

    def late(*words: Any, **more: Any) -> Any:
        for error in tries:
            raise error
        return update(*words, **more)

    monkeypatch.setattr(bio.api, "update_service", late)
    assert one_seat.seat_restart(bio.session(), "1").problems == ()


# --- whose -----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["1", "Ann Lee", "ann  lee", "ann", "le", "LEE"])
def test_a_student_is_named_by_id_full_name_or_a_part(bio: Class, text: str) -> None:
    bio.launch()
    assert bio.rows(one_seat.seat_restart(bio.session(), text))[0]["student"] == "Ann Lee"


def test_a_student_who_is_not_clear_is_refused_with_those_who_may_be_meant(bio: Class) -> None:
    bio.roster.write_text(ANN + BOB + "4;Anna;Ray\n")
    bio.launch()
    for text in ("ann", "ray"):
        with pytest.raises(RequestError, match="2 students") as refused:
            one_seat.seat_password(bio.session(), text)
        assert "4 Anna Ray" in str(refused.value)
    with pytest.raises(RequestError, match="'Zoe'") as refused:
        one_seat.seat_password(bio.session(), "Zoe")
    assert "1 Ann Lee, 2 Bob Ray, 4 Anna Ray" in str(refused.value)
    assert bio.changes == []


def test_a_course_without_seats_has_none_to_restart(bio: Class) -> None:
    with pytest.raises(RequestError, match="no seats"):
        one_seat.seat_restart(bio.session(), "1")


def test_a_seat_on_a_lost_machine_is_refused_with_what_can_be_done(lab: Class) -> None:
    lab.launch()
    lab.driver.lose("m1")
    for task in (one_seat.seat_restart, one_seat.seat_password):
        with pytest.raises(CloudscaleError, match="Ann Lee: the machine m1 is lost") as refused:
            task(lab.session(), "1")
        assert refused.value.exit_code == 1 and "--replace-lost" in refused.value.remedy
    assert lab.changes == []
    assert one_seat.seat_restart(lab.session(), "2").problems == ()


def test_another_key_changes_nobodys_password(bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bio.launch()
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "elsewhere"))
    with pytest.raises(RequestError, match="another key"):
        one_seat.seat_password(bio.session(), "1")
    assert bio.changes == []


# --- another password ------------------------------------------------------------------------


def test_another_password_is_shown_and_counts_from_now_on(lab: Class) -> None:
    before = lab.launch()
    report = one_seat.seat_password(lab.session(), "Ann")
    assert report.problems == ()
    (row,) = lab.rows(report)
    assert {**row, "password": ""} == {**lab.rows(before)[0], "password": ""}
    assert row["password"] != passwords(lab, before)["Ann Lee"]
    assert lab.changes == ["create config", "create secret", "update service", "remove secret"]
    after = lab.launch()
    assert passwords(lab, after) == {**passwords(lab, before), "Ann Lee": row["password"]}
    assert lab.changes == []


def test_only_the_secret_of_the_one_seat_changes(bio: Class) -> None:
    bio.launch(env={"COLOR": "red"}, port=9999)
    (ann, bob) = (configuration(bio, id) for id in "12")
    specs = {id: deepcopy(service["Spec"]) for id, service in bio.api.services_.items()}
    one_seat.seat_password(bio.session(), "1")
    (ann_now, bob_now) = (configuration(bio, id) for id in "12")
    assert bob_now == bob
    for part, key in (("PasswordIdentityProvider", "hashed_password"), ("SeatIdentityProvider", "gateway_pass")):
        assert ann_now[part].pop(key) != ann[part].pop(key)
    assert ann_now == ann
    for id, service in bio.api.services_.items():
        spec = deepcopy(service["Spec"])
        for each in (specs[id], spec):
            each["TaskTemplate"]["ContainerSpec"].pop("Secrets")
        assert spec == specs[id]


def test_a_password_can_be_changed_again_and_again(bio: Class) -> None:
    seen = {passwords(bio, bio.launch())["Ann Lee"]}
    for _ in range(3):
        seen.add(passwords(bio, one_seat.seat_password(bio.session(), "1"))["Ann Lee"])
    assert len(seen) == 4
    assert len(bio.api.configs_) == 1


def test_it_stays_after_the_seats_were_cleared(bio: Class) -> None:
    bio.launch()
    new = passwords(bio, one_seat.seat_password(bio.session(), "1"))
    reset.containers_reset(bio.session(), with_volumes=True)
    assert passwords(bio, bio.launch())["Ann Lee"] == new["Ann Lee"]


def other_trainer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Works with a copy of the folder that was made before now."""
    if not (tmp_path / "copy").exists():
        shutil.copytree(tmp_path / "bio", tmp_path / "copy" / "bio")
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "copy"))


def test_another_trainer_has_it_too(lab: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    lab.launch()
    shutil.copytree(tmp_path / "bio", tmp_path / "copy" / "bio")
    new = passwords(lab, one_seat.seat_password(lab.session(), "1"))
    other_trainer(monkeypatch, tmp_path)
    assert passwords(lab, lab.launch())["Ann Lee"] == new["Ann Lee"]
    assert lab.changes == []
    newer = passwords(lab, one_seat.seat_password(lab.session(), "1"))
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path))
    assert newer["Ann Lee"] == passwords(lab, lab.launch())["Ann Lee"] != new["Ann Lee"]


def test_a_swarm_that_is_created_again_gets_to_know_it(lab: Class) -> None:
    lab.roster.write_text(ANN + BOB + CID)
    lab.launch()
    new = passwords(lab, one_seat.seat_password(lab.session(), "3"))
    lab.driver.lose("m1", "m2")
    report = lab.launch(replace_lost=True)
    assert passwords(lab, report)["Cid Kim"] == new["Cid Kim"]
    assert len(lab.apis[2].configs_) == 1


def test_after_the_course_nothing_of_it_is_left(bio: Class, tmp_path: Path) -> None:
    bio.api.init_swarm("192.0.2.1", "192.0.2.1", "192.0.2.1", [], {"Labels": {}})  # somebody else's, so it stays
    first = passwords(bio, bio.launch())
    one_seat.seat_password(bio.session(), "1")
    key = (tmp_path / "bio/local/key").read_bytes()
    reset.driver_reset(bio.session())
    assert bio.api.configs_ == [] and not (tmp_path / "bio").exists()
    (tmp_path / "bio/local").mkdir(parents=True)
    (tmp_path / "bio/local/key").write_bytes(key)
    (tmp_path / "bio/local/key").chmod(0o600)
    assert passwords(bio, bio.launch()) == first


def test_one_that_could_not_be_put_into_effect_is_with_the_next_launch(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = passwords(bio, bio.launch())
    with monkeypatch.context() as broken:
        broken.setattr(bio.api, "create_secret", lambda *words: (_ for _ in ()).throw(api_error(500, "no room")))
        with pytest.raises(CloudscaleError, match="The new password of Ann Lee has no effect yet") as failed:
            one_seat.seat_password(bio.session(), "1")
    assert "invoke themachine" in failed.value.remedy
    after = passwords(bio, bio.launch())
    assert after["Ann Lee"] != before["Ann Lee"] and bio.changes.count("update service") == 1


def test_a_swarm_that_does_not_note_it_leaves_the_password_as_it_is(
    bio: Class, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = passwords(bio, bio.launch())
    with monkeypatch.context() as broken:
        broken.setattr(bio.api, "create_config", lambda *words: (_ for _ in ()).throw(api_error(500, "no leader")))
        with pytest.raises(EngineError, match="no leader"):
            one_seat.seat_password(bio.session(), "1")
    assert passwords(bio, bio.launch()) == before


def test_a_damaged_note_on_this_computer_is_named(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    one_seat.seat_password(bio.session(), "1")
    (tmp_path / "bio/local/passwords.json").write_text("[]")
    with pytest.raises(RequestError, match=r"passwords\.json is damaged"):
        status.status(bio.session())


# --- with a gateway --------------------------------------------------------------------------


def table(room: Class, name: str) -> Any:
    (files,) = (files for files in room.api.files.values() if f"{name}.json" in files)
    return json.loads(files[f"{name}.json"])


def test_behind_a_gateway_old_password_cookie_and_pass_end_and_nothing_of_others(behind: Class) -> None:
    before, ways = table(behind, "login")["seats"], json.dumps(table(behind, "caddy"))
    key = (behind.session().course.key(create=False)) or b""
    report = one_seat.seat_password(behind.session(), "1")
    assert report.problems == () and behind.rows(report)[0]["url"].startswith("https://")
    after, ways_now = table(behind, "login")["seats"], json.dumps(table(behind, "caddy"))
    (old,) = (seat for seat in before if seat not in after)
    (new,) = (seat for seat in after if seat not in before)
    assert old["path"] == new["path"] and old["token"] != new["token"] and old["password"] != new["password"]
    for secret in (naming.seat_token(key, "1"), naming.seat_pass(key, "1")):
        assert secret in ways and secret not in ways_now
    assert naming.seat_pass(key, "1", 1) in ways_now
    assert configuration(behind, "1")["SeatIdentityProvider"]["gateway_pass"] == naming.seat_pass(key, "1", 1)
    assert behind.changes.count("update service") == 1  # the gateway's own is as it was


def test_a_restart_leaves_the_gateway_alone(behind: Class) -> None:
    assert one_seat.seat_restart(behind.session(), "2").problems == ()
    assert behind.changes == ["update service"]


def test_a_gateway_that_does_not_follow_is_reported_with_the_new_password(behind: Class) -> None:
    behind.api.gateway_error = "no such module"
    report = one_seat.seat_password(behind.session(timeout="2"), "1")
    assert "no such module" in messages(report)
    assert behind.rows(report)[0]["password"]
