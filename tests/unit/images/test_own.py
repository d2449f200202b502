"""A trainer's folder as it comes: with comments, quotation marks, and files of other tools."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.errors import RequestError
from cloudscale.images.own import check, debian_packages, unused


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "requirements.txt").write_text("tabulate\n")
    return tmp_path


# --- Debian packages -------------------------------------------------------------------------


def test_apt_txt_counts_like_packages_txt(folder: Path) -> None:
    (folder / "apt.txt").write_text("tree\nfile\n")
    assert debian_packages(folder) == ["tree", "file"]
    (folder / "packages.txt").write_text("graphviz\ntree\n")
    assert debian_packages(folder) == ["graphviz", "tree", "file"]


@pytest.mark.parametrize("name", ["packages.txt", "apt.txt"])
@pytest.mark.parametrize(
    ("text", "packages"),
    [
        ("# for the lesson on files\ntree \n\nfile # magic\n", ["tree", "file"]),
        ("tree file\r\n  g++-13\t#compiler\r\n", ["tree", "file", "g++-13"]),
        ("#\n   # only this\n", []),
        ("", []),
        ("\ufefftree\n", ["tree"]),
        ("libc6:amd64\npython3=3.13.5-1\nvim/trixie-backports\nlibstdc++6", None),
    ],
)
def test_comments_and_blank_lines_are_no_packages(
    folder: Path, name: str, text: str, packages: list[str] | None
) -> None:
    (folder / name).write_text(text)
    assert debian_packages(folder) == (text.split() if packages is None else packages)


@pytest.mark.parametrize("line", ['"tree"', "-y", "Tree", "tree;", "$(id)", "../x", "tree,"])
def test_what_is_no_package_is_named_with_its_line(folder: Path, line: str) -> None:
    (folder / "apt.txt").write_text(f"# tools\nfile\n{line}\n")
    with pytest.raises(RequestError, match=r"apt\.txt, line 3"):
        check(folder)


# --- requirements ----------------------------------------------------------------------------

GOOD = """\
# the course's
numpy
pandas>=2,<4   # comment
scikit-learn[extra] == 1.5
requests ; python_version < "4"
tabulate==0.9 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
-r more.txt
--index-url https://example.org/simple
-e ./local
git+https://example.org/x.git@v1#egg=x
x @ https://example.org/x.whl
./wheels/y-1-py3-none-any.whl
y-1-py3-none-any.whl
libs/z
https://${HOST}/q.tar.gz
"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_whatever_pip_takes_is_taken(folder: Path, encoding: str) -> None:
    (folder / "requirements.txt").write_text(GOOD, encoding=encoding, newline="\r\n")
    check(folder)


@pytest.mark.parametrize(
    ("line", "remedy"),
    [
        ('"tabulate>=0.8"', "quotation marks"),
        ("'tabulate'", "quotation marks"),
        ("“tabulate”", "quotation marks"),
        ("numpy=1.26", "NAME==VERSION"),
        ("numpy 1.26", "NAME==VERSION"),
        ("pip install numpy", "NAME==VERSION"),
        ("numpy, pandas", "NAME==VERSION"),
        ("numpy>=", "NAME==VERSION"),
    ],
)
def test_what_pip_would_refuse_is_named_with_its_line(folder: Path, line: str, remedy: str) -> None:
    (folder / "requirements.txt").write_text(f"# first\n\ntabulate\n{line}\n")
    with pytest.raises(RequestError, match=r"requirements\.txt, line 4") as raised:
        check(folder)
    assert line.strip("\"'") in raised.value.message
    assert remedy in raised.value.remedy


def test_a_line_that_is_continued_has_the_number_of_its_beginning(folder: Path) -> None:
    (folder / "requirements.txt").write_text("a\nb \\\n  !\nc")
    with pytest.raises(RequestError, match="line 2"):
        check(folder)


def test_a_folder_without_a_list_names_what_is_there_instead(tmp_path: Path) -> None:
    (tmp_path / "environment.yml").touch()
    with pytest.raises(RequestError, match=r"Not used: environment\.yml"):
        check(tmp_path)
    with pytest.raises(RequestError, match="There is no such folder"):
        check(tmp_path / "missing")


# --- what is not used ------------------------------------------------------------------------


def test_what_is_not_used_is_said(folder: Path) -> None:
    assert unused(folder) == ""
    (folder / "apt.txt").touch()
    (folder / "more.txt").touch()
    assert unused(folder) == ""
    for name in ("environment.yml", "postBuild", "runtime.txt", "setup.py", "lesson.ipynb"):
        (folder / name).touch()
    (folder / "binder").mkdir()
    said = unused(folder)
    assert "environment.yml, postBuild, runtime.txt, setup.py, binder, 1 other file or folder" in said
    assert "apt.txt" in said and "Dockerfile" in said
    assert "lesson" not in said


def test_a_dockerfile_uses_what_it_names(folder: Path) -> None:
    (folder / "apt.txt").write_text("not checked: it is the Dockerfile's")
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nRUN pip install x\n")
    check(folder)
    assert "does not use requirements.txt, apt.txt" in unused(folder)
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY requirements.txt apt.txt /tmp/\n")
    assert unused(folder) == ""
    (folder / "Dockerfile").write_text("ARG BASE\nFROM ${BASE}\nCOPY . /srv\n")
    assert unused(folder) == ""
