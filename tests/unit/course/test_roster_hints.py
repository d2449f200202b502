"""Lists that are not quite a roster: what is refused says what to do, and a large file does not take long."""

from __future__ import annotations

import time

import pytest

from cloudscale.course.header import is_address
from cloudscale.course.headings import meaning
from cloudscale.course.roster import parse_roster
from cloudscale.errors import RosterError


def refusal(content: str) -> str:
    with pytest.raises(RosterError) as raised:
        parse_roster(content.encode(), "class.csv")
    return f"{raised.value.message}\n{raised.value.remedy}"


@pytest.mark.parametrize(
    "content",
    [
        "ada@example.edu\nbo@example.edu\n",
        "ada@example.edu; bo@example.edu; cy@example.edu\n",
        "ada@example.edu,bo@example.edu,cy@example.edu,di@example.edu\n",
        "email\nada@example.edu\nbo@example.edu\n",
    ],
)
def test_a_list_of_addresses_only_is_refused_with_the_flag_that_reads_it(content: str) -> None:
    assert '--columns "id=email,name=email"' in refusal(content)


@pytest.mark.parametrize("heading", ["email", "name"])
def test_one_column_may_be_both_the_id_and_the_name(heading: str) -> None:
    columns = {"id": heading, "name": heading}
    students = parse_roster(f"{heading}\nada@example.edu\n".encode(), "class.csv", columns).students
    assert [(student.id, student.full_name) for student in students] == [("ada@example.edu", "ada@example.edu")]


@pytest.mark.parametrize("content", ["Ada Brook\nBo Holm\n", "name\nAda Brook\nBo Holm\n"])
def test_a_list_of_names_only_is_refused_with_the_flag_that_reads_it(content: str) -> None:
    assert '--columns "id=name,name=name"' in refusal(content)


@pytest.mark.parametrize(
    ("content", "line", "header"),
    [
        ("Ada;Brook;ada@example.edu\nBo;Holm;bo@example.edu\n", 1, "…;…;email"),
        ("1;Ada;Brook;\n2;Bo;bo@example.edu\n", 2, "…;…;email"),
        ("1;ada@example.edu;Brook\n", 1, "…;email;…"),
        ("Ada Brook;ada@example.edu\n", 1, "…;email"),
    ],
)
def test_without_a_header_an_address_is_no_name(content: str, line: int, header: str) -> None:
    text = refusal(content)
    assert f"class.csv, line {line}: " in text
    assert f"Put a header above the first line, such as {header}," in text


def test_an_address_may_be_the_id() -> None:
    (student,) = parse_roster(b"ada@example.edu;Ada;Brook\n", "class.csv").students
    assert (student.id, student.full_name) == ("ada@example.edu", "Ada Brook")


@pytest.mark.parametrize("id_", ["1.23457E+11", "1,23457E+11", "1.2e+9"])
def test_an_id_that_a_spreadsheet_has_rounded_is_refused(id_: str) -> None:
    text = refusal(f'id;name\n17;Ada\n"{id_}";Bo\n')
    assert f"line 3: the id {id_} was rounded by a spreadsheet" in text
    assert "as text" in text


@pytest.mark.parametrize("id_", ["1E5", "12E+4", "3.5", "e+1"])
def test_ids_with_an_e_are_ids(id_: str) -> None:
    assert parse_roster(f"id;name\n{id_};Ada\n".encode(), "class.csv").students[0].id == id_


def test_other_separators_are_named() -> None:
    assert "line 1: the fields are separated by |, and not separated by ; , or tab" in refusal("id|name\n1|Ada\n")
    assert "in quotation marks as a whole" in refusal('"id,name,surname"\n"1,Ada,Brook"\n')


def test_a_field_without_an_end_is_taken_for_an_open_quotation_mark() -> None:
    assert "line 1: a field is too long. Is a quotation mark not closed?" in refusal('1;a;"b\n' + "2;c;d\n" * 50000)


@pytest.mark.parametrize("header", ["id;name;surname;email\n", ""])
def test_a_file_of_many_lines_takes_as_long_as_its_lines(header: str) -> None:
    def seconds(lines: int) -> float:
        text = header + "".join(f"{number};Anna{number};Müller;a{number}@example.edu\n" for number in range(lines))
        start = time.process_time()
        assert len(parse_roster(text.encode(), "class.csv").students) == lines
        return time.process_time() - start

    seconds(100)
    assert seconds(16_000) < 32 * min(seconds(2_000), seconds(2_000))  # it was 64 times where each line is compared


def test_a_long_field_of_signs_is_soon_looked_at() -> None:
    start = time.process_time()
    assert meaning("(" * 50_000) is None
    assert not is_address("a@" + "b." * 50_000 + " ")
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("content", "read"),
    [
        ("Прізвище;Ім’я;Електронна пошта\nІваненко;Іван;i@example.edu\n", "i@example.edu Іван Іваненко"),
        ("Mã sinh viên;Họ và tên;Email\n001;Nguyễn Văn An;an@example.edu\n", "001 Nguyễn Văn An"),
        ('User ID,Sort Name,Email\nab,"Brook, Ada",ada@example.edu\n', "ab Ada Brook"),
        ("Last Name,First Name,Unique User ID\nBrook,Ada,77\n", "77 Ada Brook"),
        ("Username,Real name\nab,Ada Brook\n", "ab Ada Brook"),
    ],
)
def test_headers_of_more_languages_and_platforms_are_known(content: str, read: str) -> None:
    (student,) = parse_roster(content.encode(), "class.csv").students
    assert f"{student.id} {student.full_name}" == read
