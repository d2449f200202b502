"""The programs for the shared folder, on real folders."""

from __future__ import annotations

import fcntl
import io
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.material.scripts import make_room, mirror

FILES = {"a.txt": b"one", "sub/b.txt": b"", "hole": bytes(200_000)}
TIME = 1_700_000_000_123_456_789


def stream(
    files: dict[str, bytes], folders: list[str], contents: bytes = b"", numbers: list[int] | None = None
) -> bytes:
    listed = [(path, len(data), TIME, 0o644) for path, data in files.items()]
    wanted = json.dumps({"folders": folders, "files": listed, "take": numbers}).encode()
    return len(wanted).to_bytes(8, "big") + wanted + contents


def take(root: Path, files: dict[str, bytes], *folders: str, contents: bytes | None = None, size: int = 10_000) -> None:
    contents = b"".join(files.values()) if contents is None else contents
    data = stream(files, [*folders], contents, look(root, files, *folders)["differing"])
    mirror.main((data[at : at + size] for at in range(0, len(data), size)), str(root), "take")


def look(root: Path, files: dict[str, bytes], *folders: str) -> dict[str, Any]:
    out = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", out)
        mirror.main([stream(files, [*folders])], str(root), "look")
    found: dict[str, Any] = json.loads(out.getvalue())
    return found


def content(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_what_is_sent_in_any_pieces_arrives_and_is_the_same_afterwards(tmp_path: Path) -> None:
    assert look(tmp_path, FILES, "sub")["differing"] == [0, 1, 2]
    take(tmp_path, FILES, "sub", size=7)
    assert content(tmp_path) == FILES
    found = look(tmp_path, FILES, "sub")
    assert (found["differing"], found["extra"]) == ([], 0) and found["room"] > 0


def test_a_hole_takes_no_room_and_all_can_read(tmp_path: Path) -> None:
    take(tmp_path, FILES, "sub")
    about = (tmp_path / "hole").stat()
    assert about.st_blocks == 0 and about.st_mode & 0o7777 == 0o644 and about.st_mtime_ns == TIME
    assert (tmp_path / "sub").stat().st_mode & 0o7777 == 0o755


def test_what_is_not_wanted_goes_and_a_file_may_become_a_folder(tmp_path: Path) -> None:
    take(tmp_path, {"x": b"1", "old/deep/y": b"2", "z": b"3"}, "old", "old/deep")
    (tmp_path / mirror.INCOMING).write_text("of a run that was cut off")
    changed = {"x/inner": b"4", "old": b"5", "z": b"3"}
    found = look(tmp_path, changed, "x")
    assert found["differing"] == [0, 1] and found["extra"] == 6
    take(tmp_path, changed, "x", contents=b"45")
    assert content(tmp_path) == changed


def test_what_is_cut_off_leaves_the_old_file(tmp_path: Path) -> None:
    take(tmp_path, {"a": b"old"})
    os.utime(tmp_path / "a", (1, 1))
    with pytest.raises(SystemExit, match="cut off"):
        take(tmp_path, {"a": b"newer"}, contents=b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert look(tmp_path, {"a": b"newer"})["differing"] == [0]


def test_a_link_in_its_place_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (root := tmp_path / "root").mkdir()
    (tmp_path / "other").write_text("mine")
    (root / "a").symlink_to(tmp_path / "other")
    take(root, {"a": b"new"})
    assert not (root / "a").is_symlink() and (tmp_path / "other").read_text() == "mine"


def test_two_runs_at_once_do_not_mix_what_they_send(tmp_path: Path) -> None:
    late = stream({"a": b"1", "b": b"2"}, [], b"12", [0, 1])
    take(tmp_path, {"a": b"1"})
    with pytest.raises(SystemExit, match="changed it meanwhile"):
        mirror.main([late], str(tmp_path), "take")
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(SystemExit, match="another run is writing"):
        take(tmp_path, {"a": b"23"})
    os.close(held)
    assert content(tmp_path) == {"a": b"1"}


def test_some_of_the_disk_is_left_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    take(tmp_path, {"old": b"12345"})
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_blocks=2000, f_bavail=150, f_frsize=1))
    assert look(tmp_path, {"a": b"1"})["room"] == 150 - 100 + 5  # what goes makes room


# --- room in the students' folders -----------------------------------------------------------


def test_what_is_in_its_place_is_renamed_unless_it_is_an_empty_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [tmp_path / name for name in ("none", "empty", "file", "full", "link", "twice")]
    for folder in folders:
        folder.mkdir()
    _, empty, file, full, link, twice = folders
    (empty / "shared").mkdir()
    (file / "shared").write_text("mine")
    (full / "shared").mkdir()
    (full / "shared/x").write_text("x")
    (link / "shared").symlink_to("/etc")
    (twice / "shared").write_text("2")
    (twice / "shared (own)").write_text("1")
    make_room.main([], "shared", *map(str, folders))
    assert capsys.readouterr().out.split() == ["2", "3", "4", "5"]
    assert (file / "shared (own)").read_text() == "mine" and (full / "shared (own)/x").exists()
    assert (link / "shared (own)").is_symlink() and (twice / "shared (own 2)").read_text() == "2"
    assert not any(os.path.lexists(folder / "shared") for folder in folders)
