from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
from tabulate import tabulate_formats
from wcwidth import wcswidth

from cloudscale.cli import report
from cloudscale.images.listing import ImageRow
from cloudscale.model import CommandResult, Demand, Finding, Machine, Outcome, Outcomes, Place, Row, Seat, Student
from cloudscale.plan.placing import Need, Plan
from cloudscale.terminal import CONTROL
from cloudscale.units import GIB

ROW = Row("Ann Lee", "ann@example.org", "http://192.0.2.1:4321", "192.0.2.1", 4321, "m1", "ready", "kw4h-7txe-cdrp")
OTHER = Row("王 小明", "", "http://192.0.2.1:4322", "192.0.2.1", 4322, "m1", "failed", "a3c4-d7e3-f4h7")
KEYS = ["student", "email", "url", "host", "port", "password", "node", "state"]


# --- images ----------------------------------------------------------------------------------


IMAGES = [
    ImageRow("ml", "2026-01-01 10:00", 300 << 20, 200 << 20, ["m1", "m2"]),
    ImageRow("spark", None, None, None, []),
]


def test_images_are_shown_in_round_numbers_to_people_and_exactly_to_programs() -> None:
    lines = report.images(IMAGES, "csv").splitlines()
    assert lines == ["image,built,size,shared,machines", 'ml,2026-01-01 10:00,300 MiB,200 MiB,"m1, m2"', "spark,no,,,"]
    ml, spark = json.loads(report.images(IMAGES, "json"))
    assert (ml["size"], ml["shared"], ml["machines"]) == (300 << 20, 200 << 20, ["m1", "m2"])
    assert (spark["built"], spark["machines"]) == (None, [])
    assert "300 MiB" in report.images(IMAGES, "table")


# --- seats -----------------------------------------------------------------------------------


def test_json_is_a_list_of_objects_with_just_the_keys_in_order() -> None:
    rows = json.loads(report.seats([ROW, OTHER], "json", passwords=True))
    assert [list(row) for row in rows] == [KEYS, KEYS]
    assert rows[0] == {
        "student": "Ann Lee",
        "email": "ann@example.org",
        "url": "http://192.0.2.1:4321",
        "host": "192.0.2.1",
        "port": 4321,
        "password": "kw4h-7txe-cdrp",
        "node": "m1",
        "state": "ready",
    }


@pytest.mark.parametrize("format", ["json", "csv", "table", "github"])
def test_where_passwords_are_not_shown_there_is_no_such_key(format: str) -> None:
    text = report.seats([ROW], format, passwords=False)
    assert "password" not in text
    assert "kw4h" not in text
    assert "ready" in text


def test_json_keeps_every_script_readable() -> None:
    assert "王 小明" in report.seats([OTHER], "json", passwords=True)


def test_csv_has_a_header_and_reads_back() -> None:
    awkward = replace(ROW, student='Dwayne "The Rock", Jr.; x')
    table = list(csv.reader(io.StringIO(report.seats([awkward, OTHER], "csv", passwords=True))))
    assert table[0] == KEYS
    assert table[1][0] == 'Dwayne "The Rock", Jr.; x'
    assert table[2][4] == "4322"


@pytest.mark.parametrize("format", ["table", *tabulate_formats])
def test_every_format_shows_every_seat(format: str) -> None:
    text = report.seats([ROW, OTHER], format, passwords=True)
    for row in (ROW, OTHER):
        assert row.student in text
        assert str(row.password) in text
    assert text.index(ROW.student) < text.index(OTHER.student)


@pytest.mark.parametrize("format", ["table", "csv", "json", *tabulate_formats])
def test_every_format_takes_a_course_without_seats(format: str) -> None:
    text = report.seats([], format, passwords=True)
    assert text == "[]" if format == "json" else "4321" not in text


@pytest.mark.parametrize("format", ["table", "csv", "json", *tabulate_formats])
@pytest.mark.parametrize("password", ["1e5", "007", "3.140", "1_000", "-1", "true", "nan"])
def test_what_looks_like_a_number_stays_as_it_is(format: str, password: str) -> None:
    text = report.seats([replace(ROW, password=password)], format, passwords=True)
    assert password in text.replace("\\_", "_").replace("{-}", "-")


def test_wide_characters_keep_the_columns_straight() -> None:
    lines = report.seats([ROW, OTHER], "grid", passwords=True).splitlines()
    assert len({wcswidth(line) for line in lines}) == 1


# --- commands --------------------------------------------------------------------------------

DONE = Outcome("m1", CommandResult(0, "out\n", ""))
BROKEN = Outcome("m2", CommandResult(3, "", "wrong\n"))
UNREACHED = Outcome[CommandResult]("m3", error=OSError("gone"))


def test_a_command_has_a_block_for_each_target_headed_by_its_name() -> None:
    rows = report.command_rows([DONE, BROKEN, UNREACHED], 255)
    assert report.commands(rows, "table") == (
        "== m1 ==\nout\n\n== m2 (exit code 3) ==\nwrong\n\n== m3 (exit code 255) ==\ngone"
    )


def test_a_command_as_json_has_just_the_keys_in_order() -> None:
    rows = json.loads(report.commands(report.command_rows([DONE, BROKEN, UNREACHED], 255), "json"))
    assert rows == [
        {"target": "m1", "exit_code": 0, "stdout": "out\n", "stderr": ""},
        {"target": "m2", "exit_code": 3, "stdout": "", "stderr": "wrong\n"},
        {"target": "m3", "exit_code": 255, "stdout": "", "stderr": "gone"},
    ]
    assert list(rows[0]) == ["target", "exit_code", "stdout", "stderr"]


def test_a_command_as_csv_keeps_lines_together() -> None:
    outcome = Outcome("m1", CommandResult(0, "a\nb\n", ""))
    table = list(csv.reader(io.StringIO(report.commands(report.command_rows([outcome], 255), "csv"))))
    assert table == [["target", "exit_code", "stdout", "stderr"], ["m1", "0", "a\nb\n", ""]]


FORGED = "fine\n== m2 ==\n  == m3 (exit code 1) ==\n\x1b[2J\x1b]52;c;aGk=\x07\r\n＝＝ m4 ＝＝\n"


def test_a_target_cannot_forge_the_heading_of_another_or_control_the_terminal() -> None:
    outcome = Outcome("m1", CommandResult(0, FORGED, "\x9b2J"))
    lines = report.commands(report.command_rows([outcome], 255), "table").splitlines()
    assert lines == [
        "== m1 ==",
        "fine",
        "| == m2 ==",
        "|   == m3 (exit code 1) ==",
        r"\x1b[2J\x1b]52;c;aGk=\x07",
        "| ＝＝ m4 ＝＝",
        r"\x9b2J",
    ]


@pytest.mark.parametrize("format", ["csv", "json", "table", *tabulate_formats])
def test_in_no_format_does_a_target_control_the_terminal(format: str) -> None:
    outcome = Outcome("m1", CommandResult(0, FORGED, "\x9b2J\u202e"))
    text = report.commands(report.command_rows([outcome], 255), format)
    assert not CONTROL.search(text)
    if format == "json":
        assert json.loads(text)[0]["stdout"] == FORGED


DANGEROUS = ["=cmd|'/c calc'!A1", '=HYPERLINK("http://x")', "+1+2", "-2+3@SUM(A1)", "@x", "\t=1", "\r=1", "＝1", "\n=1"]


@pytest.mark.parametrize("format", ["csv", "tsv"])
@pytest.mark.parametrize("name", DANGEROUS)
def test_a_spreadsheet_runs_no_cell_as_a_formula(format: str, name: str) -> None:
    outcome = Outcome(name, CommandResult(1, name, name))
    texts = [
        report.seats([replace(ROW, student=name, email=name)], format, passwords=True),
        report.images([replace(IMAGES[0], image=name)], format),
    ]
    if format == "csv":
        texts.append(report.command_report(Outcomes([outcome]), format).text)
        texts.append(report.removed(Outcomes([Outcome(name, name)]), format).text)
    for text in texts:
        cells = [
            cell for row in csv.reader(io.StringIO(text), delimiter="\t" if format == "tsv" else ",") for cell in row
        ]
        assert not [cell for cell in cells if cell.startswith(report.FORMULA)]
        assert any(cell.lstrip().startswith("'") for cell in cells)


def test_ordinary_cells_of_csv_stay_as_they_are() -> None:
    ordinary = replace(ROW, student="O'Hara-Smith, A = B", email="a+b@example.org")
    (_, row) = csv.reader(io.StringIO(report.seats([ordinary], "csv", passwords=True)))
    assert row[:2] == ["O'Hara-Smith, A = B", "a+b@example.org"]


# --- plan and machines -----------------------------------------------------------------------

PLAN = Plan(
    seats=(Seat(Student("1", "Ann", "Lee", "ann@example.org"), Place("m1", 4321)),),
    leavers=(),
    needs=(Need("m1", 1, GIB // 2, 8 * GIB, 0.25, 4),),
    warnings=(),
)
MACHINES = [Machine("m1", "192.0.2.1")]


def test_a_plan_sets_what_is_needed_against_what_is_there() -> None:
    text = report.plan(PLAN, MACHINES, (), "table")
    for part in ("0.50 GiB", "8.00 GiB", "0.25", "Ann Lee", "192.0.2.1", "4321"):
        assert part in text


def test_a_plan_as_json_has_machines_and_seats() -> None:
    plan = json.loads(report.plan(PLAN, MACHINES, (), "json"))
    assert plan["machines"][0]["memory"] == GIB // 2
    assert plan["seats"] == [
        {"student": "Ann Lee", "email": "ann@example.org", "host": "192.0.2.1", "port": 4321, "node": "m1"}
    ]


def test_a_plan_as_csv_is_its_seats() -> None:
    assert report.plan(PLAN, MACHINES, (), "csv").splitlines()[1] == "Ann Lee,ann@example.org,192.0.2.1,4321,m1"


DEMANDS = (Demand("cores", 4, 2, 20), Demand("server groups", 1, 0, None))


def test_a_quota_is_what_is_needed_used_and_allowed() -> None:
    assert json.loads(report.quotas(DEMANDS, "json")) == [
        {"resource": "cores", "need": 4, "used": 2, "limit": 20},
        {"resource": "server groups", "need": 1, "used": 0, "limit": "none"},
    ]


@pytest.mark.parametrize("format", ["table", "csv", *tabulate_formats])
def test_every_format_shows_every_demand(format: str) -> None:
    text = report.quotas(DEMANDS, format)
    for part in ("resource", "need", "used", "limit", "cores", "server groups", "20", "none"):
        assert part in text


def test_a_plan_shows_the_quota_between_machines_and_seats() -> None:
    parts = report.plan(PLAN, MACHINES, DEMANDS, "table").split("\n\n")
    assert [part.split()[0] for part in parts] == ["machine", "resource", "student"]
    assert parts[1] == report.quotas(DEMANDS, "table")
    without = report.plan(PLAN, MACHINES, (), "table").split("\n\n")
    assert without == [parts[0], parts[2]]


def test_a_plan_as_json_has_the_quota_in_numbers() -> None:
    plan = json.loads(report.plan(PLAN, MACHINES, DEMANDS, "json"))
    assert list(plan) == ["machines", "quota", "seats"]
    assert plan["quota"] == [
        {"resource": "cores", "need": 4, "used": 2, "limit": 20},
        {"resource": "server groups", "need": 1, "used": 0, "limit": None},
    ]
    assert json.loads(report.plan(PLAN, MACHINES, (), "json"))["quota"] == []


def test_a_plan_as_csv_is_its_seats_whatever_the_quota() -> None:
    assert report.plan(PLAN, MACHINES, DEMANDS, "csv") == report.plan(PLAN, MACHINES, (), "csv")


def test_a_machine_that_is_to_come_has_no_address_yet() -> None:
    for machines in ([], [Machine("m1", "")]):
        (seat,) = json.loads(report.plan(PLAN, machines, (), "json"))["seats"]
        assert (seat["node"], seat["host"]) == ("m1", "")


def test_machines_are_a_table() -> None:
    row = {"machine": "m1", "address": "192.0.2.1", "engine": "swarm manager", "cores": 4, "memory": "8", "seats": 1}
    assert json.loads(report.machines([row], "json")) == [row]


# --- failures and removals -------------------------------------------------------------------

REMOVED = Outcomes([Outcome("course-ann", "removed"), Outcome[str]("course-bob", error=OSError("it is in use"))])


def test_what_was_removed_is_reported_and_what_was_not_is_a_problem() -> None:
    shown = report.removed(REMOVED, "table")
    assert (shown.text, shown.problems) == ("removed course-ann", ("course-bob: it is in use",))
    assert json.loads(report.removed(REMOVED, "json").text) == [{"target": "course-ann", "state": "removed"}]
    assert report.removed(REMOVED, "csv").text == "target,state\ncourse-ann,removed"


# --- doctor ----------------------------------------------------------------------------------

PATH = "/home/ann/.local/state/cloudscale/a-long-name-of-a-course/openstack"
FINDINGS = [
    Finding("this computer", "ok", "Python 3.11.2"),
    Finding(
        "machine m2", "wrong", f"m2: no answer in 5 s. {PATH}\nIt is \x1b[31mred.", "Check that it is up, and wait."
    ),
    Finding("machine m2", "wrong", "m2: again", ""),
    Finding("seats", "unknown", "later"),
]


def test_what_is_wrong_is_named_as_a_failure_once() -> None:
    assert report.examination(FINDINGS, "table", 80).problems == ("machine m2: see the table.",)
    assert report.examination(FINDINGS[:1], "table", 80).problems == ()


def test_long_findings_go_on_in_the_next_line_and_a_path_stays_whole() -> None:
    lines = report.examination(FINDINGS, "table", 80).text.splitlines()
    assert lines[0].split() == ["check", "state", "finding", "remedy"]
    assert any(PATH in line for line in lines)
    assert not any(CONTROL.search(line) for line in lines)
    assert max(len(line) for line in lines if PATH not in line and "--" not in line) < 120


@pytest.mark.parametrize("format", ["json", "csv"])
def test_findings_for_programs_are_whole(format: str) -> None:
    text = report.examination(FINDINGS, format, 80).text
    rows = json.loads(text) if format == "json" else [*csv.DictReader(io.StringIO(text))]
    assert [row["check"] for row in rows] == ["this computer", "machine m2", "machine m2", "seats"]
    assert rows[0] == {"check": "this computer", "state": "ok", "finding": "Python 3.11.2", "remedy": ""}
    assert rows[1]["finding"].startswith(f"m2: no answer in 5 s. {PATH}\n")
