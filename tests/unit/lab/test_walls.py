"""The ring can't reach the outside world."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit.conftest import OutsideWorldError, Walls


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX])
def test_no_socket_connects(walls: Walls, family: socket.AddressFamily) -> None:
    with socket.socket(family) as unconnected:
        for connect in (unconnected.connect, unconnected.connect_ex):
            with pytest.raises(OutsideWorldError):
                connect(("127.0.0.1", 1))
    assert len(walls.breaches) == 2
    walls.breaches.clear()


def test_no_name_is_looked_up(walls: Walls) -> None:
    with pytest.raises(OutsideWorldError):
        socket.create_connection(("localhost", 1))
    assert walls.breaches == ["look up localhost"]
    walls.breaches.clear()


def test_no_process_starts(walls: Walls) -> None:
    with pytest.raises(OutsideWorldError):
        subprocess.run(["true"], check=False)
    assert walls.breaches == ["start ['true']"]
    walls.breaches.clear()


HOME = Path(pwd.getpwuid(os.getuid()).pw_dir)
OWN_FILES = [
    *map(
        Path, ("/run/docker.pid", "/run/docker.sock", "/var/run/docker.sock", "/etc/docker", "/etc/docker/daemon.json")
    ),
    *map(Path, ("/var/lib/docker/volumes", "/var/lib/cloudscale", "/var/lib/cloudscale/engine.json")),
    *(HOME / ".ssh", HOME / ".ssh/known_hosts"),
]
ABSENT = "no-such-file"  # what a wall with a hole would change


def opened(*args: Any, **kwargs: Any) -> None:
    with open(*args, **kwargs):
        pass


LOOKS: dict[str, Callable[[Path], object]] = {
    "exists": lambda path: path.exists(),
    "is_file": lambda path: path.is_file(),
    "read_text": lambda path: path.read_text(),
    "write_bytes": lambda path: (path / ABSENT).write_bytes(b""),
    "open": lambda path: path.open(),
    "open, built in": opened,
    "open, of text": lambda path: opened(str(path)),
    "open, of bytes": lambda path: opened(os.fsencode(path), "rb"),
    "open, by keyword": lambda path: opened(file=path),
    "open, of os": lambda path: os.open(path, os.O_RDONLY),
    "access": lambda path: os.access(path, os.R_OK),
    "stat": lambda path: os.stat(path),
    "lstat": lambda path: os.lstat(path),
    "os.path": lambda path: os.path.exists(path),
    "listdir": lambda path: os.listdir(path),
    "scandir": lambda path: os.scandir(path),
    "iterdir": lambda path: list(path.iterdir()),
    "mkdir": lambda path: (path / ABSENT).mkdir(),
    "unlink": lambda path: (path / ABSENT).unlink(),
    "remove": lambda path: os.remove(path / ABSENT),
    "copy": lambda path: shutil.copy(path, path / ABSENT),
}


@pytest.mark.parametrize("look", LOOKS)
def test_no_state_of_this_machine_is_touched(walls: Walls, look: str) -> None:
    for path in OWN_FILES:
        with pytest.raises(OutsideWorldError, match=str(path)):
            LOOKS[look](path)
    assert len(walls.breaches) == len(OWN_FILES)
    walls.breaches.clear()


@pytest.mark.parametrize("path", ["run/docker.pid", "etc/docker/daemon.json", ".ssh/known_hosts"])
def test_files_of_a_test_may_have_the_same_names(tmp_path: Path, path: str) -> None:
    own = tmp_path / path
    own.parent.mkdir(parents=True)
    own.write_text("own")
    assert (own.exists(), own.read_text(), os.listdir(own.parent)) == (True, "own", [own.name])
    (tmp_path / "link").symlink_to(own)
    shutil.copytree(tmp_path, tmp_path / "copy", symlinks=True, ignore=lambda *_: ["copy"])
    assert (tmp_path / "copy" / path).read_text() == "own"
    assert (tmp_path / "copy" / "link").is_symlink()
    own.unlink()


def test_the_state_folder_and_the_users_folder_are_the_tests_own(tmp_path: Path) -> None:
    assert os.environ["CLOUDSCALE_HOME"] == str(tmp_path)
    assert Path.home().parent == tmp_path
    assert not Path("~/.ssh").expanduser().exists()
