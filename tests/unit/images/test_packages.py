from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudscale.errors import ImageError
from cloudscale.images import packages
from cloudscale.images.packages import fetch_debs, fetch_locked, fetch_wheels, make_debian

Answer = subprocess.CompletedProcess[str]

CONFLICT = """\
Looking in indexes: https://pypi.org/simple

The conflict is caused by:
    The user requested numpy<2
    The user requested (constraint) numpy==2.5.5

To fix this you could try to:
1. loosen the range of package versions you've specified
"""
CONFLICTS = """\
WARNING: Retrying
ERROR: Cannot install numpy<2 because these package versions have conflicting dependencies.
ERROR: ResolutionImpossible: for help visit https://pip.pypa.io
"""


OTHER_HASH = """\
ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE. If you have updated the package versions, …
    wrapt==2.5.2 from https://files.example/wrapt-2.5.2-cp313-cp313-manylinux_2_28_x86_64.whl:
        Expected sha256 8b03
             Got        3b49
"""


class Programs:
    """The programs of this computer. pip downloads the files in `has`, and builds wheels of `sdists`."""

    def __init__(self) -> None:
        self.commands: list[list[str]] = []
        self.has = ["numpy-2.5.5-cp313-cp313-manylinux_2_28_x86_64.whl", "folium-0.20-py3-none-any.whl"]
        self.sdists: dict[str, str] = {}  # requirement → the wheel that is built of it, or the error
        self.debs = ["java_21%3a1_amd64.deb"]
        self.outcome: Exception | Answer | None = None
        self.read: dict[str, str] = {}

    def run(self, command: list[str], **settings: Any) -> Answer:
        assert settings["timeout"] > 0
        self.commands.append(command)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if self.outcome:
            return self.outcome
        answer: Callable[[list[str]], Answer] = {
            "download": self._download,
            "wheel": self._wheel,
        }.get(command[3], self._apt if command[0] == "apt-get" else self._nothing)
        return answer(command)

    def _nothing(self, command: list[str]) -> Answer:
        return subprocess.CompletedProcess(command, 0, "", "")

    def _download(self, command: list[str]) -> Answer:
        target = Path(command[command.index("--dest") + 1])
        if "--constraint" in command:
            self.read["constraints"] = Path(command[command.index("--constraint") + 1]).read_text()
        for requirement in self.sdists:
            name = requirement.partition("=")[0]
            if "--only-binary=:all:" in command and not list(target.glob(f"{name}-*")):
                error = f"ERROR: No matching distribution found for {requirement} (from folium)\n"
                return subprocess.CompletedProcess(command, 1, "", error)
        for name in self.has:
            (target / name).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    def _wheel(self, command: list[str]) -> Answer:
        wheel = self.sdists[command[-1].rpartition("/")[2]]
        if not wheel.endswith(".whl"):
            return subprocess.CompletedProcess(command, 1, "", wheel)
        (Path(command[command.index("--wheel-dir") + 1]) / wheel).touch()
        return subprocess.CompletedProcess(command, 0, "", "")

    def _apt(self, command: list[str]) -> Answer:
        settings = dict(word[2:].split("=", 1) for word in command if word.startswith("-o"))
        self.read = {
            "status": Path(settings["Dir::State::status"]).read_text(),
            "sources": Path(settings["Dir::Etc::sourcelist"]).read_text(),
        }
        if "install" in command:
            for name in self.debs:
                (Path(settings["Dir::Cache::archives"]) / name).touch()
        return subprocess.CompletedProcess(command, 0, "", "")


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Programs:
    programs = Programs()
    monkeypatch.setattr(subprocess, "run", programs.run)
    monkeypatch.setattr(shutil, "which", lambda name: name)
    return programs


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    file = tmp_path / "list.txt"
    file.write_text("one\ntwo\n")
    return file


# --- Debian ----------------------------------------------------------------------------------


def test_a_debian_is_made_with_the_packages_of_the_list(programs: Programs, listed: Path, tmp_path: Path) -> None:
    make_debian(tmp_path / "base.tar", listed)
    (command,) = programs.commands
    assert command[0] == "mmdebstrap" and "--include=one,two" in command
    assert command[-2:] == [packages.SUITE, str(tmp_path / "base.tar")]


def test_without_mmdebstrap_the_error_says_what_to_install(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, listed: Path
) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ImageError, match="apt-get install mmdebstrap"):
        make_debian(listed.with_suffix(".tar"), listed)


def test_apt_gets_the_files_of_the_image_and_none_of_this_computer(
    programs: Programs, listed: Path, tmp_path: Path
) -> None:
    target = tmp_path / "debs"
    fetch_debs(listed, status="Package: libc6\n", sources="deb x\n", architecture="amd64", target=target)
    assert programs.read == {"status": "Package: libc6\n", "sources": "deb x\n"}
    update, install = programs.commands
    assert update[-1] == "update" and install[-2:] == ["one", "two"] and "--download-only" in install
    assert "-oAPT::Architecture=amd64" in install
    assert [path.name for path in target.iterdir()] == programs.debs


def test_if_the_image_has_all_packages_nothing_is_downloaded(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.debs = []
    fetch_debs(listed, status="", sources="", architecture="amd64", target=tmp_path / "debs")
    assert not (tmp_path / "debs").exists()


# --- Python ----------------------------------------------------------------------------------


def test_the_wheels_are_for_the_images_python_not_for_this_one(
    programs: Programs, listed: Path, tmp_path: Path
) -> None:
    assert fetch_wheels(listed, tmp_path / "wheels", "x86_64", {}) == {"numpy": "2.5.5", "folium": "0.20"}
    fetch_locked(listed, tmp_path / "locked", "x86_64")
    for command in programs.commands:
        assert f"--python-version={packages.PYTHON}" in command and "--platform=manylinux2014_x86_64" in command
        assert not any("index" in word or "proxy" in word for word in command)
    trainers, own = programs.commands
    assert "--only-binary=:all:" in trainers and "--require-hashes" not in trainers
    assert {"--no-deps", "--require-hashes"} <= set(own)


def test_installed_packages_keep_their_versions_and_are_not_downloaded_again(
    programs: Programs, listed: Path, tmp_path: Path
) -> None:
    installed = {"NumPy": "2.5.5", "zope.interface": "1"}
    assert fetch_wheels(listed, tmp_path / "wheels", "x86_64", installed) == {"folium": "0.20"}
    assert programs.read["constraints"] == "NumPy==2.5.5\nzope.interface==1\n"
    assert "--no-deps" not in programs.commands[0]
    assert [path.name for path in (tmp_path / "wheels").iterdir()] == ["folium-0.20-py3-none-any.whl"]


def test_a_wheel_is_built_of_a_pure_python_package_that_has_none(
    programs: Programs, listed: Path, tmp_path: Path
) -> None:
    programs.sdists = {"pyspark==4.3.0": "pyspark-4.3.0-py2.py3-none-any.whl", "odd==1": "odd-1-py3-none-any.whl"}
    versions = fetch_wheels(listed, tmp_path / "wheels", "x86_64", {})
    assert (versions["pyspark"], versions["odd"]) == ("4.3.0", "1")
    assert [command[3] for command in programs.commands] == ["download", "wheel", "download", "wheel", "download"]


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ("fast-1-cp311-cp311-linux_x86_64.whl", "must be compiled"),
        ("ERROR: No matching distribution found for fast==1", "building one failed: ERROR: No matching"),
    ],
)
def test_any_other_package_without_a_wheel_is_reported_by_name(
    programs: Programs, listed: Path, tmp_path: Path, made: str, message: str
) -> None:
    programs.sdists = {"fast==1": made}
    with pytest.raises(ImageError, match=f"^fast==1: .*{message}"):
        fetch_wheels(listed, tmp_path / "wheels", "x86_64", {})


def test_a_download_that_is_not_a_wheel_is_reported_by_name(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.has = ["folium.zip"]
    with pytest.raises(ImageError, match=r"folium\.zip"):
        fetch_wheels(listed, tmp_path / "wheels", "x86_64", {})


def test_a_conflict_is_reported_with_the_packages_in_it(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.outcome = subprocess.CompletedProcess([], 1, CONFLICT, CONFLICTS)
    with pytest.raises(ImageError) as raised:
        fetch_wheels(listed, tmp_path / "wheels", "x86_64", {"numpy": "2.5.5"})
    assert raised.value.message == (
        "pip download failed: ERROR: Cannot install numpy<2 because these package versions have conflicting"
        " dependencies. / The user requested numpy<2"
        " / The user requested (constraint) numpy==2.5.5"
    )
    assert "network" not in raised.value.remedy


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (subprocess.CompletedProcess([], 1, "", "WARNING: old pip\nERROR: no route to host\n"), "no route to host"),
        (subprocess.TimeoutExpired([], 1800), "took more than 1800 s"),
        (FileNotFoundError(2, "No such file"), "No such file"),
    ],
    ids=["failed", "too long", "not installed"],
)
def test_a_download_that_fails_is_reported(
    programs: Programs, listed: Path, tmp_path: Path, outcome: Exception | Answer, message: str
) -> None:
    programs.outcome = outcome
    with pytest.raises(ImageError, match=message) as raised:
        fetch_locked(listed, tmp_path / "wheels", "x86_64")
    assert "old pip" not in raised.value.message


def test_pins_get_the_hashes_of_the_wheels_that_are_installed(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.has = ["folium-0.20-py3-none-any.whl", "pyspark-4.3.0.tar.gz"]
    programs.sdists = {"pyspark-4.3.0.tar.gz": "pyspark-4.3.0-py2.py3-none-any.whl"}
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert fetch_locked(listed, tmp_path / "wheels", "x86_64").splitlines() == [
        f"folium==0.20 --hash=sha256:{empty}",
        f"pyspark==4.3.0 --hash=sha256:{empty}",
    ]
    assert sorted(path.name for path in (tmp_path / "wheels").iterdir()) == [
        "folium-0.20-py3-none-any.whl",
        "pyspark-4.3.0-py2.py3-none-any.whl",
    ]


def test_a_file_with_another_hash_is_reported(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.outcome = subprocess.CompletedProcess([], 1, "", OTHER_HASH)
    with pytest.raises(ImageError) as raised:
        fetch_locked(listed, tmp_path / "wheels", "x86_64")
    assert "Expected sha256 8b03 / Got        3b49" in raised.value.message
    assert "pip config list" in raised.value.remedy


def test_a_wheels_name_has_package_and_version(programs: Programs, listed: Path, tmp_path: Path) -> None:
    programs.has = [
        "scikit_learn-1.9.1-cp313-cp313-manylinux_2_27_x86_64.manylinux_2_28_x86_64.whl",
        "Zope.X-1+a-1-py3-none-any.whl",
    ]
    versions = fetch_wheels(listed, tmp_path / "wheels", "x86_64", {})
    assert versions == {"scikit-learn": "1.9.1", "zope-x": "1+a"}
