"""Names of students' files on the trainer's computer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.material.work_names import BadName, Names, local_name, own_name, own_path
from cloudscale.terminal import CONTROL

NAME = st.binary(min_size=1, max_size=60).filter(lambda name: not {47, 0} & {*name} and name not in (b".", b".."))


@pytest.mark.parametrize("name", ["notes.txt", "Übung 1.ipynb", "100%.csv", "50%off", "=cmd()", "-rf", "王.py", "a:b?"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert local_name(name.encode()) == name


@pytest.mark.parametrize(
    ("name", "local"),
    [
        (b"two\nlines", "two%0Alines"),
        (b"bad\xff", "bad%FF"),
        ("rtl\u202egpj.exe".encode(), "rtl%E2%80%AEgpj.exe"),
        (b"\x1b[31m", "%1B[31m"),
        (b"100%41", "100%2541"),
    ],
)
def test_what_is_no_name_here_is_coded(name: bytes, local: str) -> None:
    assert local_name(name) == local


@given(NAME)
def test_every_name_can_be_read_back(name: bytes) -> None:
    local = local_name(name)
    assert own_name(local) == name
    assert not CONTROL.search(local) and "\n" not in local


@given(st.lists(st.lists(NAME, min_size=1, max_size=3).map(b"/".join), unique=True, max_size=20))
def test_no_two_paths_are_one_where_case_does_not_count(paths: list[bytes]) -> None:
    names = Names()
    local = [names.path(path) for path in paths]
    assert len({path.casefold() for path in local}) == len(paths)
    assert [own_path(path) for path in local] == paths


def test_of_names_that_differ_by_case_alone_the_first_one_stays() -> None:
    names = Names()
    assert [names.path(name) for name in (b"README", b"Readme", b"readme", b"a/x", b"A/x")] == [
        *("README", "%52eadme", "%72eadme", "a/x", "%41/x"),
    ]


@pytest.mark.parametrize(
    "path", [b"", b"/etc/passwd", b"../x", b"a/../b", b"a//b", b".", b"a\0b", b"x" * 256, b"a/" * 1500]
)
def test_a_path_that_leads_elsewhere_is_none(path: bytes) -> None:
    with pytest.raises(BadName):
        Names().path(path)


def test_a_name_that_is_too_long_once_it_is_coded_is_none() -> None:
    with pytest.raises(BadName, match="too long here"):
        Names().path(b"\xff" * 100)


@pytest.mark.parametrize("name", ["..", "%2E%2E", "a%2Fb", "a%00", "", "%2F"])
def test_a_manifest_can_not_lead_elsewhere_either(name: str) -> None:
    with pytest.raises(BadName):
        own_name(name)
