from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config

from cloudscale.course.settings import (
    Section,
    Settings,
    key_paths,
    read_settings,
)
from cloudscale.errors import SettingsError

MIB = 1024**2

EXAMPLE = """
cloudscale:
  driver: openstack
  course: course
  students: students.csv
  image: quay.io/jupyter/scipy-notebook:2025-03-14
  seat: {cpus: 1.0, memory: 2G, pids: 512, reserve: 512M, per_core: 4}
  openstack: {cloud: course, image: debian-12, flavor: m1.small, network: course-net, external_network: public,
              user: debian, admin_cidr: 0.0.0.0/0, student_cidr: 0.0.0.0/0}
  generic: {hosts: [debian@192.0.2.11, debian@192.0.2.12], kfile: ~/.ssh/id_ed25519}
"""


@pytest.fixture
def example(tmp_path: Path) -> Mapping[str, Any]:
    """The example as Invoke reads it."""
    file = tmp_path / "invoke.yaml"
    file.write_text(EXAMPLE)
    config = Config(runtime_path=file)
    config.load_runtime()
    configuration: Mapping[str, Any] = config.get("cloudscale")
    return configuration


def refusal(configuration: Mapping[str, Any]) -> str:
    with pytest.raises(SettingsError) as raised:
        read_settings(configuration)
    assert raised.value.exit_code == 2
    return raised.value.message


# --- the configuration -----------------------------------------------------------------------


def test_the_example_of_the_documentation_is_valid(example: Mapping[str, Any]) -> None:
    settings = read_settings(example)
    assert (settings.driver, settings.course, settings.students) == ("openstack", "course", Path("students.csv"))
    assert (settings.seat.cpus, settings.seat.memory, settings.seat.reserve) == (1.0, 2048 * MIB, 512 * MIB)
    assert settings.openstack.external_network == "public"
    assert settings.generic.hosts == ("debian@192.0.2.11", "debian@192.0.2.12")


def test_what_is_not_configured_has_the_values_of_the_example(example: Mapping[str, Any]) -> None:
    settings, documented = read_settings({}), read_settings(example)
    assert settings.seat == documented.seat
    assert (settings.driver, settings.course, settings.students) == ("openstack", "course", Path("students.csv"))


def test_keys_without_a_value_count_as_not_given() -> None:
    assert read_settings({"driver": None, "seat": {"cpus": None}, "openstack": None}) == read_settings({})


def test_a_flag_goes_before_the_configuration_unless_it_is_not_given() -> None:
    settings = read_settings({"driver": "generic", "course": "bio"}, driver="local", course=None)
    assert (settings.driver, settings.course) == ("local", "bio")


def sections(model: type[Section], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    below = [(name, field.annotation) for name, field in model.model_fields.items()]
    inner = [(name, kind) for name, kind in below if isinstance(kind, type) and issubclass(kind, Section)]
    return [path, *(section for name, kind in inner for section in sections(kind, (*path, name)))]


@pytest.mark.parametrize("path", sections(Settings), ids=lambda path: ".".join(path) or "top")
def test_an_unknown_key_is_named_on_every_level(path: tuple[str, ...]) -> None:
    configuration: dict[str, Any] = {"memry": "2G"}
    for name in reversed(path):
        configuration = {name: configuration}
    assert f"cloudscale.{'.'.join((*path, 'memry'))}: unknown key" in refusal(configuration)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("driver", "aws"),
        ("course", 2024),
        ("course", "../etc"),
        ("course", ""),
        ("course", "x" * 41),
        ("students", 5),
        ("image", ""),
        ("seat", 5),
        ("seat", [1]),
        ("seat.cpus", "many"),
        ("seat.cpus", True),
        ("seat.cpus", 0),
        ("seat.cpus", 0.001),
        ("seat.cpus", float("nan")),
        ("seat.cpus", float("inf")),
        ("seat.memory", "2 apples"),
        ("seat.memory", 2.5),
        ("seat.memory", True),
        ("seat.memory", "1M"),
        ("seat.memory", "-2G"),
        ("seat.pids", 1),
        ("seat.pids", 99.5),
        ("seat.reserve", "4G"),
        ("seat.per_core", 0),
        ("openstack.flavor", 3),
        ("generic.hosts", 3),
        ("generic.hosts", [3]),
        ("generic.user", ""),
        ("generic.user", 5),
        ("generic.kfile", 5),
        ("generic.pwd", 5),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(key: str, value: object) -> None:
    configuration: Any = value
    for name in reversed(key.split(".")):
        configuration = {name: configuration}
    assert f"cloudscale.{key}" in refusal(configuration)


def test_all_problems_are_reported_at_once() -> None:
    message = refusal({"drivr": "local", "seat": {"cpus": 0}})
    assert "drivr" in message
    assert "seat.cpus" in message


def test_no_seat_reserves_more_than_its_limit() -> None:
    try:
        seat = read_settings({"seat": {"memory": "256M"}}).seat
    except SettingsError as error:
        assert "seat.reserve" in str(error)
    else:
        assert seat.reserve <= seat.memory


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("2G", 2048 * MIB),
        ("2g", 2048 * MIB),
        ("512M", 512 * MIB),
        ("512mb", 512 * MIB),
        ("1.5GiB", 1536 * MIB),
        ("1 G", 1024 * MIB),
        ("524288k", 512 * MIB),
        ("1T", 1024 * 1024 * MIB),
        (str(512 * MIB), 512 * MIB),
        (512 * MIB, 512 * MIB),
    ],
)
def test_sizes_are_written_as_docker_has_them(text: object, size: int) -> None:
    assert read_settings({"seat": {"memory": text}}).seat.memory == size


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings({}).course = "other"  # type: ignore[misc]


def test_the_skeleton_for_the_environment_has_every_key(example: Mapping[str, Any]) -> None:
    def keys(value: object, path: str = "") -> set[str]:
        if not isinstance(value, Mapping) or not value:
            return {path}
        return {name for key, below in value.items() for name in keys(below, f"{path}.{key}")}

    skeleton = {".".join(("", *path)) for path in key_paths()}
    assert keys(example) <= skeleton
    assert keys(Settings().model_dump()) == skeleton


@pytest.mark.parametrize("path", sections(Settings), ids=lambda path: ".".join(path) or "top")
def test_every_section_and_every_key_is_described(path: tuple[str, ...]) -> None:
    model: Any = Settings
    for name in path:
        model = model.model_fields[name].annotation
    assert model.__doc__
    assert [name for name, field in model.model_fields.items() if not field.description] == []


def test_hosts_can_come_from_the_environment_too() -> None:
    assert read_settings({"generic": {"hosts": "a, root@b"}}).generic.hosts == ("a", "root@b")


def test_who_logs_in_to_hosts_is_not_decided_by_the_configuration_alone() -> None:
    generic = read_settings({}).generic
    assert (generic.user, generic.kfile, generic.pwd) == (None, None, None)
    generic = read_settings({"generic": {"user": "debian", "pwd": "secret"}}).generic
    assert (generic.user, generic.pwd) == ("debian", "secret")


def test_the_password_of_the_hosts_is_in_no_refusal_and_no_representation() -> None:
    assert "secret" not in repr(read_settings({"generic": {"hosts": ["a"], "pwd": "secret"}}))
    message = refusal({"generic": {"hosts": 3, "pwd": "secret", "kfle": "x"}})
    assert "generic.kfle" in message
    assert "secret" not in message
    message = refusal({"generic": {"pwd": 4711}})
    assert "generic.pwd" in message
    assert "4711" not in message
    message = refusal({"generic": ["secret"]}) + refusal({"generic": "secret"})
    assert "cloudscale.generic" in message


@pytest.mark.parametrize("columns", ["id=Matrikel, name=Wer", {"id": "Matrikel", "name": "Wer"}])
def test_the_columns_of_the_students_file_can_be_named(columns: object) -> None:
    assert read_settings({"columns": columns}).columns == {"id": "Matrikel", "name": "Wer"}


@pytest.mark.parametrize("columns", ["Matrikel", {"matrikel": "Matrikel"}, {"id": ""}, ["id"], {"id": 7}])
def test_columns_of_another_form_are_refused(columns: object) -> None:
    assert "key cloudscale.columns" in refusal({"columns": columns})


@pytest.mark.parametrize(
    ("configuration", "meant"),
    [
        ({"drvier": "local"}, "driver"),
        ({"Seat": {}}, "seat"),
        ({"seat": {"cpu": 1}}, "seat.cpus"),
        ({"openstack": {"flavour": "m1.small"}}, "openstack.flavor"),
        ({"kfile": "id"}, "generic.kfile"),
        ({"boot_timeout": 3}, "openstack.boot_timeout or vm.boot_timeout"),
    ],
)
def test_an_unknown_key_comes_with_the_one_that_may_be_meant(configuration: dict[str, Any], meant: str) -> None:
    assert f"unknown key. Is {meant} meant?" in refusal(configuration)


def test_an_unknown_key_like_no_other_comes_without_a_guess() -> None:
    assert refusal({"xyzzy": 1}).count("meant") == 0


@pytest.mark.parametrize(
    ("configuration", "text"),
    [
        ({"course": 123}, "cloudscale.course: should be text; YAML reads it as something else, unless it is in quot"),
        ({"course": date(2026, 12, 1)}, "(it is 2026-12-01)"),
        ({"image": 3.11}, "cloudscale.image: should be text"),
        ({"students": True}, "cloudscale.students: should be text"),
        ({"seat": ["cpus", 1]}, "cloudscale.seat: should be keys and values"),
        ({"gateway": "path"}, "cloudscale.gateway: should be keys and values (it is 'path')"),
        ({"generic": {"hosts": {"a": "b"}}}, "cloudscale.generic.hosts: should be a list"),
    ],
)
def test_a_value_of_another_kind_is_refused_in_words_of_yaml(configuration: dict[str, Any], text: str) -> None:
    assert text in refusal(configuration)
