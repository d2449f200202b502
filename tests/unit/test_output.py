from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudscale.errors import RequestError
from cloudscale.output import check_writable, write_private


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_result_is_for_its_owners_eyes_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_private(tmp_path / "out.csv", "password")
    finally:
        os.umask(before)
    assert mode(tmp_path / "out.csv") == 0o600
    assert (tmp_path / "out.csv").read_text() == "password\n"


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_can_not(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as opened_before:
        write_private(path, "new")
        assert opened_before.read() == "old"  # whoever has the old file open sees nothing of the new one
    assert mode(path) == 0o600
    assert path.read_text() == "new\n"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    with pytest.raises(UnicodeEncodeError):
        write_private(path, "new \ud800")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_any_script_is_written_as_utf_8(tmp_path: Path) -> None:
    write_private(tmp_path / "out.csv", "王小明")
    assert (tmp_path / "out.csv").read_bytes() == "王小明\n".encode()


def test_where_a_file_can_be_written_nothing_is_said_or_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(tmp_path / "out.csv")
    check_writable(Path("out.csv"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a folder"):
        check_writable(tmp_path)


def test_what_is_no_ordinary_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "device")  # stands for /dev/null, which root may write over
    with pytest.raises(RequestError):
        check_writable(tmp_path / "device")


def test_a_folder_that_is_not_there_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="its folder is not there"):
        check_writable(tmp_path / "missing" / "out.csv")


def test_a_name_that_is_too_long_is_told_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="too long"):
        check_writable(tmp_path / ("é" * 128))
    with pytest.raises(RequestError):
        check_writable(tmp_path / ("x" * 300) / "out.csv")
    write_private(tmp_path / ("x" * 255), "the longest")
    check_writable(tmp_path / ("x" * 255))
