from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.encoding import decode
from cloudscale.errors import RosterError


def refusal(data: bytes) -> str:
    with pytest.raises(RosterError) as raised:
        decode(data, "class.csv")
    assert "CSV UTF-8" in raised.value.remedy
    return raised.value.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_an_encoding_that_is_known_needs_no_remark(encoding: str) -> None:
    text = decode("1;Zoë;Müller\n".encode(encoding), "class.csv")
    assert (text.content, text.remark) == ("1;Zoë;Müller\n", "")


@pytest.mark.parametrize(
    ("text", "encoding", "name"),
    [
        ("1;Zoë;Müller\n", "cp1252", "Windows-1252"),
        ("1;Aleš;O’Neill\n", "cp1252", "Windows-1252"),
        ("1;Müller–Lüdenscheidt;d’Été\n", "cp1252", "Windows-1252"),
        ("N° étudiant;Prénom;Nom\n1;Zoé;Dupré\n", "latin-1", "Windows-1252"),
        ("1;Jiří;Dvořák\n2;Łukasz;Żak\n", "cp1250", "Windows-1250"),
        ("1;Małgorzata;Wąs\n", "cp1250", "Windows-1250"),
        ("1;Jan;Tomášek\n", "cp1250", "Windows-1250"),
        ("Číslo;Příjmení;Jméno\n1;Dvořák;Jiří\n", "cp1250", "Windows-1250"),
        ("1;Zoë;Müller\n", "utf-16-le", "UTF-16-LE"),
        ("1;一郎;山田\n", "utf-16-be", "UTF-16-BE"),
    ],
)
def test_an_encoding_that_is_guessed_is_reported_with_a_sample(text: str, encoding: str, name: str) -> None:
    found = decode(text.encode(encoding), "class.csv")
    assert found.content == text
    assert f"class.csv is not in UTF-8. It was read as {name}" in found.remark
    sample = next(cell for cell in text.replace("\n", ";").split(";") if not cell.isascii())
    assert sample in found.remark


@pytest.mark.parametrize(
    ("text", "encoding", "shown", "hint"),
    [
        ("id;name\n1;Jürgen\n", "mac_roman", "line 2: the file is not in UTF-8, and 'JŸrgen' makes no sense", "Jürgen"),
        ("1;René;Groß\n", "mac_roman", "'RenŽ'", "René"),
        ("1;KÖNIG;A\n", "mac_roman", "'K…NIG'", "KÖNIG"),
        ("1;García;A\n", "mac_roman", "'Garc’a'", "García"),
        ("1;König;A\n", "mac_roman", "'Kšnig'", "König"),
        ("1;Ježek;A\n", "cp1250", "'Ježek'", "Ježek"),
        ("1;Żak;A\n", "cp1250", "'¯ak'", "Żak"),
        ("1;Иван;Иванов\n", "cp1251", "'Èâàí'", ""),
        ("1;Γιώργος;A\n", "cp1253", "line 1", ""),
        ("1;山田太郎;A\n", "shift_jis", "line 1", ""),
    ],
)
def test_an_encoding_that_makes_no_sense_or_two_is_refused(text: str, encoding: str, shown: str, hint: str) -> None:
    message = refusal(text.encode(encoding))
    assert shown in message
    assert hint in message


def test_one_line_in_another_encoding_is_refused() -> None:
    assert "line 2" in refusal("1;Müller;A\n".encode("latin-1") + "2;Müller;B\n".encode())


@pytest.mark.parametrize("name", ["Müller", "Zoë", "Łukasz", "Dvořák"])
def test_what_was_read_in_a_wrong_encoding_before_is_refused(name: str) -> None:
    damaged = name.encode().decode("cp1252", "replace")
    assert "line 2" in refusal(f"1;A;B\n2;{damaged};B\n".encode())


@pytest.mark.parametrize("start", [b"PK\x03\x04\x14\x00\x06\x00", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"])
def test_a_file_of_excel_is_refused_as_such(start: bytes) -> None:
    assert "line 1: this is a spreadsheet's own file" in refusal(start + bytes(100))


@given(st.binary(max_size=200))
def test_bytes_are_a_text_or_a_refusal(data: bytes) -> None:
    try:
        decode(data, "class.csv")
    except RosterError as error:
        assert "line " in error.message


@given(st.text(st.characters(codec="cp1252", exclude_categories=["Cc"]), max_size=60))
def test_what_windows_wrote_is_read_as_it_was_or_refused(text: str) -> None:
    data = text.encode("cp1252")
    try:
        found = decode(data, "class.csv")
    except RosterError:
        return
    assert found.content in (text, data.decode("cp1250", "replace"), data.decode("utf-8", "replace"))
    assert found.remark or found.content == data.decode()  # nothing is guessed silently
