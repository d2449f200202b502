from __future__ import annotations

import pytest

from cloudscale.course.csv_text import Line, clean, listed, read_lines
from cloudscale.errors import RosterError


def cells(text: str) -> list[tuple[str, ...]]:
    return [line.cells for line in read_lines(text, "class.csv")]


def test_lines_keep_their_numbers() -> None:
    assert [line.number for line in read_lines('a;b\n\n;;\n"c\nd";e\nf;g\n', "class.csv")] == [1, 4, 6]


def test_a_line_break_inside_a_field_is_marked() -> None:
    assert read_lines('a;"b\nc";d\n', "class.csv") == [Line(1, ("a", "b c", "d"), frozenset({1}))]


@pytest.mark.parametrize("first", ["sep=,", '"sep=,"', "SEP=,"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_that_excel_names_is_used(first: str, end: str) -> None:
    assert cells(f"{first}{end}1,a;b;c{end}") == [("1", "a;b;c")]


def test_a_comma_in_a_name_is_no_delimiter_where_there_is_another() -> None:
    assert cells("Name;Nr\nMüller, Anna;7\nBrook, Ada;8\n")[1] == ("Müller, Anna", "7")


@pytest.mark.parametrize("text", ['1;"A;B\n2;C;D\n', '1;A;B\n2;"C;D', '1;"A;B\n2;"C";D\n'])
def test_a_quotation_mark_that_is_not_closed_is_refused(text: str) -> None:
    with pytest.raises(RosterError, match="a quotation mark is not closed"):
        read_lines(text, "class.csv")


@pytest.mark.parametrize(
    "written",
    ["\u200bAnna", "An\u00adna", "\ufeffAnna", "An\u202ena\u202c", "\u2066Anna\u2069", "An\U000e0041na", "Anna\u3164"],
)
def test_what_can_not_be_seen_is_left_out(written: str) -> None:
    assert clean(written) == "Anna"


def test_characters_that_join_letters_stay_where_scripts_need_them() -> None:
    assert clean("می\u200cخواهم") == "می\u200cخواهم"
    assert clean("क्\u200dष") == "क्\u200dष"
    assert clean("An\u200cna") == "Anna"


def test_long_lists_of_columns_are_cut() -> None:
    assert listed(["a", "b", "c"], most=2) == "a, b and 1 more"
    assert len(listed(["x" * 500])) == 60
