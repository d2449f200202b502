from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from invoke.config import Config
from tabulate import tabulate_formats

from cloudscale.course.settings import (
    Common,
    Launch,
    Remote,
    Section,
    Settings,
    key_paths,
    read_flags,
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


def flag_refusal(model: type[Section], **flags: object) -> str:
    with pytest.raises(SettingsError) as raised:
        read_flags(model, **flags)
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


# --- flags -----------------------------------------------------------------------------------


def test_flags_that_are_not_given_keep_their_default() -> None:
    launch = read_flags(Launch, nodes=None, port=None, start=None, end=None, env=(), output=None)
    assert (launch.nodes, launch.port, launch.start, launch.end) == (0, 8888, 4321, 0)
    assert launch.env == {}
    assert not (launch.onlycreate or launch.plan or launch.prune or launch.replace_lost or launch.output)
    common = read_flags(Common)
    assert (common.only, common.skip, common.timeout, common.format, common.yes) == ((), (), None, "table", False)


def test_flags_are_read_from_text() -> None:
    launch = read_flags(Launch, nodes="3", port="80", start="5000", end="5100", output="out.csv")
    assert (launch.nodes, launch.port, launch.start, launch.end) == (3, 80, 5000, 5100)
    assert launch.output == Path("out.csv")


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("nodes", "many"),
        ("nodes", "-1"),
        ("nodes", "1.5"),
        ("port", "0"),
        ("port", "65536"),
        ("start", "65536"),
        ("end", "65536"),
        ("start", "0"),
        ("start", "http"),
        ("end", "70000"),
        ("env", ["NOVALUE"]),
        ("env", ["1A=b"]),
        ("env", ["=b"]),
    ],
)
def test_a_wrong_flag_is_refused_by_its_name(flag: str, value: object) -> None:
    assert f"flag --{flag}" in flag_refusal(Launch, **{flag: value})


def test_the_last_port_is_not_before_the_first() -> None:
    assert "flag --end: should not be less than --start" in flag_refusal(Launch, start="5000", end="4999")
    assert read_flags(Launch, start="5000", end="5000").end == 5000
    assert read_flags(Launch, start="5000", end="0").end == 0


def test_environment_pairs_keep_all_after_the_first_equals_sign() -> None:
    pairs = ["A=b=c", "EMPTY=", "_x1= y ", "A_B=é"]
    assert read_flags(Launch, env=pairs).env == {"A": "b=c", "EMPTY": "", "_x1": " y ", "A_B": "é"}


def test_names_are_separated_by_commas() -> None:
    common = read_flags(Common, only="a, b,,", skip="c")
    assert (common.only, common.skip) == (("a", "b"), ("c",))


@pytest.mark.parametrize("format", ["table", "csv", "json", *tabulate_formats])
def test_every_format_is_known(format: str) -> None:
    assert read_flags(Common, format=format).format == format


def test_an_unknown_format_is_refused_with_the_known_ones() -> None:
    message = flag_refusal(Common, format="yaml")
    assert "flag --format" in message
    assert all(known in message for known in ("table", "csv", "json", "github"))


@pytest.mark.parametrize("timeout", ["0", "-1", "soon", "nan", "inf"])
def test_a_timeout_is_a_number_of_seconds(timeout: str) -> None:
    assert "flag --timeout" in flag_refusal(Common, timeout=timeout)
    assert read_flags(Common, timeout="2.5").timeout == 2.5


def test_remote_commands_need_hosts() -> None:
    assert "flag --hosts" in flag_refusal(Remote, com="ls")
    assert "flag --hosts" in flag_refusal(Remote, hosts=" , ", com="ls")
    assert "flag --com" in flag_refusal(Remote, hosts="a", com="")
    remote = read_flags(Remote, hosts="a,b", com="ls")
    assert (remote.hosts, remote.port, remote.user) == (("a", "b"), None, None)


@pytest.mark.parametrize("flags", [{"com": "ls"}, {"hosts": "a", "com": ""}, {"hosts": "a", "com": "ls", "port": "x"}])
def test_a_password_is_in_no_refusal(flags: dict[str, str]) -> None:
    assert "secret" not in flag_refusal(Remote, pwd="secret", **flags)
    assert "1234" not in flag_refusal(Remote, hosts="a", com="ls", pwd=1234)


def test_a_password_is_in_no_representation() -> None:
    assert "secret" not in repr(read_flags(Remote, hosts="a", com="ls", pwd="secret"))


@pytest.mark.parametrize("columns", ["id=Matrikel, name=Wer", {"id": "Matrikel", "name": "Wer"}])
def test_the_columns_of_the_students_file_can_be_named(columns: object) -> None:
    assert read_settings({"columns": columns}).columns == {"id": "Matrikel", "name": "Wer"}


@pytest.mark.parametrize("columns", ["Matrikel", {"matrikel": "Matrikel"}, {"id": ""}, ["id"], {"id": 7}])
def test_columns_of_another_form_are_refused(columns: object) -> None:
    assert "key cloudscale.columns" in refusal({"columns": columns})
