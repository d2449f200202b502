from __future__ import annotations

import csv
import io

import pytest

from cloudscale.errors import RequestError
from cloudscale.material.work_manifest import Manifest, Row, heading, line

SUM = "0" * 64
ANN = Row("Ann Lee", "1", "ann-1/a, b.txt", 3, SUM)
BOB = Row("=Bob", "+2", 'bob-2/"x"/=cmd.txt', 4, "f" * 64)


def manifest(*lines: str) -> Manifest:
    return Manifest(io.BytesIO("".join(lines).encode()), "work/manifest.csv")


def test_what_is_written_is_read_back() -> None:
    read = manifest(heading(), line(ANN), line(BOB))
    assert list(read.rows("1")) == [ANN] and list(read.rows("+2")) == [BOB] and list(read.rows("3")) == []
    assert {id: each.folder for id, each in read.students.items()} == {"1": "ann-1", "+2": "bob-2"}
    assert list(read.others(["1"])) == [line(BOB)]


def test_a_spreadsheet_runs_no_cell_of_it() -> None:
    (cells,) = csv.reader([line(BOB)])
    assert not any(cell.startswith(("=", "+", "-", "@")) for cell in cells)


def test_it_is_read_back_in_any_order_of_the_lines() -> None:
    more = Row("Ann Lee", "1", "ann-1/b.txt", 3, SUM)
    assert list(manifest(heading(), line(ANN), line(BOB), line(more)).rows("1")) == [ANN, more]


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ([""], "line 1: it should be student,id,path,bytes,sha256"),
        (["a;b\n"], "line 1"),
        ([heading(), line(ANN), "x,y\n"], "line 3: it should have 5 columns"),
        ([heading(), f"Ann,1,ann/x,many,{SUM}\n"], "line 2: it should end in a number"),
        ([heading(), "Ann,1,ann/x,3,00\n"], "line 2"),
        ([heading(), f"Ann,1,/etc/passwd,3,{SUM}\n"], "line 2: its path"),
        ([heading(), f"Ann,1,ann/../x,3,{SUM}\n"], "line 2: its path"),
        ([heading(), f"Ann,1,x,3,{SUM}\n"], "line 2: its path"),
        ([heading(), line(ANN), f"Ann,1,other/x,3,{SUM}\n"], "line 3: the student '1' has two folders"),
    ],
)
def test_what_is_no_manifest_is_an_error_with_the_line(lines: list[str], problem: str) -> None:
    with pytest.raises(RequestError, match=problem):
        manifest(*lines)
