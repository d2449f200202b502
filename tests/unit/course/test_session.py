from __future__ import annotations

from pathlib import Path

from tests.unit.classroom import Class


def test_a_session_knows_its_courses_folder_and_what_is_meant(bio: Class, tmp_path: Path) -> None:
    session = bio.session(only="m1,ann", skip="bob")
    assert session.course.folder == tmp_path / "bio" / "local"
    assert (session.selection.only, session.selection.skip) == (("m1", "ann"), ("bob",))
