from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from cloudscale.fanout import fan_out
from cloudscale.files import make_once, replace_file


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_a_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        replace_file(tmp_path / "out.csv", b"password\n")
        make_once(tmp_path / "key", lambda: b"secret")
    finally:
        os.umask(before)
    assert mode(tmp_path / "out.csv") == mode(tmp_path / "key") == 0o600
    assert (tmp_path / "out.csv").read_bytes() == b"password\n"


def test_a_file_that_others_could_read_is_replaced_by_one_that_they_can_not(tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as opened_before:
        replace_file(path, b"new")
        assert opened_before.read() == "old"  # a reader of the old file sees nothing of the new one
    assert mode(path) == 0o600
    assert path.read_bytes() == b"new"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.csv"
    path.write_text("old")

    def full(*names: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_longest_name_can_be_written(tmp_path: Path) -> None:
    replace_file(tmp_path / ("x" * 255), b"the longest")
    assert (tmp_path / ("x" * 255)).read_bytes() == b"the longest"


def test_what_is_made_once_is_read_from_then_on(tmp_path: Path) -> None:
    assert make_once(tmp_path / "key", lambda: b"first") == b"first"
    assert make_once(tmp_path / "key", lambda: pytest.fail("it exists")) == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_of_several_runs_at_once_all_read_the_same(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def run(number: int) -> bytes:
        def make() -> bytes:
            together.wait()  # so that none of them reads the file of another
            return str(number).encode()

        return make_once(tmp_path / "key", make)

    assert len(set(fan_out(run, range(8)).get())) == 1
    assert os.listdir(tmp_path) == ["key"]
