from __future__ import annotations

import csv
import io
import itertools
import unicodedata
from collections.abc import Callable, Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course.header import parse_columns
from cloudscale.course.roster import Roster, parse_roster
from cloudscale.errors import RosterError
from cloudscale.model import Student


def read(text: str, columns: dict[str, str] | None = None) -> Roster:
    return parse_roster(text.encode(), "class.csv", columns)


def refusal(text: str, columns: dict[str, str] | None = None) -> RosterError:
    with pytest.raises(RosterError) as raised:
        read(text, columns)
    assert raised.value.exit_code == 2
    return raised.value


# --- which line is a header ------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Kuerzelchen;Wer;Woher\nab1;Ann;Wien\n",
        "Wer;Woher;Postfach\nAnn;Wien;ann@example.org\n",
        "id;Gruppe;Wer\n1;A;Ann\n",
        "Nachname;Vorname;Gruppe\nBrook;Ada;A\n",
        "login;Bob;Ray\nann;Ann;Lee\n",  # a header with names of columns, or a student
        "Section;Status;Wer\nA;B;Ann\n",
        "ada;Ada;Lovelace\n1;Bob;Ray\n",  # as above
        "Quiz1;ID;Name\nx;9001;Ada\n",
        "ada;Sid;Student\nbob;Bob;Ray\n",
        "1;ID;Name\n;9001;Ada\n",
        "2024;Vorname;E-Mail\n9000;Ada;ada@example.org\n",
        "Woche 1;Vorname;Quiz 1\nx;Ada;8\n",
        "Projekt;Quiz 1 (101);Wer\nA;9000;Ada\n",
        "Projekt;Full name;Motto\nA;Ada;B\n",
    ],
)
def test_what_may_be_a_header_is_refused_with_its_columns_and_the_remedy(text: str) -> None:
    error = refusal(text)
    first = text.splitlines()[0]
    assert "class.csv, line 1: this looks like a header" in error.message
    assert f"The columns are: {first.replace(';', ', ')}." in error.remedy
    assert "--columns" in error.remedy
    assert "put the line id;name;surname;email above it" in error.remedy


@pytest.mark.parametrize(
    "text",
    [
        "7;Name;Surname\n8;Bob;Ray\n",
        "s7;Vorname;Nachname\ns8;Bob;Ray\n",
        "7;Sid;Student\n8;Mel;Land\n",
        "7;Ann;Lee;none\n8;Bob;Ray;bob@example.org\n",
        "7;Ann;Lee\n8;Student;8\n",
        "ada;Name;Lovelace\nbob;Bob;Ray\n",
        "ada;Ada;Lovelace\nbob;Bob;Ray\n",
        "ada;Name;Surname;ada@example.org\nbob;Bob;Ray\n",
        "mmcfly;Marty;McFly\nebrown2;Emmett;Brown\n",
        "Ann;Ann;Lee;;Group A\nBob;Bob;Ray;bob@example.org;Group B\n",
    ],
)
def test_without_a_header_the_first_line_is_a_student(text: str) -> None:
    first, second = (line.split(";") for line in text.splitlines())
    assert read(text).students == tuple(Student(*line[:4]) for line in (first, second))


def test_columns_beyond_the_fourth_are_reported_where_there_is_no_header() -> None:
    (remark,) = read("1;Ann;Lee;;Group A\n").remarks
    assert "the columns are id;name;surname;email, and further ones are not used" in remark


@pytest.mark.parametrize("title", ["COURS1234 en 2024;;;;;\n", "Kurs;ML;;\n\n", "My course\n\n"])
def test_a_title_above_the_header_is_refused(title: str) -> None:
    error = refusal(f"{title}Pgrm;Num fac;Nom;Prénom;Noma;Mail\nSINF1;12;Brook;Ada;10011700;ada@example.org\n")
    assert "line 1 is neither a student nor a header: remove the lines above the header" in error.message
    assert f"line {title.count(chr(10)) + 1}" in error.remedy


def test_a_title_above_lines_of_unknown_columns_is_refused() -> None:
    assert "neither a student nor a header" in refusal("My course\nWer;Was;Wo\n1;a;b\n").message


@pytest.mark.parametrize("first", ["id;name;surname\n1;Ann;Lee\n", "1;Ann;Lee\n"])
def test_a_header_among_the_students_is_refused(first: str) -> None:
    error = refusal(f"{first}id;name;surname\n2;Bob;Ray\n")
    assert f"line {first.count(chr(10)) + 1}: this is a header" in error.message


# --- which column is what --------------------------------------------------------------------

ANNA = Student("7", "Anna", "Müller", "anna@example.org")


@pytest.mark.parametrize(
    "text",
    [
        "ID;Name;Vorname;E-Mail\n7;Müller;Anna;anna@example.org\n",
        "Matrikel-Nr.;Nachname;Vorname;E-Mail-Adresse\n7;Müller;Anna;anna@example.org\n",
        "Name;Surname;Student ID;Email\nAnna;Müller;7;anna@example.org\n",
        "Last name;Name;Student ID;Email\nMüller;Anna;7;anna@example.org\n",
        "Student;ID;Email\nMüller, Anna;7;anna@example.org\n",
        "Nom;Prénom;Numéro d'identification;Adresse de courriel\nMüller;Anna;7;anna@example.org\n",
        "Nome;Cognome;Matricola;Indirizzo email\nAnna;Müller;7;anna@example.org\n",
        "Nombre;Apellido(s);Número de ID;Dirección de correo\nAnna;Müller;7;anna@example.org\n",
        "Jméno;Příjmení;UČO;E-mailová adresa\nAnna;Müller;7;anna@example.org\n",
        "Voornaam;Achternaam;Studentnummer;E-mailadres\nAnna;Müller;7;anna@example.org\n",
        "Imię;Nazwisko;Nr albumu;Adres e-mail\nAnna;Müller;7;anna@example.org\n",
        "Nome;Apelido;Nº de aluno;Endereço de email\nAnna;Müller;7;anna@example.org\n",
        "Full name;Name;First name;Last name;ID;Email\nAM;M;Anna;Müller;7;anna@example.org\n",
    ],
)
def test_the_columns_are_known_in_each_language(text: str) -> None:
    assert read(text).students == (ANNA,)


@pytest.mark.parametrize(
    ("heading", "cell", "name", "surname"),
    [
        ("Student", "Müller, Anna", "Anna", "Müller"),
        ("Name", "Anna Müller", "Anna Müller", ""),
        ("Name", "Cher", "Cher", ""),
        ("Name", "Brown, Jr.", "Brown, Jr.", ""),
        ("Student", "King, Martin Luther, Jr.", "Martin Luther", "King Jr."),
        ("Full name", "Ada King, PhD", "Ada King, PhD", ""),
        ("Full name", "a, b, c", "a, b, c", ""),
        ("Full name", "Anna,", "Anna,", ""),
    ],
)
def test_a_whole_name_in_one_column_may_have_the_surname_first(
    heading: str, cell: str, name: str, surname: str
) -> None:
    assert read(f"ID;{heading}\n7;{cell}\n").students == (Student("7", name, surname),)


@pytest.mark.parametrize(
    ("header", "line", "surname"),
    [
        ("DNI;Nombre;Primer apellido;Segundo apellido", "7;Federico;García;Lorca", "García Lorca"),
        ("Studentnummer;Voornaam;Tussenvoegsel;Achternaam", "7;Jan;van der;Berg", "van der Berg"),
        ("Studentnummer;Voornaam;Tussenvoegsel;Achternaam", "7;Jan;;Berg", "Berg"),
    ],
)
def test_a_surname_may_have_two_columns(header: str, line: str, surname: str) -> None:
    assert read(f"{header}\n{line}\n").students[0].surname == surname


@pytest.mark.parametrize("order", [*itertools.permutations(["SIS Login ID", "SIS User ID", "ID", "Student"])])
def test_of_several_ids_the_same_is_taken_in_any_order(order: tuple[str, ...]) -> None:
    values = {"SIS Login ID": "abrook", "SIS User ID": "u7", "ID": "9", "Student": "Brook, Ada"}
    line = ",".join(f'"{values[heading]}"' for heading in order)
    assert read(f"{','.join(order)}\n{line}\n").students == (Student("9", "Ada", "Brook"),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Vorname;Nachname;E-Mail\nAda;Brook;Ada@Example.org\n", "ada@example.org"),
        ("Vorname;Nachname;Matrikelnummer;E-Mail\nAda;Brook;;ada@example.org\n", "ada@example.org"),
        ("Vorname;Nachname;Username;Student ID\nAda;Brook;abrook;\n", "abrook"),
        ("Nr.;Vorname;Nachname;E-Mail\n1;Ada;Brook;ada@example.org\n", "ada@example.org"),
        ("Nr.;Vorname;Nachname\n1;Ada;Brook\n", "1"),
    ],
)
def test_without_an_id_the_next_best_column_is_the_id(text: str, expected: str) -> None:
    assert [student.id for student in read(text).students] == [expected]


def test_an_id_that_only_some_lines_have_is_asked_for() -> None:
    error = refusal("Vorname;Nachname;ID-Nummer;E-Mail\nAda;Brook;7;a@example.org\nBo;Holm;;b@example.org\n")
    assert "line 3: the id is missing" in error.message
    assert '--columns "id=…"' in error.remedy
    assert "Vorname, Nachname, ID-Nummer, E-Mail" in error.remedy


def test_how_a_header_was_read_is_said_with_what_is_not_used() -> None:
    (remark,) = read("\n\nGruppe;Nachname;Vorname;Mail;Punkte\nA;Brook;Ada;ada@example.org;3\n").remarks
    assert remark == (
        "class.csv, line 3 is the header. id: Mail; name: Vorname; surname: Nachname; email: Mail. "
        "Not used: Gruppe, Punkte."
    )


# --- what is no student ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "lines",
    [
        "    Points Possible,,,,10\n",
        ",,,,10\n",
        ",,,,Manual Posting\n    Points Possible,,,,10\n",
        "Mögliche Punkte,,,,10\n",
    ],
)
def test_lines_about_the_columns_are_skipped_and_reported(lines: str) -> None:
    roster = read(f'Student,ID,SIS User ID,Section,Quiz 1 (101)\n{lines}"Brook, Ada",9001,u7,A,8\n')
    assert roster.students == (Student("9001", "Ada", "Brook"),)
    assert sum("was skipped" in remark for remark in roster.remarks) == lines.count("\n")


def test_a_student_without_an_id_is_not_skipped() -> None:
    assert "line 2: the id is missing" in refusal('Student,ID,Quiz\n"Brook, Ada",,8\n"Holm, Bo",9,8\n').message


def test_the_test_student_of_a_platform_is_pointed_out() -> None:
    remarks = read('Student,ID\n"Brook, Ada",9001\n"Student, Test",9003\n').remarks
    assert any("line 3" in remark and "--skip 9003" in remark for remark in remarks)


def test_one_email_of_two_students_is_pointed_out() -> None:
    remarks = read("ID;Name;Email\n1;Ada;a@example.org\n2;Ada;A@example.org\n").remarks
    assert any("lines 2 and 3 have the same e-mail" in remark for remark in remarks)


def test_a_line_with_more_fields_than_the_header_is_refused() -> None:
    assert "line 2: 3 fields, and the header has 2 columns" in refusal("Student,ID\nBrook, Ada,9001\n").message


# --- what the user says ----------------------------------------------------------------------

WORDS = "Kürzel;Wer;Woher;Post\nab1;Brook, Ada;Wien;ada@example.org\n"


@pytest.mark.parametrize("kuerzel", ["Kürzel", "KURZEL", unicodedata.normalize("NFD", "kürzel")])
def test_the_user_can_say_which_column_is_what(kuerzel: str) -> None:
    roster = read(WORDS, {"id": kuerzel, "name": "Wer", "email": "Post"})
    assert roster.students == (Student("ab1", "Ada", "Brook", "ada@example.org"),)


def test_what_the_user_does_not_say_is_known_all_the_same() -> None:
    text = "Kürzel;Vorname;Nachname;Mail\n7;Anna;Müller;anna@example.org\n"
    assert read(text, {"id": "Kürzel"}).students == (ANNA,)
    assert read(text, {"id": "Kürzel", "name": "Vorname"}).students == (ANNA,)
    assert read(text, {"id": "Mail"}).students == (Student("anna@example.org", "Anna", "Müller", "anna@example.org"),)


def test_what_the_user_says_goes_before_what_is_known() -> None:
    text = "ID;Matrikel;Name;Vorname\n1;7;Müller;Anna\n"
    assert read(text, {"id": "Matrikel"}).students == (Student("7", "Anna", "Müller"),)
    assert read(text, {"id": "Matrikel", "name": "Name", "surname": "Vorname"}).students[0].full_name == "Müller Anna"


def test_one_column_can_be_id_and_name() -> None:
    assert read("Kürzel;Wo\nab1;W\n", {"id": "Kürzel", "name": "Kürzel"}).students == (Student("ab1", "ab1"),)


@pytest.mark.parametrize(
    ("text", "columns", "problem"),
    [
        (WORDS, {"id": "Matrikel"}, "line 1: no column is named 'Matrikel'"),
        (WORDS, {"id": "Kürzel"}, "no column is known to be the name"),
        ("Wer;Wer;Nr\nA;B;1\n", {"id": "Nr", "name": "Wer"}, "2 columns are named 'Wer'"),
        ("Kurs\n" + WORDS, {"id": "Kürzel", "name": "Wer"}, "neither a student nor a header"),
        (WORDS + WORDS, {"id": "Kürzel", "name": "Wer"}, "line 3: this is a header again"),
    ],
)
def test_what_the_user_says_has_to_be_in_the_header(text: str, columns: dict[str, str], problem: str) -> None:
    assert problem in refusal(text, columns).message


def test_the_flag_names_columns() -> None:
    assert parse_columns("id=Matrikel,name=Vorname") == {"id": "Matrikel", "name": "Vorname"}
    asked = parse_columns("id = E-Mail , name=What is your name, please?,surname=A=B")
    assert asked == {"id": "E-Mail", "name": "What is your name, please?", "surname": "A=B"}


@pytest.mark.parametrize("text", ["", "Matrikel", "x=1,id=2", "id=1,id=2", "vorname=X"])
def test_a_flag_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="id, name, surname, email"):
        parse_columns(text)


# --- no header becomes a student -------------------------------------------------------------

Values = Callable[[int], str]
TEXT: dict[str, Values] = {
    "number": lambda n: f"{9000 + n}",
    "code": lambda n: f"k0011000{n}",
    "login": lambda n: ("abrook", "bholm2", "cynord", "dlee")[n],
    "email": lambda n: f"{'abcd'[n]}@example.org",
    "given": lambda n: ("Ada", "Bo", "Cy", "Dee")[n],
    "surname": lambda n: ("Brook", "Holm", "Nord", "Lee")[n],
    "full": lambda n: ("Brook, Ada", "Holm, Bo", "Nord, Cy", "Lee, Dee")[n],
    "word": lambda n: ("A", "B", "CS1-A", "")[n],
    "time": lambda n: f"2026-01-0{n + 1} 10:00:00",
}
HEADERS: dict[str, list[tuple[str, str]]] = {
    "ours": [("id", "number"), ("name", "given"), ("surname", "surname"), ("email", "email")],
    "Moodle": [
        *[("First name", "given"), ("Last name", "surname"), ("ID number", "code"), ("Email address", "email")],
        *[("Institution", "word"), ("Department", "word"), ("Groups", "word"), ("Course total (Real)", "number")],
        ("Last downloaded from this course", "number"),
    ],
    "Moodle de": [
        *[("Vorname", "given"), ("Nachname", "surname"), ("ID-Nummer", "code"), ("E-Mail-Adresse", "email")],
        ("Gruppen", "word"),
    ],
    "Moodle fr": [
        *[("Prénom", "given"), ("Nom de famille", "surname"), ("Numéro d’identification", "number")],
        *[("Adresse de courriel", "email"), ("Groupes", "word")],
    ],
    "Moodle it": [
        ("Nome", "given"),
        ("Cognome", "surname"),
        ("Codice identificativo", "code"),
        ("Indirizzo email", "email"),
    ],
    "Moodle es": [
        *[("Nombre", "given"), ("Apellido(s)", "surname"), ("Número de ID", "code"), ("Dirección de correo", "email")],
        ("Grupos", "word"),
    ],
    "Moodle cs": [
        ("Křestní jméno", "given"),
        ("Příjmení", "surname"),
        ("Identifikační číslo", "number"),
        ("E-mail", "email"),
    ],
    "Canvas": [
        *[("Student", "full"), ("ID", "number"), ("SIS User ID", "code"), ("SIS Login ID", "login")],
        *[("Section", "word"), ("Final Score", "number")],
    ],
    "Blackboard": [
        *[("Last Name", "surname"), ("First Name", "given"), ("Username", "login"), ("Student ID", "number")],
        *[("Last Access", "time"), ("Availability", "word")],
    ],
    "Brightspace": [
        *[("OrgDefinedId", "number"), ("Username", "login"), ("Last Name", "surname"), ("First Name", "given")],
        *[("Email", "email"), ("End-of-Line Indicator", "word")],
    ],
    "GitHub Classroom": [
        ("identifier", "code"),
        ("github_username", "login"),
        ("github_id", "number"),
        ("name", "full"),
    ],
    "Google Forms": [("Timestamp", "time"), ("Email Address", "email"), ("Full name", "full"), ("Score", "number")],
    "Google Forms de": [
        ("Zeitstempel", "time"),
        ("E-Mail-Adresse", "email"),
        ("Vorname", "given"),
        ("Nachname", "surname"),
    ],
    "Google Classroom": [("Last Name", "surname"), ("First Name", "given"), ("Email Address", "email")],
    "Microsoft Forms": [
        *[("ID", "number"), ("Start time", "time"), ("Completion time", "time"), ("Email", "email"), ("Name", "full")],
        ("Last modified time", "time"),
    ],
    "Eventbrite": [
        *[("Order #", "number"), ("Order Date", "time"), ("First Name", "given"), ("Last Name", "surname")],
        *[("Email", "email"), ("Quantity", "number"), ("Ticket Type", "word"), ("Attendee #", "number")],
        *[("Attendee Status", "word"), ("Buyer Email", "email")],
    ],
    "nbgrader": [
        *[("id", "login"), ("first_name", "given"), ("last_name", "surname"), ("email", "email")],
        ("lms_user_id", "number"),
    ],
    "Gradescope": [("Name", "full"), ("SID", "number"), ("Email", "email"), ("Role", "word"), ("Sections", "word")],
    "HIS": [
        ("Matr.-Nr.", "number"),
        ("Name", "surname"),
        ("Vorname", "given"),
        ("Studiengang", "word"),
        ("Fachsemester", "number"),
    ],
    "Apogée": [("COD_ETU", "number"), ("Nom", "surname"), ("Prénom", "given"), ("Noma", "number"), ("Mail", "email")],
    "Esse3": [("MATRICOLA", "number"), ("COGNOME", "surname"), ("NOME", "given"), ("CORSO DI LAUREA", "word")],
    "SIS cz": [("učo", "number"), ("Jméno", "given"), ("Příjmení", "surname"), ("Obor", "word"), ("Ročník", "number")],
    "SIS es": [("DNI", "number"), ("Primer apellido", "surname"), ("Segundo apellido", "surname"), ("Nombre", "given")],
    "SIS nl": [("Studentnummer", "number"), ("Voornaam", "given"), ("Achternaam", "surname"), ("Opleiding", "word")],
    "SIS pt": [("Matrícula", "number"), ("Nome completo", "full"), ("Turma", "word"), ("E-mail", "email")],
    "SIS pl": [("Nr albumu", "number"), ("Imię", "given"), ("Nazwisko", "surname"), ("Grupa", "word")],
}
SPELLINGS: Mapping[str, Callable[[str], str]] = {
    "as it is": lambda text: text,
    "lower": str.lower,
    "upper": str.upper,
    "title": str.title,
    "underscores": lambda text: text.replace(" ", "_"),
    "no blanks": lambda text: text.replace(" ", ""),
    "colon": lambda text: f"  {text}: ",
    "asterisk": lambda text: f"{text} *",
    "NFD": lambda text: unicodedata.normalize("NFD", text),
    "no accents": lambda text: "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c)),
}


@st.composite
def headed_files(draw: st.DrawFn) -> tuple[list[str], list[list[str]], str]:
    """Any of the columns of a platform in any order and spelling, lines with such values, and the file."""
    platform = draw(st.sampled_from(sorted(HEADERS)))
    columns = draw(st.permutations(HEADERS[platform]))[: draw(st.integers(1, len(HEADERS[platform])))]
    spell = SPELLINGS[draw(st.sampled_from(sorted(SPELLINGS)))]
    headings = [spell(heading) for heading, _ in columns]
    lines = [[TEXT[kind](at) for _, kind in columns] for at in range(draw(st.integers(1, 4)))]
    out = io.StringIO()
    delimiter = draw(st.sampled_from(";,\t"))
    quoted = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL)
    writer = quoted if draw(st.booleans()) else csv.writer(out, delimiter=delimiter)
    writer.writerows([headings, *lines])
    return headings, lines, out.getvalue()


@given(headed_files())
def test_no_header_ever_becomes_a_student(file: tuple[list[str], list[list[str]], str]) -> None:
    headings, lines, text = file
    try:
        students = read(text).students
    except RosterError:
        return
    assert len(students) == len(lines)
    known = {cell for line in lines for cell in line} | {""}
    for student in students:
        assert student.id in known
        assert not {student.id, student.name, student.surname, student.email} & set(headings)


@pytest.mark.parametrize("platform", HEADERS)
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_each_platform_is_read(platform: str, spelling: str) -> None:
    headings = [SPELLINGS[spelling](heading) for heading, _ in HEADERS[platform]]
    lines = [[TEXT[kind](at) for _, kind in HEADERS[platform]] for at in range(3)]
    out = io.StringIO()
    csv.writer(out).writerows([headings, *lines])
    names = [set(student.full_name.split()) for student in read(out.getvalue()).students]
    assert names == [{"Ada", "Brook"}, {"Bo", "Holm"}, {"Cy", "Nord"}]
