from __future__ import annotations

import math
import re

from hypothesis import given
from hypothesis import strategies as st

from cloudscale.course import naming
from cloudscale.model import Student

DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
SECRET = re.compile(r"[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9])?")
VOLUME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
LOOK_ALIKES = set("0o1li2z5s6b89gq")

KEY = bytes(range(32))
anything = st.text(st.characters(codec="utf-8"), min_size=1, max_size=200)
students = st.builds(Student, id=anything, name=anything, surname=anything)
courses = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", fullmatch=True)
keys = st.binary(min_size=32, max_size=32)

LONG = [Student(str(at), letter * 200, letter * 200) for at, letter in enumerate("xéЖ王عमา☃'-")]


def test_names_of_200_characters_of_any_script_become_dns_labels() -> None:
    for student in LONG:
        assert DNS_LABEL.fullmatch(naming.seat_name("course", student))


@given(courses, students)
def test_every_students_seat_has_a_valid_and_stable_name(course: str, student: Student) -> None:
    name = naming.seat_name(course, student)
    assert DNS_LABEL.fullmatch(name)
    assert name == naming.seat_name(course, student)


@given(courses, students)
def test_every_students_volume_has_a_valid_and_stable_name(course: str, student: Student) -> None:
    name = naming.volume_name(course, student.id)
    assert VOLUME.fullmatch(name)
    assert len(name) <= 63
    assert name == naming.volume_name(course, student.id)


@given(courses, st.lists(students, min_size=2, max_size=10, unique_by=lambda student: student.id))
def test_no_two_students_share_a_name(course: str, people: list[Student]) -> None:
    assert len({naming.seat_name(course, student) for student in people}) == len(people)
    assert len({naming.volume_name(course, student.id) for student in people}) == len(people)


def test_students_of_the_same_name_have_names_of_their_own() -> None:
    twins = Student("1", "Ann", "Lee"), Student("2", "Ann", "Lee")
    assert naming.seat_name("course", twins[0]) != naming.seat_name("course", twins[1])


def test_two_courses_never_meet() -> None:
    student = Student("1", "Ann", "Lee")
    assert naming.seat_name("a.b", student) != naming.seat_name("a-b", student)
    assert naming.volume_name("a.b", "1") != naming.volume_name("a-b", "1")
    assert naming.volume_name("c", "1") != naming.volume_name("c1", "")


def test_names_stay_from_version_to_version() -> None:
    # another name would be another volume: the student's work would be gone
    assert naming.volume_name("bio", "7") == "bio-7-4ff633a341"
    assert naming.seat_name("bio", Student("7", "Siobhán", "O'Neill")) == "bio-siobhan-o-neill-b1296ff270"


def test_the_volume_depends_on_the_id_alone_and_the_seat_is_readable() -> None:
    assert "siobhan-o-neill" in naming.seat_name("course", Student("4", "Siobhán", "O'Neill"))
    assert naming.volume_name("course", "4").startswith("course-4-")


@given(courses, students, st.binary(min_size=32, max_size=32))
def test_a_secrets_name_is_valid_and_tells_its_content(course: str, student: Student, content: bytes) -> None:
    seat = naming.seat_name(course, student)
    name = naming.secret_name(seat, content.hex())
    assert SECRET.fullmatch(name)
    assert name != naming.secret_name(seat, bytes(byte ^ 1 for byte in content).hex())


def test_labels_carry_the_mark() -> None:
    assert naming.labels("bio", more="x") == {"cloudscale.course": "bio", "more": "x"}
    assert naming.student_labels("bio", "7") == {"cloudscale.course": "bio", "cloudscale.student": "7"}


@given(courses, courses)
def test_the_images_that_a_course_brought_are_found_by_a_name_of_its_own(course: str, other: str) -> None:
    name = naming.delivered_repository(course)
    assert re.fullmatch(r"[a-z0-9]+(?:/[a-z0-9]+(?:-[a-z0-9]+)*)", name)  # as Docker has repositories
    assert name == naming.delivered_repository(course)
    if other != course:
        assert naming.delivered_repository(other) != name


def test_brought_images_are_found_from_version_to_version() -> None:
    assert naming.delivered_repository("bio") == "cloudscale/brought-e83d9d7e81"


# --- passwords -------------------------------------------------------------------------------


@given(keys, anything)
def test_a_password_is_the_same_every_time(key: bytes, student_id: str) -> None:
    assert naming.password(key, student_id) == naming.password(key, student_id)


@given(keys, keys, anything, anything)
def test_a_password_is_of_its_key_and_student(key: bytes, other_key: bytes, student_id: str, other_id: str) -> None:
    if other_key != key:
        assert naming.password(other_key, student_id) != naming.password(key, student_id)
    if other_id != student_id:
        assert naming.password(key, other_id) != naming.password(key, student_id)


@given(keys, anything)
def test_a_password_is_three_groups_of_four_from_the_alphabet(key: bytes, student_id: str) -> None:
    groups = naming.password(key, student_id).split("-")
    assert [len(group) for group in groups] == [4, 4, 4]
    assert set("".join(groups)) <= set(naming.ALPHABET)


def test_no_two_letters_of_the_alphabet_are_taken_for_one_another() -> None:
    assert not LOOK_ALIKES & set(naming.ALPHABET)
    assert len(set(naming.ALPHABET)) == len(naming.ALPHABET)
    assert naming.ALPHABET.lower() == naming.ALPHABET


def test_a_password_has_50_bits_or_more() -> None:
    length = len(naming.password(KEY, "1").replace("-", ""))
    assert length * math.log2(len(naming.ALPHABET)) >= 50


def test_every_letter_of_the_alphabet_is_used_about_as_often() -> None:
    letters = "".join(naming.password(KEY, str(at)) for at in range(1000)).replace("-", "")
    expected = len(letters) / len(naming.ALPHABET)
    assert all(0.8 * expected < letters.count(letter) < 1.2 * expected for letter in naming.ALPHABET)


def test_the_password_of_a_key_never_changes_from_version_to_version() -> None:
    assert naming.password(KEY, "1") == "kat4-p4k4-7dhu"


def test_a_keys_name_does_not_give_the_key_away() -> None:
    assert naming.key_id(KEY) == naming.key_id(KEY) != naming.key_id(KEY[::-1])
    assert KEY.hex()[:8] not in naming.key_id(KEY)


def test_digests_of_different_parts_differ() -> None:
    assert naming.keyed_digest(KEY, "a", "bc") != naming.keyed_digest(KEY, "ab", "c")
    assert len(naming.keyed_digest(KEY, "a")) == 32


def test_names_are_sorted_as_in_a_list_of_people() -> None:
    names = ["Zoë", "Émile", "anna", "Emma", "Emil", "Ånna", "Emile"]
    assert sorted(names, key=naming.alphabetical) == ["anna", "Ånna", "Emil", "Emile", "Émile", "Emma", "Zoë"]


def test_the_file_of_a_card_is_named_after_the_student_and_each_has_its_own() -> None:
    names = [naming.card_name(Student(id, name)) for id, name in (("1", "Ann Lee"), ("2", "Ann Lee"), ("3", "../../x"))]
    assert names[0].startswith("ann-lee-")
    assert len(set(names)) == 3
    assert not any(set(name) & set("/.\\") for name in names)
