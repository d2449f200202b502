from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale.cli.report import Report
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.workflow import reset, single_machine, status
from tests.unit.classroom import IMAGE, Class
from tests.unit.fake_api import FakeApi


def test_a_reset_of_the_seats_keeps_machine_and_work(bio: Class) -> None:
    bio.launch()
    report = reset.containers_reset(bio.session(), with_volumes=False)
    assert report.problems == ()
    assert bio.api.services_ == bio.api.secrets_ == {}
    assert len(bio.api.volumes_) == 2
    assert bio.api.manages
    assert "2 seats" in bio.questions[0]


def test_a_reset_with_volumes_takes_the_work_too(bio: Class) -> None:
    bio.launch()
    reset.containers_reset(bio.session(), with_volumes=True)
    assert bio.api.volumes_ == {}
    assert "2 volumes" in bio.questions[0]


@pytest.mark.parametrize("with_volumes", [False, True])
def test_a_reset_after_one_that_was_cut_off_does_the_rest(bio: Class, *, with_volumes: bool) -> None:
    """It had removed the services, and not seen to the end of their containers."""
    bio.launch()
    (left, *_) = bio.api.containers_
    for service in list(bio.api.services_):
        bio.api.remove_service(service)
    bio.api.containers_.append({**left, "State": "exited"})
    report = reset.containers_reset(bio.session(), with_volumes=with_volumes)
    assert report.problems == ()
    assert bio.api.containers_ == []
    assert bio.api.secrets_ == {}


def test_a_reset_of_one_seat_touches_no_other(bio: Class) -> None:
    bio.launch()
    reset.containers_reset(bio.session(only="1"), with_volumes=True)
    assert [row["student"] for row in bio.rows(status.status(bio.session()))] == ["Bob Ray"]
    (volume,) = bio.api.volumes_.values()
    assert volume["Labels"]["cloudscale.student"] == "2"


def test_who_does_not_agree_loses_nothing(bio: Class) -> None:
    bio.launch()
    bio.agrees = False
    resets: list[Callable[[], Report]] = [
        lambda: reset.containers_reset(bio.session(), with_volumes=True),
        lambda: reset.driver_reset(bio.session()),
        lambda: single_machine.machine_rm(bio.session(), "m1"),
    ]
    for task in resets:
        with pytest.raises(RequestError, match="Nothing was removed"):
            task()
        assert bio.api.changes == bio.driver.done == []
    assert len(bio.questions) == 3


def test_where_there_is_nothing_nobody_is_asked(bio: Class) -> None:
    assert reset.containers_reset(bio.session(), with_volumes=True).text == "[]"
    assert any("nothing to remove" in line for line in bio.said.lines)
    assert bio.questions == []


def test_a_reset_of_the_driver_leaves_nothing_of_the_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    report = reset.driver_reset(bio.session())
    assert report.problems == ()
    assert not bio.api.manages
    assert bio.api.volumes_ == bio.api.services_ == bio.api.secrets_ == {}
    assert list(tmp_path.iterdir()) == [bio.roster]
    assert reset.driver_reset(bio.session()).text == "[]"
    assert any("nothing of the course 'bio' is left" in line for line in bio.said.lines)


def test_a_reset_of_the_driver_touches_nothing_of_another_course(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    bio.course = "geo"
    bio.roster.write_text("1;Ann;Lee\n")
    geo = bio.launch(start="5000")
    bio.course = "bio"
    reset.driver_reset(bio.session())
    bio.course = "geo"
    assert bio.launch(start="5000") == geo
    assert bio.changes == []
    assert len(bio.api.volumes_) == 1


def test_a_reset_of_the_driver_for_one_seat_keeps_swarm_and_key(bio: Class, tmp_path: Path) -> None:
    bio.launch()
    reset.driver_reset(bio.session(only="1"))
    assert bio.api.manages
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert len(bio.api.services_) == len(bio.api.volumes_) == 1


def test_what_could_not_be_removed_is_named_and_the_key_stays(
    bio: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bio.launch()
    bio.api.keeps_containers = True
    report = reset.driver_reset(bio.session())
    assert any("still on m1" in problem for problem in report.problems)
    assert any("in use" in problem for problem in report.problems)
    assert (tmp_path / "bio" / "local" / "key").exists()
    assert bio.api.manages


def test_what_was_removed_is_reported(bio: Class) -> None:
    bio.launch()
    names = {service["Spec"]["Name"] for service in bio.api.services_.values()} | set(bio.api.volumes_)
    rows = bio.rows(reset.driver_reset(bio.session()))
    assert {row["target"] for row in rows} == names
    assert {row["state"] for row in rows} == {"removed"}


def test_volumes_without_a_seat_can_be_chosen_too(bio: Class) -> None:
    bio.launch()
    reset.containers_reset(bio.session(), with_volumes=False)
    reset.containers_reset(bio.session(only="1"), with_volumes=True)
    (volume,) = bio.api.volumes_.values()
    assert volume["Labels"]["cloudscale.student"] == "2"


def test_a_look_that_was_cut_off_is_removed_with_the_rest(bio: Class) -> None:
    bio.launch()
    look = {"Id": "look", "State": "exited", "Labels": {"cloudscale.course": "bio"}}
    bio.api.containers_.append({**look, "Ports": [], "Volumes": [], "Service": ""})
    reset.driver_reset(bio.session())
    assert bio.api.containers_ == []


# --- several machines ------------------------------------------------------------------------


@pytest.fixture
def six(lab: Class) -> Class:
    """Six seats on three machines."""
    lab.enrol(6)
    lab.launch()
    return lab


def swarms(lab: Class) -> dict[str, str]:
    return {api.name: api.swarm_state for api in lab.apis}


def released(lab: Class) -> list[str]:
    return sorted(done.removeprefix("release ") for done in lab.driver.done if done.startswith("release"))


def nothing_left(api: FakeApi) -> bool:
    return not (api.volumes_ or api.containers_ or api.images_ or api.networks_) and api.swarm_state == "inactive"


def test_a_reset_of_the_seats_keeps_machines_and_swarm(six: Class) -> None:
    assert reset.containers_reset(six.session(), with_volumes=True).problems == ()
    assert six.members() == {"m1": "manager", "m2": "manager", "m3": "manager"}
    assert [api.volumes_ for api in six.apis] == [{}, {}, {}]
    assert [api.containers_ for api in six.apis] == [[], [], []]
    assert released(six) == []


def test_seats_of_one_machine_can_be_chosen(six: Class) -> None:
    reset.containers_reset(six.session(only="m2"), with_volumes=True)
    assert [len(api.containers_) for api in six.apis] == [2, 0, 2]
    assert [len(api.volumes_) for api in six.apis] == [2, 0, 2]


def test_a_reset_of_the_seats_names_a_lost_machine_and_does_the_rest(six: Class) -> None:
    six.driver.lose("m2")
    report = reset.containers_reset(six.session(), with_volumes=True)
    assert len(report.problems) == 1
    assert report.problems[0].startswith("m2: ")
    assert six.api.services_ == {}
    assert [len(api.volumes_) for api in six.apis] == [0, 2, 0]
    six.driver.find("m2")
    assert reset.containers_reset(six.session(), with_volumes=True).problems == ()
    assert six.apis[1].volumes_ == {}


def test_without_its_managers_a_swarms_seats_can_not_be_cleared_and_it_is_said_what_can(six: Class) -> None:
    six.driver.lose("m1", "m2")
    with pytest.raises(CloudscaleError, match="lost its quorum") as raised:
        reset.containers_reset(six.session(), with_volumes=False)
    assert "invoke driver_reset" in raised.value.remedy
    assert six.changes == []


def test_a_reset_of_the_driver_leaves_every_machine_as_before(six: Class, tmp_path: Path) -> None:
    report = reset.driver_reset(six.session())
    assert report.problems == ()
    assert all(nothing_left(api) for api in six.apis)
    assert released(six) == ["m1", "m2", "m3"]
    assert list(tmp_path.iterdir()) == [six.roster]
    assert any("nothing of the course 'bio' is left" in line for line in six.said.lines)
    rows = {row["target"]: row["state"] for row in six.rows(report)}
    assert [rows[name] for name in ("m1", "m2", "m3")] == ["engine as before"] * 3


def test_what_was_on_the_machines_before_stays(lab: Class) -> None:
    for api in lab.apis:
        api.images_["theirs:1"] = {"Id": "sha256:66"}
        api.images_[IMAGE] = {"Id": "sha256:11"}
        api.volumes_["theirs"] = {"Name": "theirs", "Labels": {}, "CreatedAt": "2024-01-01T00:00:00Z"}
        api.networks_.append("docker_gwbridge")
    lab.launch()
    assert reset.driver_reset(lab.session()).problems == ()
    for api in lab.apis:
        assert sorted(api.images_) == [IMAGE, "theirs:1"]
        assert list(api.volumes_) == ["theirs"]
        assert api.networks_ == ["docker_gwbridge"]


def test_a_second_reset_of_the_driver_does_nothing(six: Class) -> None:
    reset.driver_reset(six.session())
    report = reset.driver_reset(six.session())
    assert (report.text, report.problems) == ("[]", ())
    assert six.changes == released(six) == []


def test_a_reset_of_a_course_that_never_was_does_nothing(lab: Class, tmp_path: Path) -> None:
    report = reset.driver_reset(lab.session())
    assert (report.text, report.problems) == ("[]", ())
    assert lab.changes == []
    assert list(tmp_path.iterdir()) == [lab.roster]


def test_after_a_reset_the_course_can_start_again(six: Class) -> None:
    reset.driver_reset(six.session())
    report = six.launch()
    assert report.problems == ()
    assert len(six.rows(report)) == 6


def test_a_machine_can_be_left_out_of_a_reset(six: Class, tmp_path: Path) -> None:
    report = reset.driver_reset(six.session(skip="m2"))
    assert report.problems == ()
    assert swarms(six) == {"m1": "inactive", "m2": "active", "m3": "inactive"}
    assert six.members() == {"m2": "manager"}
    assert released(six) == ["m1", "m3"]
    assert len(six.apis[1].containers_) == len(six.apis[1].volumes_) == 2
    assert (tmp_path / "bio" / "generic" / "key").exists()
    six.roster.write_text("")
    assert {row["node"] for row in six.rows(status.status(six.session()))} == {"m2"}


def test_a_worker_that_is_left_out_manages_what_stays(six: Class) -> None:
    six.add_machines("m4")
    six.enrol(8)
    six.launch()
    assert six.members()["m4"] == "worker"
    assert reset.driver_reset(six.session(skip="m4")).problems == ()
    assert six.members() == {"m4": "manager"}
    assert released(six) == ["m1", "m2", "m3"]


def test_one_machine_can_be_given_back(six: Class) -> None:
    assert reset.driver_reset(six.session(only="m1")).problems == ()
    assert sorted(six.members()) == ["m2", "m3"]
    assert released(six) == ["m1"]
    assert nothing_left(six.apis[0])


def test_a_machine_with_a_seat_that_is_kept_is_kept_too(six: Class) -> None:
    reset.driver_reset(six.session(skip="1"))
    (kept,) = [api for api in six.apis if api.containers_]
    assert swarms(six)[kept.name] == "active"
    assert released(six) == sorted({api.name for api in six.apis} - {kept.name})


def test_a_bridge_from_before_stays_where_one_machine_is_given_back(lab: Class) -> None:
    lab.apis[1].networks_ = ["docker_gwbridge"]
    lab.launch()
    reset.driver_reset(lab.session(only="m2"))
    assert lab.apis[1].networks_ == ["docker_gwbridge"]


def test_a_lost_machine_is_named_and_the_others_are_given_back(six: Class, tmp_path: Path) -> None:
    six.driver.lose("m2")
    report = reset.driver_reset(six.session())
    assert len(report.problems) == 1
    assert report.problems[0].startswith("m2: ")
    assert released(six) == ["m1", "m3"]
    assert swarms(six) == {"m1": "inactive", "m2": "active", "m3": "inactive"}
    assert (tmp_path / "bio" / "generic" / "key").exists()


def test_a_machine_that_goes_down_meanwhile_is_named_and_the_next_reset_gives_the_others_back(
    six: Class, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(six, "_ask", lambda question: six.driver.lose(*{"m2"} - six.driver.lost))
    report = reset.driver_reset(six.session())
    assert any("m2" in problem for problem in report.problems)
    assert not any("while it is in the swarm" in problem for problem in report.problems)
    reset.driver_reset(six.session())
    assert released(six) == ["m1", "m3"]
    assert swarms(six) == {"m1": "inactive", "m2": "active", "m3": "inactive"}
    assert (tmp_path / "bio" / "generic" / "key").exists()


def test_a_seat_that_can_not_be_ended_keeps_its_machine_and_no_other(six: Class) -> None:
    six.apis[1].keeps_containers = True
    report = reset.driver_reset(six.session())
    assert any("still on m2" in problem for problem in report.problems)
    assert released(six) == ["m1", "m3"]
    assert six.members() == {"m2": "manager"}


def test_a_lost_machine_that_is_found_is_given_back_later(six: Class, tmp_path: Path) -> None:
    six.driver.lose("m2")
    reset.driver_reset(six.session())
    six.driver.find("m2")
    report = reset.driver_reset(six.session())
    assert report.problems == ()
    assert nothing_left(six.apis[1])
    assert released(six) == ["m2"]
    assert list(tmp_path.iterdir()) == [six.roster]


def test_a_lost_machine_without_seats_that_is_found_is_given_back_later(lab: Class, tmp_path: Path) -> None:
    lab.launch(onlycreate=True)
    lab.driver.lose("m2")
    reset.driver_reset(lab.session())
    lab.driver.find("m2")
    assert reset.driver_reset(lab.session()).problems == ()
    assert nothing_left(lab.apis[1])
    assert list(tmp_path.iterdir()) == [lab.roster]


def test_where_others_use_the_swarm_no_machine_is_released_not_even_one_that_left_it(six: Class) -> None:
    six.add_machines("m4")
    six.driver.bare.clear()  # m4 has an engine for the course, and is in no swarm
    six.api.create_secret("theirs", b"", {})
    report = reset.driver_reset(six.session())
    assert sorted(problem[:3] for problem in report.problems) == ["m1:", "m2:", "m3:"]
    assert "others use the swarm by now" in "\n".join(report.problems)
    assert released(six) == []


def test_what_is_left_of_a_swarm_without_its_managers_is_given_back(six: Class) -> None:
    six.driver.lose("m1", "m2")
    report = reset.driver_reset(six.session())
    assert [problem[:3] for problem in report.problems] == ["m1:", "m2:"]
    assert nothing_left(six.apis[2])
    assert released(six) == ["m3"]


def test_a_machine_that_is_kept_while_it_is_lost_stops_nobody(six: Class) -> None:
    m1, m2, _ = six.apis
    reset.driver_reset(six.session(only="m3"))
    six.machines(m1, m2)
    six.launch()
    assert six.members() == {"m1": "manager", "m2": "worker"}
    six.driver.lose("m2")
    report = reset.driver_reset(six.session(skip="m2"))
    assert "m2" in "\n".join(report.problems)


def test_a_machine_that_never_came_into_the_swarm_is_given_back_too(lab: Class) -> None:
    lab.driver.free_disk["m3"] = 1000  # set up, and then not used
    lab.launch()
    assert swarms(lab)["m3"] == "inactive"
    assert reset.driver_reset(lab.session()).problems == ()
    assert released(lab) == ["m1", "m2", "m3"]


def test_a_swarm_that_others_use_by_now_stays_and_so_do_its_machines(six: Class, tmp_path: Path) -> None:
    six.api.services_["theirs"] = {"ID": "theirs", "Spec": {"Name": "theirs", "Labels": {}}}
    report = reset.driver_reset(six.session())
    assert list(six.api.services_) == ["theirs"]
    assert set(swarms(six).values()) == {"active"}
    assert released(six) == []
    assert any("stays" in line for line in six.said.lines)
    # what the engines were set up with is needed for as long as they are
    assert (tmp_path / "bio" / "generic").exists()
    assert not any("nothing of the course" in line for line in six.said.lines)
    assert report.problems


def test_a_machine_in_a_swarm_of_others_by_now_is_named_and_left_in_it(six: Class) -> None:
    api = six.apis[2]
    api.leave_swarm(force=True)
    api.init_swarm("10.0.0.3", "10.0.0.3:2377", "10.0.0.3", [], {"Labels": {}})
    reset.driver_reset(six.session())
    assert api.swarm_state == "active"
    assert swarms(six)["m1"] == "inactive"


def test_a_reset_says_that_the_machines_are_given_back(six: Class) -> None:
    reset.driver_reset(six.session())
    assert "6 seats and 6 volumes" in six.questions[-1]
    assert "3 machines" in six.questions[-1]
