from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.errors import CloudscaleError
from tests.unit.classroom import Class


def test_a_session_has_its_courses_folder_and_its_selection(bio: Class, tmp_path: Path) -> None:
    session = bio.session(only="m1,ann", skip="bob")
    assert session.course.folder == tmp_path / "bio" / "local"
    assert (session.selection.only, session.selection.skip) == (("m1", "ann"), ("bob",))


def test_a_session_locks_its_course(bio: Class) -> None:
    with bio.session().locked(), pytest.raises(CloudscaleError, match="Another run"), bio.session().locked():
        pytest.fail("the lock was not held")


def test_what_changes_nothing_takes_no_lock_and_makes_no_folder(bio: Class) -> None:
    with bio.session().locked(unless=True):
        assert not bio.session().course.folder.exists()
        with bio.session().locked():
            pass
