from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import pytest

from cloudscale.model import Place
from cloudscale.outside import (
    LONGEST_CAUSE,
    PIECE,
    PORT,
    OtherForm,
    date_text,
    formed,
    given,
    home_path,
    in_words,
    is_of_library,
    parse_json,
    parse_object,
    pieces,
    port_text,
    read_body,
    shaped,
    typed,
)
from tests.unit.fakes import http_answer


def test_json_that_nests_too_deeply_is_as_wrong_as_any_other() -> None:
    assert parse_json("[1]") == [1]
    for text in ("[" * 100_000, "{", "9" * 5000, b"\xff\xfe\xff"):
        with pytest.raises(ValueError):
            parse_json(text)


@pytest.mark.parametrize("text", ["[]", "null", "1", '"a"'])
def test_an_object_is_keys_and_values(text: str) -> None:
    assert parse_object('{"a": 1}') == {"a": 1}
    with pytest.raises(ValueError, match="keys and values"):
        parse_object(text)


def test_a_home_folder_is_replaced_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert home_path("~/x") == home_path(Path("~/x")) == Path("/home/ann/x")
    assert home_path("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_a_cause_is_one_short_line() -> None:
    assert in_words(KeyError("NCPU")) == "KeyError: 'NCPU'"
    assert len(in_words(ValueError("a\nb" * 1000))) < LONGEST_CAUSE + 20


FORM = {"ID": str, "Port": PORT, "Labels": {"*": str}, "Nodes?": [{"Up": bool}], "Spec": dict}
RIGHT = {"ID": "a", "Port": 80, "Labels": {"b": "c"}, "Nodes": [{"Up": True, "More": 1}], "Spec": {}}


def test_what_has_the_form_is_returned_as_it_is() -> None:
    assert formed(RIGHT, FORM) is RIGHT
    for nodes in ({}, {"Nodes": None}):
        assert formed({key: value for key, value in RIGHT.items() if key != "Nodes"} | nodes, FORM)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ID": 1}, "ID is no str"),
        ({"ID": None}, "ID is no str"),
        ({"Port": 65536}, "Port is no port"),
        ({"Port": True}, "Port is no port"),
        ({"Labels": {"b": 1}}, "Labels.b is no str"),
        ({"Nodes": {}}, "Nodes is no list"),
        ({"Nodes": [{}]}, r"Nodes\[\] has no Up"),
        ({"Spec": []}, "Spec is no dict"),
    ],
)
def test_another_form_is_refused_and_said_where(changes: dict[str, object], message: str) -> None:
    with pytest.raises(OtherForm, match=f"^{message}$"):
        formed({**RIGHT, **changes}, FORM)


def test_no_object_at_all_is_refused() -> None:
    wrongs: list[object] = [None, [], "a"]
    for wrong in wrongs:
        with pytest.raises(OtherForm, match="it is no dict"):
            formed(wrong, FORM)
    with pytest.raises(OtherForm, match="it has no ID"):
        formed({}, FORM)


def test_an_error_of_a_library_is_distinguished_from_one_of_ours() -> None:
    with pytest.raises(ValueError) as theirs:
        parse_json("{")
    with pytest.raises(ValueError) as ours:
        port_text("65536")
    assert is_of_library(theirs.value) and not is_of_library(ours.value)


def test_a_port_and_a_date_of_a_label_are_read() -> None:
    assert port_text("4321") == 4321
    for text in ("2026-11-27T12:00:00", "2026-11-27T12:00:00Z", "2026-11-27T13:00:00.000000000+01:00"):
        assert date_text(text) == datetime(2026, 11, 27, 12, tzinfo=UTC)


def test_attributes_and_fields_are_checked_like_keys() -> None:
    port = Place("m1", 4321)
    assert typed(port) is port and shaped([port], {"machine": str, "port": PORT, "other?": str}) == [port]
    with pytest.raises(OtherForm, match="port is no int"):
        typed(Place("m1", cast(int, "4321")))
    with pytest.raises(OtherForm, match="machine is no str"):
        shaped([Place(cast(str, None), 1)], {"machine": str})
    assert given(None, [str]) == [] and given(["a"], [str]) == ["a"]


def test_a_body_is_read_up_to_its_limits() -> None:
    assert read_body(http_answer(b"x" * 100), 100, 10) == b"x" * 100
    with pytest.raises(OtherForm, match="longer than 99 bytes"):
        read_body(http_answer(b"x" * 100), 99, 10)
    with pytest.raises(TimeoutError, match="longer than -1 s"):
        read_body(http_answer(b"x" * 100), 100, -1)
    packed = http_answer(gzip.compress(bytes(10**8)))
    packed.raw.headers["Content-Encoding"] = "gzip"
    read = 0
    for piece in pieces(packed):
        assert len(piece) <= PIECE
        read += len(piece)
    assert read == 10**8
