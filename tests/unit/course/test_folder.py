from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudscale.course.folder import CHANGES, NAMES, STORE_COPY, CourseFolder
from cloudscale.errors import CloudscaleError, RequestError


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


@pytest.fixture
def course() -> CourseFolder:
    return CourseFolder.named("bio", "local")


def key_of(course: CourseFolder) -> bytes:
    key = course.key()
    assert key
    return key


def test_a_courses_folder_is_in_the_state_folder(course: CourseFolder, tmp_path: Path) -> None:
    assert course.folder == tmp_path / "bio" / "local"
    assert course.remote_known_hosts == tmp_path / "bio" / "known_hosts"


def test_without_a_state_folder_in_the_environment_it_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDSCALE_HOME")
    monkeypatch.setenv("XDG_STATE_HOME", "/home/ann/.state")
    assert CourseFolder.named("bio", "local").folder == Path("/home/ann/.state/cloudscale/bio/local")


def test_a_home_folder_may_be_written_as_a_tilde(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("CLOUDSCALE_HOME", "~/courses")
    assert CourseFolder.named("bio", "local").folder == Path("/home/ann/courses/bio/local")


def test_a_relative_folder_is_one_of_the_folder_in_which_the_task_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLOUDSCALE_HOME", "courses")
    assert CourseFolder.named("bio", "local").folder == tmp_path / "courses" / "bio" / "local"


# --- the key ---------------------------------------------------------------------------------


def test_a_course_keeps_its_key(course: CourseFolder) -> None:
    key = key_of(course)
    assert len(key) == 32
    assert key_of(CourseFolder.named("bio", "local")) == key


def test_every_course_and_driver_has_a_key_of_its_own(course: CourseFolder) -> None:
    others = CourseFolder.named("geo", "local"), CourseFolder.named("bio", "generic")
    assert len({key_of(course), *map(key_of, others)}) == 3


def test_a_key_is_made_only_on_request(course: CourseFolder) -> None:
    assert course.key(create=False) is None
    assert not course.folder.parent.exists()
    key = key_of(course)
    assert course.key(create=False) == key


def test_only_the_owner_reads_folder_and_key_whatever_the_umask(course: CourseFolder) -> None:
    before = os.umask(0)
    try:
        key_of(course)
    finally:
        os.umask(before)
    assert mode(course.folder) == mode(course.folder.parent) == 0o700
    assert mode(course.folder / "key") == 0o600
    assert [path.name for path in course.folder.iterdir()] == ["key"]


def test_folders_that_were_open_to_others_are_closed(course: CourseFolder) -> None:
    course.folder.mkdir(parents=True, mode=0o755)
    key_of(course)
    assert mode(course.folder) == mode(course.folder.parent) == 0o700


def test_no_folder_is_open_to_others_for_a_moment(course: CourseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDSCALE_HOME", str(course.folder / "home"))
    monkeypatch.setattr(Path, "chmod", lambda path, mode: None)
    before = os.umask(0)
    try:
        inner = CourseFolder.named("bio", "local")
        key_of(inner)
    finally:
        os.umask(before)
    assert mode(inner.folder) == mode(inner.folder.parent) == mode(inner.folder.parent.parent) == 0o700


@pytest.mark.parametrize("part", [".", "local", "local/key", "local/ca-key.pem"])
@pytest.mark.parametrize("bits", [0o020, 0o002])
def test_what_others_may_write_is_refused(course: CourseFolder, tmp_path: Path, part: str, bits: int) -> None:
    key_of(course)
    (course.folder / "ca-key.pem").touch(0o600)
    path = tmp_path / "bio" / part
    path.chmod(mode(path) | bits)
    uses: list[Callable[[], object]] = [course.key, course.make_folder, course.check]
    for use in uses:
        with pytest.raises(RequestError, match="can be written by other users") as raised:
            use()
        assert f"chmod go-w {path}" in str(raised.value)
    with pytest.raises(RequestError), course.locked():
        pytest.fail("it was used")
    path.chmod(mode(path) & ~bits)
    assert course.key()


@pytest.mark.parametrize("part", [".", "local", "local/key"])
def test_what_belongs_to_another_user_is_refused(
    course: CourseFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    key_of(course)
    path, lstat = tmp_path / "bio" / part, Path.lstat

    def of_somebody(self: Path) -> os.stat_result:
        status = list(lstat(self))
        status[4] = 65534 if self == path else status[4]
        return os.stat_result(status)

    monkeypatch.setattr(Path, "lstat", of_somebody)
    with pytest.raises(RequestError, match="belongs to another user"):
        course.key()


@pytest.mark.parametrize("part", [".", "local", "local/key"])
def test_a_link_is_refused_and_what_it_points_to_stays_as_it_is(
    course: CourseFolder, tmp_path: Path, part: str
) -> None:
    key_of(course)
    path, elsewhere = tmp_path / "bio" / part, tmp_path / "elsewhere"
    path.rename(elsewhere)
    elsewhere.chmod(0o755)
    path.symlink_to(elsewhere)
    with pytest.raises(RequestError, match="is a link"):
        course.key()
    with pytest.raises(RequestError, match="is a link"), course.locked():
        pytest.fail("it was used")
    assert mode(elsewhere) == 0o755


def test_a_link_to_a_file_beside_it_is_one_of_ours(course: CourseFolder) -> None:
    key_of(course)
    (course.folder / "client.pem").touch(0o600)
    (course.folder / "cert.pem").symlink_to("client.pem")
    course.known_hosts.touch(0o664)
    assert course.key()


@pytest.mark.parametrize("content", [b"", b"00", b"no key at all", b"\xff\xfe", b"0" * 66])
def test_a_damaged_key_is_refused_and_left_as_it_is(course: CourseFolder, content: bytes) -> None:
    key_of(course)
    (course.folder / "key").write_bytes(content)
    with pytest.raises(RequestError, match="does not contain the course's key"):
        course.key()
    assert (course.folder / "key").read_bytes() == content


def test_a_key_that_another_run_made_meanwhile_is_taken(course: CourseFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    link = os.link

    def other_run_first(source: Path, target: Path) -> None:
        target.write_text("ab" * 32)
        link(source, target)

    monkeypatch.setattr(os, "link", other_run_first)
    assert course.key() == b"\xab" * 32
    assert [path.name for path in course.folder.iterdir()] == ["key"]


def test_a_state_folder_that_can_not_be_used_is_a_wrong_request(course: CourseFolder, tmp_path: Path) -> None:
    (tmp_path / "bio").write_text("a file where the folder should be")
    with pytest.raises(RequestError, match="Set CLOUDSCALE_HOME"):
        course.key()
    with pytest.raises(RequestError, match="Set CLOUDSCALE_HOME"), course.locked():
        pass


def test_a_state_folder_that_can_not_be_made_is_a_wrong_request(
    course: CourseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    def vanish(folder: Path, **settings: object) -> None:
        nonlocal tries
        tries += 1
        assert tries < 1000, "this never ends"
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "mkdir", vanish)  # as in a folder that was removed, or below /proc
    with pytest.raises(RequestError, match="Set CLOUDSCALE_HOME"), course.locked():
        pass


# --- the lock --------------------------------------------------------------------------------


def test_a_second_run_is_refused_while_the_first_goes_on(course: CourseFolder) -> None:
    with course.locked():
        with pytest.raises(CloudscaleError, match="Another run"), CourseFolder.named("bio", "local").locked():
            pytest.fail("the lock was not held")
        with CourseFolder.named("geo", "local").locked(), CourseFolder.named("bio", "generic").locked():
            pass  # other courses and drivers are free


def test_a_lock_ends_with_its_run_however_that_ends(course: CourseFolder) -> None:
    with pytest.raises(KeyError), course.locked():
        raise KeyError
    with course.locked():
        key = key_of(course)
    assert key_of(course) == key


def test_a_run_that_was_refused_does_not_open_the_lock_to_a_third(course: CourseFolder) -> None:
    with course.locked():
        for _ in range(2):
            with pytest.raises(CloudscaleError), CourseFolder.named("bio", "local").locked():
                pytest.fail("the lock was not held")


def test_a_run_that_ends_at_this_moment_does_not_remove_the_lock(
    course: CourseFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def other_run_ends_first(descriptor: int, operation: int) -> None:
        monkeypatch.setattr(fcntl, "flock", flock)
        course.folder.rmdir()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", other_run_ends_first)
    with course.locked(), pytest.raises(CloudscaleError), CourseFolder.named("bio", "local").locked():
        pytest.fail("the lock was not held")


def test_a_run_that_made_nothing_leaves_no_folder(course: CourseFolder, tmp_path: Path) -> None:
    with course.locked():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_made_nothing_removes_nothing(course: CourseFolder) -> None:
    course.folder.parent.mkdir()
    course.remote_known_hosts.write_text("host key")
    with course.locked():
        pass
    assert course.remote_known_hosts.read_text() == "host key"


# --- changes of passwords --------------------------------------------------------------------


def test_changes_of_passwords_are_kept_for_the_owner_alone(course: CourseFolder) -> None:
    assert course.password_changes() == {}
    course.note_password_changes({})
    assert not course.folder.exists()
    course.note_password_changes({"1": 2, "é": 1})
    assert course.password_changes() == {"1": 2, "é": 1}
    assert mode(course.folder / CHANGES) == 0o600
    course.forget()
    assert course.password_changes() == {}


@pytest.mark.parametrize("text", ["", "[1]", '{"1": "x"}', '{"1": null}', "\xff"])
def test_a_file_of_changes_that_is_none_is_a_wrong_request(course: CourseFolder, text: str) -> None:
    course.note_password_changes({"1": 2})
    (course.folder / CHANGES).write_text(text, encoding="latin-1")
    with pytest.raises(RequestError, match="is damaged"):
        course.password_changes()


def test_forgetting_removes_the_drivers_folder_and_no_other(course: CourseFolder, tmp_path: Path) -> None:
    generic = CourseFolder.named("bio", "generic")
    key_of(course)
    key_of(generic)
    course.forget()
    assert not course.folder.exists()
    assert generic.folder.exists()
    generic.forget()
    assert list(tmp_path.iterdir()) == []


def test_forgetting_twice_or_under_the_lock_is_fine(course: CourseFolder, tmp_path: Path) -> None:
    with course.locked():
        key_of(course)
        course.forget()
        course.forget()
    assert list(tmp_path.iterdir()) == []


def test_certificates_that_an_authority_has_signed_outlive_the_course(course: CourseFolder) -> None:
    course.key()
    names = course.names_key()
    (course.folder / "inner").mkdir()
    (course.folder / STORE_COPY).write_bytes(b"signed")
    course.forget()
    assert {path.name for path in course.folder.iterdir()} == {STORE_COPY, NAMES}
    assert course.keeps_certificates and course.names_key() == names
    (course.folder / STORE_COPY).unlink()
    course.forget()
    assert not course.folder.exists()


# --- looking only ----------------------------------------------------------------------------


def test_a_folder_that_a_launch_can_make_or_write_to_is_well(course: CourseFolder, tmp_path: Path) -> None:
    course.check_writable()
    assert [*tmp_path.iterdir()] == []
    course.make_folder()
    course.check_writable()


@pytest.mark.parametrize("blocked", ["bio", "bio/local", "home/deep"])
def test_a_folder_that_a_launch_can_not_make_is_reported_in_its_words(
    course: CourseFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, blocked: str
) -> None:
    if blocked == "home/deep":
        monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "home" / "deep" / "down"))
        course = CourseFolder.named("bio", "local")
    (tmp_path / blocked).parent.mkdir(mode=0o700, exist_ok=True)
    (tmp_path / blocked).write_text("")
    with pytest.raises(RequestError) as looked:
        course.check_writable()
    with pytest.raises(RequestError) as locked, course.locked():
        pass
    assert str(looked.value) == str(locked.value)


def test_a_folder_without_permission_is_reported(
    course: CourseFolder, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # whoever runs this may be root
    with pytest.raises(RequestError, match="Permission denied"):
        course.check_writable()


def test_who_only_looks_makes_no_folder(course: CourseFolder, tmp_path: Path) -> None:
    looking = CourseFolder.named("bio", "local", read_only=True)
    assert looking.key(create=False) is None
    with pytest.raises(AssertionError):
        looking.make_folder()
    assert [*tmp_path.iterdir()] == []


def test_the_courses_of_a_driver_are_those_with_a_folder_for_it(tmp_path: Path) -> None:
    assert CourseFolder.courses("local") == []
    for path in ("chem/local", "bio/local", "bio/qemu", "phys/qemu"):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "local").write_text("a file")
    assert CourseFolder.courses("local") == ["bio", "chem"]
    assert CourseFolder.courses("generic") == []


def test_where_there_is_no_state_folder_there_are_no_courses(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CLOUDSCALE_HOME", str(tmp_path / "nowhere"))
    assert CourseFolder.courses("local") == []
