from __future__ import annotations

from dataclasses import replace

import pytest
from argon2 import PasswordHasher

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.errors import EngineError, RequestError, SeatError
from cloudscale.model import Outcome, Place, Student
from cloudscale.seats import jupyter
from cloudscale.seats.services import RunningSeat, check_key, running_seats
from cloudscale.seats.spec import covers, is_stopped, restarted, started, stopped
from tests.unit.api_schema import api_error
from tests.unit.seats.services import ANN, BOB, IMAGE, KEY, TEMPLATE, Swarm

# --- converging ------------------------------------------------------------------------------


def test_what_is_missing_is_made(swarm: Swarm) -> None:
    assert swarm.done([ANN, BOB]) == ["created", "created"]
    assert swarm.api.open_ports == {4321, 4322}


def test_a_second_run_changes_nothing_at_all(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    assert swarm.done([ANN, BOB]) == ["unchanged", "unchanged"]
    assert swarm.api.changes == []


def test_only_what_differs_is_updated(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    moved = replace(BOB, place=Place("m1", 5000))
    assert swarm.done([ANN, moved]) == ["unchanged", "updated"]
    assert [change.split()[:2] for change in swarm.api.changes] == [["update", "service"]]
    assert swarm.api.open_ports == {4321, 5000}


def test_only_who_is_new_is_added(swarm: Swarm) -> None:
    swarm.converge([ANN])
    assert swarm.done([BOB, ANN]) == ["created", "unchanged"]


def test_a_corrected_name_keeps_service_volume_and_password(swarm: Swarm) -> None:
    swarm.converge([ANN])
    secrets, volumes = dict(swarm.api.secret_data), dict(swarm.api.volumes_)
    (before,) = running_seats(swarm.engine, "bio")
    assert swarm.done([replace(ANN, student=Student("1", "Anna", "Leigh"))]) == ["updated"]
    (after,) = running_seats(swarm.engine, "bio")
    assert (after.name, after.service_id, after.student.full_name) == (before.name, before.service_id, "Anna Leigh")
    assert (swarm.api.secret_data, swarm.api.volumes_) == (secrets, volumes)


def test_what_the_engine_added_by_itself_is_no_difference(swarm: Swarm) -> None:
    swarm.converge([ANN])
    (service,) = swarm.api.services_.values()
    service["Spec"]["TaskTemplate"] |= {"ForceUpdate": 0, "Runtime": "container"}
    service["Spec"]["TaskTemplate"]["ContainerSpec"]["Isolation"] = "default"
    assert swarm.done([ANN]) == ["unchanged"]


def test_each_change_says_which_service_and_what_its_tasks_look_like(swarm: Swarm) -> None:
    created = swarm.converge([ANN])[0].get()
    assert created.service_id in swarm.api.services_
    (task,) = swarm.api.tasks()
    assert task["Spec"] == created.task_template


def test_a_seat_that_can_not_be_made_spoils_no_other(swarm: Swarm, monkeypatch: pytest.MonkeyPatch) -> None:
    create = swarm.api.create_secret

    def fails_for_ann(name: str, data: bytes, labels: dict[str, str]) -> object:
        if labels.get(naming.STUDENT) == "1":
            raise api_error(500, "rpc error: context deadline exceeded")
        return create(name, data, labels)

    monkeypatch.setattr(swarm.api, "create_secret", fails_for_ann)
    failed, made = swarm.converge([ANN, BOB])
    assert failed.target == "Ann Lee"
    assert isinstance(failed.error, EngineError)
    assert "context deadline exceeded" in str(failed.error)
    assert made.get().what == "created"


def test_a_service_of_the_same_name_without_the_mark_is_not_touched(swarm: Swarm) -> None:
    swarm.converge([ANN])
    (service,) = swarm.api.services_.values()
    del service["Spec"]["Labels"]["cloudscale.course"]
    (outcome,) = swarm.converge([ANN])
    assert isinstance(outcome.error, SeatError)
    assert "does not carry this course's mark" in str(outcome.error)
    assert swarm.api.changes == []


def test_two_courses_share_a_swarm(swarm: Swarm) -> None:
    geo = Swarm("geo", swarm.api)
    swarm.converge([ANN])
    assert geo.done([replace(ANN, place=Place("m1", 4400))]) == ["created"]
    assert swarm.done([ANN]) == ["unchanged"]
    assert [seat.place.port for seat in running_seats(geo.engine, "geo")] == [4400]


# --- secrets ---------------------------------------------------------------------------------


def test_the_secret_lets_the_student_in_with_the_password(swarm: Swarm) -> None:
    swarm.converge([ANN])
    _, config = swarm.configuration
    hashed = config["PasswordIdentityProvider"]["hashed_password"].removeprefix("argon2:")
    assert PasswordHasher().verify(hashed, naming.password(KEY, "1"))
    assert config["ServerApp"]["port"] == 8888
    assert config["ServerApp"]["base_url"] == naming.seat_path(KEY, "1")
    assert config["ServerApp"]["root_dir"] == "/home/jovyan/work"


@pytest.mark.parametrize("uid", [0, 1000])
def test_the_server_of_an_image_of_root_is_allowed_to_be_root(swarm: Swarm, uid: int) -> None:
    swarm.converge([ANN], replace(TEMPLATE, image=replace(IMAGE, uid=uid)))
    assert swarm.configuration[1]["ServerApp"]["allow_root"] is (uid == 0)


def test_secrets_carry_the_marks_and_their_names_no_password(swarm: Swarm) -> None:
    swarm.converge([ANN])
    own, code = (swarm.api.secrets_[id]["Spec"] for id in sorted(swarm.api.secrets_, key=swarm.configuration[0].__ne__))
    assert own["Labels"] == {"cloudscale.course": "bio", "cloudscale.student": "1"}
    assert code["Labels"] == {"cloudscale.course": "bio"}
    assert naming.password(KEY, "1").replace("-", "") not in own["Name"].replace("-", "")


def test_another_port_of_the_server_is_another_secret_and_the_old_one_goes(swarm: Swarm) -> None:
    swarm.converge([ANN])
    old, _ = swarm.configuration
    assert swarm.done([ANN], replace(TEMPLATE, port=80)) == ["updated"]
    swarm.spawner.remove_unused_secrets()
    new, config = swarm.configuration
    assert new != old
    assert config["ServerApp"]["port"] == 80


def test_all_seats_run_the_same_code_from_one_secret(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    codes = [data for data in swarm.api.secret_data.values() if data == jupyter.server_code()]
    assert len(codes) == 1
    assert len(swarm.api.secrets_) == 3
    compile(codes[0], "jupyter_config.py", "exec")


def test_secrets_in_use_and_secrets_of_others_stay(swarm: Swarm) -> None:
    swarm.converge([ANN])
    swarm.api.create_secret("somebody-elses", b"", {})
    swarm.api.create_secret("of-another-course", b"", {"cloudscale.course": "geo"})
    swarm.api.create_secret("left-over", b"", {"cloudscale.course": "bio"})
    swarm.spawner.remove_unused_secrets()
    names = {secret["Spec"]["Name"] for secret in swarm.api.secrets_.values()}
    assert {"somebody-elses", "of-another-course"} < names
    assert len(names) == 4
    assert "left-over" not in names


def test_a_secret_that_a_stopping_task_holds_is_left_for_the_next_run(
    swarm: Swarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    swarm.api.create_secret("left-over", b"", {"cloudscale.course": "bio"})

    def refuse(id: str) -> None:
        raise api_error(400, f"secret {id} is in use")

    monkeypatch.setattr(swarm.api, "remove_secret", refuse)
    swarm.spawner.remove_unused_secrets()
    assert len(swarm.api.secrets_) == 1


# --- what runs -------------------------------------------------------------------------------


def test_seats_are_read_back_from_the_swarm(swarm: Swarm) -> None:
    swarm.converge([BOB, ANN])
    ann, bob = running_seats(swarm.engine, "bio")
    assert (ann.student.id, ann.student.full_name, ann.place.port, ann.node_id) == ("1", "Ann Lee", 4321, "node1")
    assert (bob.student.id, bob.student.email, bob.name) == (
        "2",
        "bob@example.org",
        naming.seat_name("bio", BOB.student),
    )


def test_a_seat_is_on_the_machine_of_its_node_as_long_as_the_swarm_has_it(swarm: Swarm) -> None:
    swarm.converge([ANN])
    (ann,) = running_seats(swarm.engine, "bio", {"node1": "m1"})
    assert ann.place == ANN.place
    assert running_seats(swarm.engine, "bio", {"node2": "m2"})[0].place.machine == ""


def test_services_that_are_no_seats_of_the_course_are_not_read(swarm: Swarm) -> None:
    swarm.converge([ANN])
    for name, labels in (("x", {"cloudscale.course": "bio"}), ("y", {"cloudscale.student": "1"}), ("z", {})):
        swarm.api.services_[name] = {"ID": name, "Spec": {"Name": name, "Labels": labels}}
    assert [seat.student.id for seat in running_seats(swarm.engine, "bio")] == ["1"]


def test_a_representation_shows_no_specification(swarm: Swarm) -> None:
    swarm.converge([ANN])
    assert "Secrets" not in repr(running_seats(swarm.engine, "bio"))


def test_seats_of_the_same_key_are_taken_on(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    check_key(running_seats(swarm.engine, "bio"), KEY, "/home/ann/bio")
    check_key([], KEY[::-1], "/home/ann/bio")


def test_seats_of_another_key_are_refused(swarm: Swarm) -> None:
    swarm.converge([ANN])
    with pytest.raises(RequestError, match="another key than /home/ann/bio has"):
        check_key(running_seats(swarm.engine, "bio"), KEY[::-1], "/home/ann/bio")


def test_seats_without_the_key_that_made_them_are_refused(swarm: Swarm) -> None:
    check_key([], None, "/home/ann/bio")
    swarm.converge([ANN])
    with pytest.raises(RequestError, match="another key"):
        check_key(running_seats(swarm.engine, "bio"), None, "/home/ann/bio")


# --- removing --------------------------------------------------------------------------------


def test_removed_seats_leave_their_volumes(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    ann, bob = running_seats(swarm.engine, "bio")
    assert swarm.spawner.remove([ann]) == (Outcome(ann.name, "removed"),)
    assert running_seats(swarm.engine, "bio") == [bob]
    assert len(swarm.api.volumes_) == 2


def test_what_is_gone_already_counts_as_removed(swarm: Swarm) -> None:
    swarm.converge([ANN])
    seats = running_seats(swarm.engine, "bio")
    swarm.spawner.remove(seats)
    assert all(outcome.ok for outcome in swarm.spawner.remove(seats))


# --- one seat --------------------------------------------------------------------------------


def seat_of(swarm: Swarm, student_id: str = "1") -> RunningSeat:
    (seat,) = (seat for seat in running_seats(swarm.engine, "bio") if seat.student.id == student_id)
    return seat


def test_a_restart_makes_another_container_of_the_same_form(swarm: Swarm) -> None:
    swarm.converge([ANN, BOB])
    before = [container["Id"] for container in swarm.api.containers_]
    for count in (1, 2):
        change = swarm.spawner.change(seat_of(swarm).service_id, restarted)
        assert change.what == "updated" and change.task_template["ForceUpdate"] == count
        newest = max(swarm.api.tasks(), key=lambda task: str(task["CreatedAt"]))
        assert covers(newest["Spec"], change.task_template)
        assert not any(covers(task["Spec"], change.task_template) for task in swarm.api.tasks() if task != newest)
    after = [container["Id"] for container in swarm.api.containers_]
    assert len({*before} & {*after}) == 1
    assert swarm.done([ANN, BOB]) == ["unchanged", "unchanged"]


def test_a_seat_stops_and_starts_and_a_launch_starts_it_too(swarm: Swarm) -> None:
    swarm.converge([ANN])
    assert swarm.spawner.change(seat_of(swarm).service_id, stopped).what == "updated"
    assert swarm.api.containers_ == [] and is_stopped(seat_of(swarm).spec)
    assert swarm.spawner.change(seat_of(swarm).service_id, started).what == "updated"
    assert swarm.spawner.change(seat_of(swarm).service_id, started).what == "unchanged"
    swarm.spawner.change(seat_of(swarm).service_id, stopped)
    assert swarm.done([ANN]) == ["updated"] and len(swarm.api.containers_) == 1


def test_a_change_starts_from_what_the_seat_is_by_now(swarm: Swarm) -> None:
    swarm.converge([ANN])
    earlier = seat_of(swarm)
    swarm.converge([replace(ANN, place=Place("m1", 5000))])
    swarm.spawner.change(earlier.service_id, restarted)
    assert swarm.api.open_ports == {5000}


def test_a_password_that_was_changed_is_what_the_next_run_wants(swarm: Swarm) -> None:
    template = replace(TEMPLATE, port=9999)
    swarm.converge([ANN, BOB], template)
    passwords = Passwords(KEY, {"1": 3})
    assert swarm.spawner.set_password(seat_of(swarm), passwords).what == "updated"
    assert swarm.spawner.set_password(seat_of(swarm), passwords).what == "unchanged"
    assert swarm.done([ANN, BOB], replace(template, passwords=passwords)) == ["unchanged", "unchanged"]
    assert swarm.done([ANN, BOB], template) == ["updated", "unchanged"]


def test_where_a_seat_is_removed_the_work_on_its_machine_counts(swarm: Swarm) -> None:
    swarm.converge([ANN])
    swarm.api.create_volume("copying", {"cloudscale.course": "bio", "cloudscale.copying": "1"})
    swarm.api.create_volume("of-another", {"cloudscale.course": "bio", "cloudscale.copying": "2"})
    seat = seat_of(swarm)
    swarm.spawner.remove_completely([replace(seat, place=Place("m1", 4321))], [swarm.engine])
    assert "copying" not in swarm.api.volumes_ and "of-another" in swarm.api.volumes_
