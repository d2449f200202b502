from __future__ import annotations

import json
import os
import re
import stat
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from cloudscale.cli.report import Report
from cloudscale.course.flags import CardFlags, read_flags
from cloudscale.errors import CloudscaleError, RequestError, SettingsError
from cloudscale.files import replace_file
from cloudscale.gateway import certificates, program
from cloudscale.workflow import cards, reset
from tests.unit.classroom import ANN, BOB, Class, messages


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the cards go."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    return here


def make(course: Class, common: dict[str, Any] | None = None, **flags: Any) -> Report:
    return cards.cards(course.session(**(common or {})), read_flags(CardFlags, **flags))


def on_cards(path: Path, name: str = "name") -> list[str]:
    return [unescape(text) for text in re.findall(rf'class="{name}"[^>]*>([^<]*)<', path.read_text())]


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_each_student_gets_a_card_with_what_themachine_has_shown(bio: Class, folder: Path) -> None:
    rows = bio.rows(bio.launch())
    report = make(bio)
    text = (folder / "cards.html").read_text()
    assert on_cards(folder / "cards.html") == ["Ann Lee", "Bob Ray"]
    assert re.findall(r'href="([^"]*)"', text) == [row["url"] for row in rows]
    assert all(f">{row['password']}<" in text for row in rows)
    assert (report.problems, bio.changes) == ((), [])
    assert bio.rows(report) == [
        {"student": "Ann Lee", "email": "ann@example.org", "file": "cards.html"},
        {"student": "Bob Ray", "email": "", "file": "cards.html"},
    ]


def test_only_the_trainer_can_read_the_file_from_its_first_moment(
    bio: Class, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()
    (folder / "cards.html").write_text("old")
    (folder / "cards.html").chmod(0o644)
    modes, replace = [], os.replace

    def seen(old: Path, new: Path) -> None:
        modes.append(mode(old))
        replace(old, new)

    monkeypatch.setattr(os, "replace", seen)
    make(bio)
    assert (modes, mode(folder / "cards.html")) == ([0o600], 0o600)
    assert any("mode 0600" in line for line in bio.said.lines)


def test_the_cards_are_in_alphabetical_order(bio: Class, folder: Path) -> None:
    bio.roster.write_text("1;zoe;Z\n2;Émile;B\n3;Emma;C\n4;Ann;Lee\n5;Emil;A\n6;王;小明\n")
    bio.launch()
    make(bio)
    assert on_cards(folder / "cards.html") == ["Ann Lee", "Emil A", "Émile B", "Emma C", "zoe Z", "王 小明"]


def test_students_of_the_same_name_are_distinguished_by_their_ids(bio: Class, folder: Path) -> None:
    bio.roster.write_text("1;Ann;Lee\n2;Ann;Lee\n3;Bob;Ray\n")
    bio.launch()
    make(bio, {"only": "2,3"})
    assert on_cards(folder / "cards.html") == ["Ann Lee (2)", "Bob Ray"]


def test_only_those_who_are_chosen_get_cards(bio: Class, folder: Path) -> None:
    bio.launch()
    make(bio, {"only": "bob ray"}, output="bob.html")
    assert on_cards(folder / "bob.html") == ["Bob Ray"]
    with pytest.raises(RequestError, match="Unknown machine, seat or student: Cid"):
        make(bio, {"only": "Cid"})
    with pytest.raises(RequestError, match="No seat is left"):
        make(bio, {"skip": "Ann Lee,Bob Ray"})


def test_title_note_and_logo_are_the_trainers(bio: Class, folder: Path) -> None:
    bio.launch()
    make(bio)
    assert on_cards(folder / "cards.html", "title") == ["bio", "bio"]
    (folder / "logo.svg").write_text("<svg onload='x()'/>")
    make(bio, title="Cells & Genes", note="Ask <me>", logo="logo.svg")
    assert on_cards(folder / "cards.html", "title") == ["Cells & Genes"] * 2
    assert on_cards(folder / "cards.html", "note") == ["Ask <me>"] * 2
    assert "data:image/svg+xml;base64," in (folder / "cards.html").read_text()


def test_behind_a_gateway_all_have_its_short_address(monkeypatch: pytest.MonkeyPatch, bio: Class, folder: Path) -> None:
    bio.registry[program.IMAGE] = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}
    bio.gateway = {"tls": "internal"}
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    rows = bio.rows(bio.launch(gateway="path"))
    make(bio)
    text = (folder / "cards.html").read_text()
    assert re.findall(r'href="([^"]*)"', text) == ["https://192.0.2.1/"] * 2
    assert all(f">{row['password']}<" in text for row in rows)


# --- a file each -----------------------------------------------------------------------------


def test_each_student_gets_a_file_that_only_the_trainer_can_read(bio: Class, folder: Path) -> None:
    bio.roster.write_text(f"{ANN}{BOB}3;../../x;/etc\n4;Ann;Lee\n")
    bio.launch()
    rows = bio.rows(make(bio, per_student="each"))
    files = [Path(row["file"]) for row in rows]
    assert sorted(files) == sorted(path.relative_to(folder) for path in (folder / "each").iterdir())
    assert (mode(folder / "each"), {mode(path) for path in files}) == (0o700, {0o600})
    assert len(set(files)) == 4
    assert not (folder / "cards.html").exists()
    assert all(re.fullmatch(r"each/[a-z0-9-]+\.html", str(path)) for path in files)
    assert {row["student"]: on_cards(folder / row["file"]) for row in rows}["Bob Ray"] == ["Bob Ray"]


def test_a_file_each_and_one_with_all_can_be_asked_for_together(bio: Class, folder: Path) -> None:
    bio.launch()
    assert len(bio.rows(make(bio, per_student="each", output="all.html"))) == 4
    assert on_cards(folder / "all.html") == ["Ann Lee", "Bob Ray"]
    assert len(list((folder / "each").iterdir())) == 2


def test_what_is_in_the_folder_already_stays(bio: Class, folder: Path) -> None:
    (folder / "each").mkdir(mode=0o755)
    (folder / "each" / "list.txt").write_text("mine")
    bio.launch()
    first = {path.name for path in _made(bio, folder)}
    assert _made(bio, folder, {"only": "1"}) and {path.name for path in (folder / "each").iterdir()} == first
    assert (folder / "each" / "list.txt").read_text() == "mine"
    assert mode(folder / "each") == 0o755


def _made(bio: Class, folder: Path, common: dict[str, Any] | None = None) -> list[Path]:
    make(bio, common, per_student="each")
    return list((folder / "each").iterdir())


def test_a_file_that_can_not_be_written_does_not_stop_the_others(
    bio: Class, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bio.launch()

    def full(path: Path, data: bytes) -> None:
        if path.name.startswith("ann"):
            raise OSError(28, "No space left on device")
        replace_file(path, data)

    monkeypatch.setattr(cards, "replace_file", full)
    report = make(bio, per_student="each")
    assert [row["student"] for row in bio.rows(report)] == ["Bob Ray"]
    assert re.fullmatch(r"each/ann-lee-.*\.html was not written: No space left on device\.", messages(report))


# --- what is said ----------------------------------------------------------------------------


def test_a_table_says_in_short_what_was_made(bio: Class) -> None:
    bio.launch()
    assert make(bio, {"format": "table"}).text == "cards.html: 2 cards on 1 page"
    assert make(bio, {"format": "table", "only": "1"}).text == "cards.html: 1 card"
    text = make(bio, {"format": "table"}, per_student="each", output="a.html").text
    assert text == "a.html: 2 cards on 1 page\neach: 2 files, one for each student"
    assert make(bio, {"format": "csv"}).text.splitlines()[0] == "student,email,file"
    bio.enrol(9)
    bio.launch()
    assert make(bio, {"format": "table"}).text.endswith("cards on 2 pages")


def test_no_password_is_printed(bio: Class) -> None:
    rows = bio.rows(bio.launch())
    printed = make(bio).text + "\n".join(bio.said.lines)
    assert not any(row["password"] in printed for row in rows)


# --- what can't be -----------------------------------------------------------------------------


def test_a_class_without_seats_is_a_wrong_request(bio: Class, folder: Path) -> None:
    with pytest.raises(RequestError, match="'bio' has no seats"):
        make(bio)
    bio.launch()
    reset.containers_reset(bio.session(), with_volumes=False)
    with pytest.raises(RequestError, match="'bio' has no seats"):
        make(bio)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        ({"output": "missing/cards.html"}, "--output"),
        ({"output": "."}, "is a folder"),
        ({"per_student": "missing/each"}, "--per-student missing/each can't be made"),
        ({"per_student": "file"}, "is not a folder"),
        ({"logo": "missing.png"}, "--logo: missing.png can't be read: No such file"),
        ({"logo": "file"}, "no picture of a known kind"),
        ({"logo": "."}, "can't be read"),
    ],
)
def test_a_wrong_flag_is_seen_before_the_course_is_looked_at(
    bio: Class, folder: Path, flags: dict[str, Any], problem: str
) -> None:
    (folder / "file").write_text("text")
    with pytest.raises(RequestError, match=problem):
        make(bio, **flags)
    assert [path.name for path in folder.iterdir()] == ["file"]


@pytest.mark.parametrize("flag", ["title", "note"])
def test_a_text_that_is_too_long_for_a_card_is_refused(bio: Class, flag: str) -> None:
    with pytest.raises(SettingsError, match=f"flag --{flag}: .*200 characters"):
        cards.cards(bio.session(), read_flags(CardFlags, **{flag: "x" * 201}))


def test_without_the_courses_key_no_wrong_password_is_printed(bio: Class, folder: Path) -> None:
    bio.launch()
    (bio.session().course.folder / "key").unlink()
    with pytest.raises(RequestError, match="another key"):
        make(bio)
    assert list(folder.iterdir()) == []


def test_a_seat_without_an_address_is_named_and_gets_no_card(lab: Class, folder: Path) -> None:
    lab.enrol(6)
    lab.launch()
    lab.machines(*lab.apis[:2])
    report = make(lab)
    assert len(on_cards(folder / "cards.html")) == len(lab.rows(report)) == 4
    assert len(report.problems) == 2
    assert all("no card, since the seat has no address" in problem for problem in report.problems)


def test_a_lost_machine_takes_no_card_away(lab: Class, folder: Path) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m2")
    assert make(lab).problems == ()
    assert len(on_cards(folder / "cards.html")) == 6


def test_a_swarm_without_a_quorum_is_named_as_the_cause(lab: Class, folder: Path) -> None:
    lab.enrol(6)
    lab.launch()
    lab.driver.lose("m1", "m2")
    with pytest.raises(CloudscaleError, match="lost its quorum"):
        make(lab)
    lab.driver.lose("m3")
    with pytest.raises(CloudscaleError, match="m1: ") as raised:
        make(lab)
    assert raised.value.exit_code == 1
    assert list(folder.iterdir()) == []


def test_rows_are_json_as_of_the_other_tasks(bio: Class) -> None:
    bio.launch()
    assert [list(row) for row in json.loads(make(bio).text)] == [["student", "email", "file"]] * 2
