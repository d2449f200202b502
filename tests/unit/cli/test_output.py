from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudscale.cli.output import check_folder, check_writable
from cloudscale.errors import RequestError


def test_a_file_that_can_be_written_is_accepted_and_not_made_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    check_writable(tmp_path / "out.csv")
    check_writable(Path("out.csv"))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_no_output(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is a folder"):
        check_writable(tmp_path)


def test_what_is_not_a_regular_file_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "device")  # stands in for /dev/null, which root could replace
    with pytest.raises(RequestError):
        check_writable(tmp_path / "device")


def test_a_missing_folder_is_reported_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="its folder does not exist"):
        check_writable(tmp_path / "missing" / "out.csv")


def test_a_name_that_is_too_long_is_reported_before_anything_is_done(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="too long"):
        check_writable(tmp_path / ("é" * 128))
    with pytest.raises(RequestError):
        check_writable(tmp_path / ("x" * 300) / "out.csv")
    check_writable(tmp_path / ("x" * 255))


def test_a_folder_that_is_there_or_can_be_made_is_accepted_and_not_made_yet(tmp_path: Path) -> None:
    check_folder(tmp_path, "--per-student")
    check_folder(tmp_path / "new", "--per-student")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_can_not_be_made_is_reported_with_its_flag(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match=r"--per-student .* is not a folder"):
        check_folder(tmp_path / "file", "--per-student")
    with pytest.raises(RequestError, match="can't be made"):
        check_folder(tmp_path / "missing" / "new", "--per-student")
    for path in (tmp_path / "file" / "new", tmp_path / ("x" * 300)):
        with pytest.raises(RequestError, match="can't be used"):
            check_folder(path, "--per-student")


def test_a_folder_that_others_own_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(RequestError, match="you may not write to it"):
        check_folder(tmp_path, "--per-student")
