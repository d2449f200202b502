from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.course.settings import SeatSettings
from cloudscale.images.on_engine import NotebookImage
from cloudscale.model import Machine, Node, Place, Seat, Student
from cloudscale.seats.spec import (
    SeatFile,
    Target,
    Template,
    container_of,
    covers,
    has_shared,
    moved,
    wanted_spec,
    work_mount,
)
from tests.unit.api_schema import SERVICE, check_keys

KEY = bytes(range(32))
IMAGE = NotebookImage("jupyter/lab:1", "lab", 1000, 100, "/home/jovyan/work")
PINNED = {"m1": "jupyter/lab@sha256:aa", "m2": "sha256:22"}
TEMPLATE = Template("bio", Passwords(KEY), IMAGE, PINNED, SeatSettings(), 8888, {"TZ": "Europe/Madrid", "EMPTY": ""})
NODE = Node(Machine("m1", "192.0.2.1"), "node1", 4, 2**33)
FILES = [SeatFile("/etc/own.json", "secret1", "secret-name"), SeatFile("/etc/all.py", "secret2", "other-name")]
SEAT = Seat(Student("7", "Siobhán", "O'Neill", "siobhan@example.org"), Place("m1", 4321))


def spec(template: Template = TEMPLATE) -> dict[str, Any]:
    return wanted_spec(SEAT, NODE, template, "course-siobhan", FILES)


# --- the service of a seat -------------------------------------------------------------------


def test_the_api_knows_every_key() -> None:
    check_keys(spec(), SERVICE)


def test_neither_password_nor_hash_nor_key_is_in_it() -> None:
    text = str(spec())
    assert naming.password(KEY, "7") not in text
    assert "argon2" not in text
    assert KEY.hex() not in text
    assert str(KEY) not in text


def test_neither_password_nor_key_is_in_what_a_log_would_show() -> None:
    assert str(KEY) not in repr(TEMPLATE)
    assert KEY.hex() not in repr(TEMPLATE)


def test_limits_and_reservation_are_those_of_the_settings() -> None:
    limits = SeatSettings(cpus=0.5, memory=1024**3, pids=100, reserve=256 * 1024**2)
    assert spec(replace(TEMPLATE, limits=limits))["TaskTemplate"]["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 1024**3, "Pids": 100},
        "Reservations": {"MemoryBytes": 256 * 1024**2},
    }


@pytest.mark.parametrize(("allowed", "limit"), [(524288, 524288), (20000, 20000), (1073741816, 2**20)])
def test_a_seat_may_open_as_many_files_as_its_machine_allows_up_to_a_million(allowed: int, limit: int) -> None:
    template = replace(TEMPLATE, open_files={"m1": allowed, "m2": 7})
    assert spec(template)["TaskTemplate"]["ContainerSpec"]["Ulimits"] == [
        {"Name": "nofile", "Soft": limit, "Hard": limit}
    ]
    check_keys(spec(template), SERVICE)


def test_on_a_machine_that_does_not_say_it_a_seat_has_what_the_engine_gives() -> None:
    assert "Ulimits" not in spec()["TaskTemplate"]["ContainerSpec"]


def test_its_volume_is_limited_where_the_machine_has_quotas() -> None:
    limits = SeatSettings(disk=1024**3)
    limited = replace(TEMPLATE, limits=limits, with_quotas=frozenset({"m1"}))
    check_keys(spec(limited), SERVICE)
    options = work_mount(container_of(spec(limited)))["VolumeOptions"]
    assert options["DriverConfig"] == {"Name": "local", "Options": {"size": str(1024**3)}}
    elsewhere = replace(TEMPLATE, limits=limits, with_quotas=frozenset({"m2"}))
    assert "DriverConfig" not in work_mount(container_of(spec(elsewhere)))["VolumeOptions"]


@pytest.mark.parametrize(
    ("disk", "driver"), [(5 << 30, {"Name": "local", "Options": {"size": str(5 << 30)}}), (0, None)]
)
def test_a_seat_that_moves_has_the_limit_of_its_new_place(disk: int, driver: object) -> None:
    limited = spec(replace(TEMPLATE, with_quotas=frozenset({"m1"})))
    there = moved(limited, "m1", Target(Place("m2", 4322), "node2", "sha256:22", 1000, disk))
    options = work_mount(container_of(there))["VolumeOptions"]
    assert options.get("DriverConfig") == driver
    assert options["Labels"][naming.PORT] == "4322" and options["Labels"][naming.STUDENT] == "7"


def test_a_seat_is_one_replica_pinned_to_its_machine() -> None:
    assert spec()["Mode"] == {"Replicated": {"Replicas": 1}}
    assert spec()["TaskTemplate"]["Placement"]["Constraints"] == ["node.id==node1"]


def test_its_port_is_published_on_its_machine_alone() -> None:
    (port,) = spec()["EndpointSpec"]["Ports"]
    assert port["PublishMode"] == "host"
    assert (port["PublishedPort"], port["TargetPort"], port["Protocol"]) == (4321, 8888, "tcp")


def test_it_is_started_again_whatever_ends_it() -> None:
    policy = spec()["TaskTemplate"]["RestartPolicy"]
    assert policy["Condition"] == "any"
    assert not policy.get("MaxAttempts")


def test_service_container_and_volume_carry_the_marks() -> None:
    container = spec()["TaskTemplate"]["ContainerSpec"]
    (mount,) = container["Mounts"]
    for labels in (spec()["Labels"], container["Labels"], mount["VolumeOptions"]["Labels"]):
        assert labels["cloudscale.course"] == "bio"
        assert labels["cloudscale.student"] == "7"


def test_the_service_shows_its_student_and_the_key_of_its_password() -> None:
    labels = spec()["Labels"]
    assert labels[naming.NAME] == "Siobhán O'Neill"
    assert labels[naming.EMAIL] == "siobhan@example.org"
    assert labels[naming.KEY] == naming.key_id(KEY)


def test_the_students_volume_is_mounted_on_the_work_folder_and_remembers_the_port() -> None:
    (mount,) = spec()["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert (mount["Type"], mount["Target"]) == ("volume", "/home/jovyan/work")
    assert mount["Source"] == naming.volume_name("bio", "7")
    assert mount["VolumeOptions"]["Labels"][naming.PORT] == "4321"


def test_the_configuration_is_a_secret_that_only_the_servers_user_reads() -> None:
    secrets = spec()["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert [SeatFile(each["File"]["Name"], each["SecretID"], each["SecretName"]) for each in secrets] == FILES
    for secret in secrets:
        assert (secret["File"]["UID"], secret["File"]["GID"], secret["File"]["Mode"]) == ("1000", "100", 0o400)


def test_the_image_is_named_so_that_no_registry_is_asked() -> None:
    container = spec()["TaskTemplate"]["ContainerSpec"]
    assert container["Image"] == "jupyter/lab@sha256:aa"
    assert container["Args"] == ["jupyter", "lab"]
    assert container["Env"] == ["TZ=Europe/Madrid", "EMPTY="]


def test_the_image_has_the_name_that_it_has_on_the_seats_machine() -> None:
    seat = replace(SEAT, place=Place("m2", 4321))
    container = wanted_spec(seat, NODE, TEMPLATE, "x", FILES)["TaskTemplate"]["ContainerSpec"]
    assert container["Image"] == "sha256:22"


def test_an_image_of_an_ordinary_user_needs_no_capability_and_one_of_root_keeps_its_own() -> None:
    assert spec()["TaskTemplate"]["ContainerSpec"]["CapabilityDrop"] == ["ALL"]
    root = replace(TEMPLATE, image=replace(IMAGE, uid=0))
    assert "CapabilityDrop" not in spec(root)["TaskTemplate"]["ContainerSpec"]


def test_a_log_does_not_fill_the_disk() -> None:
    assert spec()["TaskTemplate"]["LogDriver"]["Options"].keys() == {"max-size", "max-file"}


# --- does a running service match? -----------------------------------------------------------

scalars = st.booleans() | st.integers(1, 5) | st.text(min_size=1, max_size=3)
objects = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def leaves(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all scalars."""
    if isinstance(value, dict):
        return [leaf for key in value for leaf in leaves(value[key], (*path, key))]
    if isinstance(value, list):
        return [leaf for at in range(len(value)) for leaf in leaves(value[at], (*path, at))]
    return [path]


def parent(value: Any, path: tuple[Any, ...]) -> Any:
    for key in path[:-1]:
        value = value[key]
    return value


@given(objects)
def test_every_value_covers_itself(value: Any) -> None:
    assert covers(value, deepcopy(value))


@given(objects, st.data())
def test_keys_that_the_engine_added_do_not_count(value: Any, data: st.DataObject) -> None:
    actual = deepcopy(value)
    for path in [(), *leaves(value)]:
        holder = parent(actual, (*path, None)) if not path else parent(actual, path)
        if isinstance(holder, dict) and data.draw(st.booleans()):
            holder["added by the engine"] = data.draw(objects)
    assert covers(actual, value)


@given(objects, st.data())
def test_a_changed_value_is_a_difference(value: Any, data: st.DataObject) -> None:
    assume(paths := [path for path in leaves(value) if path])
    actual, path = deepcopy(value), data.draw(st.sampled_from(paths))
    parent(actual, path)[path[-1]] = "something else entirely"
    assert not covers(actual, value)


@given(objects, st.data())
def test_a_removed_value_is_a_difference(value: Any, data: st.DataObject) -> None:
    # an empty or false value that is wanted may be missing
    assume(paths := [path for path in leaves(value) if path and parent(value, path)[path[-1]] is not False])
    actual, path = deepcopy(value), data.draw(st.sampled_from(paths))
    del parent(actual, path)[path[-1]]
    assert not covers(actual, value)


@pytest.mark.parametrize("wanted", [[], {}, "", 0, False, None])
def test_an_empty_value_that_is_wanted_may_be_missing(wanted: object) -> None:
    assert covers({}, {"Env": wanted})
    assert covers({"Env": None}, {"Env": wanted})
    assert not covers({"Env": ["A=1"]}, {"Env": []})


@pytest.mark.parametrize(
    ("actual", "wanted"),
    [
        ({"Env": ["A=1", "B=2"]}, {"Env": ["A=1"]}),
        ({"Env": ["A=1"]}, {"Env": ["A=1", "B=2"]}),
        ({"Env": ["B=2", "A=1"]}, {"Env": ["A=1", "B=2"]}),
        ({"Env": "AB"}, {"Env": ["A", "B"]}),
        ({"Env": 1}, {"Env": []}),
        ({"Labels": "x"}, {"Labels": {"a": "b"}}),
        (None, {"Labels": {"a": "b"}}),
    ],
)
def test_another_list_or_another_kind_of_value_is_a_difference(actual: object, wanted: object) -> None:
    assert not covers(actual, wanted)


@pytest.mark.parametrize(
    "change",
    [
        {"course": "geo"},
        {"port": 80},
        {"env": {}},
        {"limits": SeatSettings(cpus=2)},
        {"pinned": {"m1": "jupyter/lab@sha256:bb"}},
        {"image": replace(IMAGE, work="/srv")},
        {"passwords": Passwords(KEY[::-1])},
    ],
    ids=lambda change: next(iter(change)),
)
def test_each_thing_that_all_seats_share_makes_a_difference(change: dict[str, Any]) -> None:
    assert covers(spec(), spec())
    assert not covers(spec(), spec(replace(TEMPLATE, **change)))


# --- the shared folder -----------------------------------------------------------------------


def test_the_shared_folder_is_mounted_read_only_in_the_work_folder() -> None:
    shared = spec(replace(TEMPLATE, has_shared=True))
    check_keys(shared, SERVICE)
    own, mount = shared["TaskTemplate"]["ContainerSpec"]["Mounts"]
    assert mount["Target"] == "/home/jovyan/work/shared" and mount["ReadOnly"] is True
    assert mount["VolumeOptions"] == {
        "NoCopy": True,
        "Labels": {"cloudscale.course": "bio", "cloudscale.role": "shared"},
    }
    assert work_mount(container_of(shared)) == own
    assert has_shared(shared) and not has_shared(spec())


def test_a_seat_without_the_shared_folder_differs_from_one_with_it() -> None:
    shared = spec(replace(TEMPLATE, has_shared=True))
    assert not covers(spec(), shared) and not covers(shared, spec()) and covers(shared, shared)


def test_a_seat_that_moves_keeps_the_shared_folder() -> None:
    gone = moved(spec(replace(TEMPLATE, has_shared=True)), "m1", Target(Place("m2", 4400), "node2", "sha256:22", 0))
    assert has_shared(gone)
    assert work_mount(container_of(gone))["VolumeOptions"]["Labels"][naming.PORT] == "4400"
