"""What is distributed: files, folders and repositories, and what of them is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from cloudscale.errors import RequestError
from cloudscale.material import sources
from cloudscale.material.sources import Material
from tests.lab.repositories import commit, git


def found(source: object, **flags: Any) -> Material:
    with sources.opened(str(source), **flags) as material:
        for file in material.files:
            data = file.source.read_bytes()
            assert (file.size, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        return material


def paths(material: Material) -> list[str]:
    return [file.path for file in material.files]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "material"
    (made / "data/deep").mkdir(parents=True)
    (made / "lesson.ipynb").write_text("{}")
    (made / "data/deep/a.csv").write_text("1,2")
    (made / "run.sh").write_text("#!/bin/sh")
    (made / "run.sh").chmod(0o755)
    return made


def test_a_folders_content_is_found_with_its_folders(folder: Path) -> None:
    (folder / "empty").mkdir()
    material = found(folder)
    assert paths(material) == ["data/deep/a.csv", "lesson.ipynb", "run.sh"]
    assert material.folders == ("data", "data/deep", "empty")
    assert [file.is_program for file in material.files] == [False, False, True]
    assert material.size == 14 and not material.commit


def test_a_file_has_its_own_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert paths(found(folder / "lesson.ipynb")) == ["lesson.ipynb"]
    (folder.parent / "link.ipynb").symlink_to(folder / "lesson.ipynb")
    assert paths(found(folder.parent / "link.ipynb")) == ["link.ipynb"]
    monkeypatch.chdir(folder / "data")
    assert paths(found(".")) == ["deep/a.csv"] and paths(found("deep/..")) == ["deep/a.csv"]


def test_what_is_no_material_is_left_out(folder: Path) -> None:
    for name in (".git", ".ipynb_checkpoints", "data/__pycache__"):
        (folder / name).mkdir()
        (folder / name / "x").write_text("x")
    (folder / ".cloudscale-material").write_text("x")
    assert paths(found(folder)) == ["data/deep/a.csv", "lesson.ipynb", "run.sh"]


def test_a_link_that_stays_inside_is_what_it_leads_to(folder: Path) -> None:
    (folder / "a.csv").symlink_to("data/deep/a.csv")
    (folder / "more").symlink_to("data")
    assert {"a.csv", "more/deep/a.csv"} < {*paths(found(folder))}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/etc/passwd", "leads out of"),
        ("../other", "leads out of"),
        ("nothing", "leads nowhere"),
        ("loop", "leads nowhere"),
        (".", "leads to a folder that it is in"),
        (".git/config", "leads out of"),
    ],
)
def test_any_other_link_is_refused_by_name(folder: Path, target: str, expected: str) -> None:
    (folder / ".git").mkdir()
    (folder / ".git/config").write_text("x")
    (folder.parent / "other").write_text("x")
    (folder / "loop").symlink_to(target)
    with pytest.raises(RequestError, match=f"The link loop {expected}"):
        found(folder)


def test_a_link_in_a_circle_is_refused(folder: Path) -> None:
    (folder / "data/deep/up").symlink_to("..")
    with pytest.raises(RequestError, match="link data/deep/up leads to a folder that it is in"):
        found(folder)


def test_what_is_no_file_is_refused_by_name(folder: Path) -> None:
    os.mkfifo(folder / "data/pipe")
    with pytest.raises(RequestError, match="data/pipe is no file"):
        found(folder)


@pytest.mark.parametrize("name", ["a\nb", "a\x1bb", b"a\xff", "\u202ea", "a\tb"])
def test_a_name_that_no_student_can_have_is_refused(folder: Path, name: str | bytes) -> None:
    with open(os.path.join(os.fsencode(folder), os.fsencode(name)), "w"):
        pass
    with pytest.raises(RequestError, match="The name of"):
        found(folder)


def test_a_path_has_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "LONGEST_PATH", 12)
    with pytest.raises(RequestError, match="too long"):
        found(folder)


def test_the_number_of_files_has_an_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_FILES", 2)
    with pytest.raises(RequestError, match="More than 2 files"):
        found(folder)


def test_what_does_not_exist_or_is_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="does not exist"):
        found(tmp_path / "none")
    for name in ("~nobody-has-this-name/x", "x" * 5000):
        with pytest.raises(RequestError):
            found(name)
    (tmp_path / "empty/inner").mkdir(parents=True)
    with pytest.raises(RequestError, match="has no files"):
        found(tmp_path / "empty")


def test_what_can_not_be_read_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: object) -> object:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "listdir", closed)
    with pytest.raises(RequestError, match=r"material can't be read: Permission denied"):
        found(folder)


def test_a_pointer_of_git_lfs_is_no_file(folder: Path) -> None:
    (folder / "big.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:aa\nsize 9\n")
    with pytest.raises(RequestError, match=r"big.csv is kept in Git LFS"):
        found(folder)


# --- repositories ----------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path, processes: None) -> Path:
    commit(tmp_path / "course", {"lesson.txt": "one", "day1/a.txt": "a"})
    return tmp_path / "course"


def test_a_repository_is_fetched_and_its_copy_removed(repository: Path) -> None:
    with sources.opened(repository.as_uri()) as material:
        assert paths(material) == ["day1/a.txt", "lesson.txt"]
        assert material.commit == git(repository, "rev-parse", "--short", "HEAD")
        copy = material.files[0].source
        assert copy.exists() and not copy.is_relative_to(repository)
    assert not copy.exists()


def test_a_part_of_it_is_its_content(repository: Path) -> None:
    assert paths(found(repository.as_uri(), path="day1")) == ["a.txt"]
    assert paths(found(repository.as_uri(), path="day1/a.txt")) == ["a.txt"]
    for path in ("day2", ".git", ".git/config"):
        with pytest.raises(RequestError, match="has no file or folder"):
            found(repository.as_uri(), path=path)


def test_a_hostile_repository_has_no_files_of_this_computer(repository: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("x")
    (repository / "out").symlink_to(secret)
    (repository / "above").symlink_to("..")
    commit(repository, {})
    with pytest.raises(RequestError, match=r"link \w+ leads out of"):
        found(repository.as_uri())
    for path in ("out", "above", "above/secret.txt"):
        with pytest.raises(RequestError, match="has no file or folder"):
            found(repository.as_uri(), path=path)


def test_a_folder_that_is_a_working_copy_is_taken_as_it_is(repository: Path) -> None:
    (repository / "draft.txt").write_text("not committed")
    assert "draft.txt" in paths(found(repository))
    assert "draft.txt" not in paths(found(repository, branch="main"))


def test_a_bare_repository_on_this_computer_is_fetched(repository: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "-q", "--bare", str(repository), "bare.git")
    shutil.rmtree(repository)
    assert paths(found(tmp_path / "bare.git")) == ["day1/a.txt", "lesson.txt"]


def test_branch_and_path_are_for_repositories(folder: Path) -> None:
    for flags in ({"branch": "main"}, {"path": "data"}):
        with pytest.raises(RequestError, match="--branch and --path are for a git repository"):
            found(folder, **flags)
