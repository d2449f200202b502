from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloudscale.cli.output import check_writable
from cloudscale.errors import RequestError


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
    check_writable(tmp_path / ("x" * 255))
