from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from tabulate import tabulate_formats

from cloudscale.course.flags import Common, Distribution, Launch, Remote, read_flags
from cloudscale.course.settings import Section
from cloudscale.errors import SettingsError


def flag_refusal(model: type[Section], **flags: object) -> str:
    with pytest.raises(SettingsError) as raised:
        read_flags(model, **flags)
    return raised.value.message


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


def test_a_folder_is_given_in_its_simplest_form() -> None:
    order = read_flags(Distribution, source="x", into="./day1//data/")
    assert (order.into, order.path, order.force) == ("day1/data", None, False)


@pytest.mark.parametrize("flag", ["into", "path"])
@pytest.mark.parametrize("value", ["..", "a/../../b", "/etc", "~/x", ".", "", "a\nb", "a\x1bb"])
def test_a_folder_outside_is_refused(flag: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"flag --{flag}: should be a path inside the folder"):
        read_flags(Distribution, source="x", **{flag: value})


@pytest.mark.usefixtures("at_noon")
def test_a_deadline_is_read_with_the_trainers_clock() -> None:
    assert read_flags(Launch).until is None
    assert read_flags(Launch, until="none").until == "none"
    assert read_flags(Launch, until="18:00").until == datetime(2026, 11, 27, 18, tzinfo=UTC)
    assert "flag --until: should be a time (18:00)" in flag_refusal(Launch, until="soon")
    assert "and yesterday at 23:59 UTC is past (it is '2026-11-26')" in flag_refusal(Launch, until="2026-11-26")


def test_a_check_without_seats_is_refused() -> None:
    with pytest.raises(SettingsError, match="flag --check: is for seats, and --onlycreate starts none"):
        read_flags(Launch, check=True, onlycreate=True)
