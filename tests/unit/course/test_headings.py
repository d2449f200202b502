from __future__ import annotations

import unicodedata

import pytest

from cloudscale.course.headings import (
    COUNT,
    EMAIL,
    FULL,
    GIVEN,
    ID,
    LOGIN,
    NAME,
    OTHER,
    SURNAME,
    find_columns,
    is_about_columns,
    meaning,
)


def role(heading: str) -> str | None:
    known = meaning(heading)
    return known[0] if known else None


@pytest.mark.parametrize(
    "heading",
    ["First name", "FIRST NAME", "first_name", "FirstName", " first-name: ", "First name *", "First\u00a0name"],
)
def test_case_blanks_and_punctuation_do_not_matter(heading: str) -> None:
    assert role(heading) == GIVEN


@pytest.mark.parametrize("heading", ["Prénom", "PRÉNOM", "Prenom", unicodedata.normalize("NFD", "Prénom")])
def test_accents_do_not_matter(heading: str) -> None:
    assert role(heading) == GIVEN


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("ID number", ID),
        ("Matrikel-Nr.", ID),
        ("Matr.-Nr.", ID),
        ("N° étudiant", ID),
        ("Nº de aluno", ID),
        ("Número de ID", ID),
        ("UČO", ID),
        ("Nr albumu", ID),
        ("学号", ID),
        ("Attendee #", ID),
        ("SIS Login ID", LOGIN),
        ("github_username", LOGIN),
        ("Přihlašovací jméno", LOGIN),
        ("E-Mail-Adresse", EMAIL),
        ("Adresse de courriel", EMAIL),
        ("Correo electrónico", EMAIL),
        ("E-mailová adresa", EMAIL),
        ("#", COUNT),
        ("Lfd. Nr.", COUNT),
        ("Křestní jméno", GIVEN),
        ("Imię", GIVEN),
        ("Apellido(s)", SURNAME),
        ("Příjmení", SURNAME),
        ("Étudiant(e)", FULL),
        ("Cognome e nome", FULL),
        ("Nachname, Vorname", FULL),
        ("Nome", NAME),
        ("Jméno", NAME),
        ("Zeitstempel", OTHER),
    ],
)
def test_each_language_is_known(heading: str, expected: str) -> None:
    assert role(heading) == expected


@pytest.mark.parametrize(
    ("heading", "expected"),
    [
        ("Student's first name", GIVEN),
        ("Attendee Surname", SURNAME),
        ("Your email address", EMAIL),
        ("What is your last name?", SURNAME),
        ("E-Mail (Pflichtfeld)", EMAIL),
        ("Matrikelnummer [8-stellig]", ID),
        ("FAMILY_NAME_OF_STUDENT", SURNAME),
        ("Last name / Nachname", SURNAME),
        ("Name (Original Name)", FULL),
    ],
)
def test_what_stands_around_a_word_is_left_out(heading: str, expected: str) -> None:
    assert role(heading) == expected


@pytest.mark.parametrize("text", ["", "-", "Brook", "Jen", "Ada Lovelace", "k00110001", "Myno", "Id/Brook", "2024"])
def test_other_texts_mean_nothing(text: str) -> None:
    assert meaning(text) is None


def test_of_two_headings_the_one_that_says_it_better_has_the_lower_rank() -> None:
    found = find_columns(["Student E-Mail", "SIS User ID", "E-Mail", "ID", "Group"])
    assert found[2][1] < found[0][1]
    assert found[3][1] < found[1][1]
    assert found[4][0] == OTHER


@pytest.mark.parametrize("cell", ["    Points Possible", "Mögliche Punkte", "points"])
def test_lines_about_columns_are_known(cell: str) -> None:
    assert is_about_columns(cell)
    assert not is_about_columns("Possible, Ada")
