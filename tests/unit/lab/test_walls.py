"""The ring can't reach the world."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path

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


def test_the_state_folder_is_the_tests_own(tmp_path: Path) -> None:
    assert os.environ["CLOUDSCALE_HOME"] == str(tmp_path)
