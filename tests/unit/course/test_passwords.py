from __future__ import annotations

import re
from pathlib import Path

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords, latest

KEY = bytes(range(32))
PROJECT = Path(__file__).parents[3]


def test_a_password_that_was_never_changed_is_the_first_one() -> None:
    assert Passwords(KEY).of("1") == naming.password(KEY, "1") == "kat4-p4k4-7dhu"
    assert Passwords(KEY).token("1") == naming.keyed_digest(KEY, "token", "1").hex()
    assert Passwords(KEY).gateway_pass("1") == naming.keyed_digest(KEY, "pass", "1").hex()


def test_each_change_gives_another_password_and_all_that_lets_in_with_it() -> None:
    each = [Passwords(KEY, {"1": count}) for count in range(20)]
    for derived in (Passwords.of, Passwords.token, Passwords.gateway_pass):
        assert len({derived(passwords, "1") for passwords in each}) == 20


def test_a_change_is_of_one_student() -> None:
    assert Passwords(KEY, {"1": 1}).of("2") == Passwords(KEY).of("2")


def test_a_change_is_no_part_of_an_id() -> None:
    assert Passwords(KEY, {"1": 1}).of("1") not in {Passwords(KEY).of("11"), Passwords(KEY).of("1-1")}


def test_the_key_is_not_in_what_a_log_would_show() -> None:
    assert repr(KEY) not in repr(Passwords(KEY))


def test_of_what_several_know_the_latest_counts() -> None:
    assert latest({"1": 2, "2": 1}, {"1": 1, "3": 4}) == {"1": 2, "2": 1, "3": 4}
    assert latest() == {}


def test_a_students_password_is_asked_for_in_one_place() -> None:
    """What calls naming.password by itself does not know of changes."""
    asking = re.compile(r"naming\.(password|seat_token|seat_pass)\b")
    code = [*(PROJECT / "cloudscale").rglob("*.py"), PROJECT / "tasks.py"]
    assert [path.name for path in code if asking.search(path.read_text())] == ["passwords.py"]
