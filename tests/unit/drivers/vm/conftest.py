"""Fixtures: a course of VMs on a hypervisor in memory, and stand-ins for the programs of QEMU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.conftest import Walls
from tests.unit.drivers.vm.fake_hypervisor import QemuPrograms, VmTestbed


@pytest.fixture(name="testbed")
def vm_testbed_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> VmTestbed:
    return VmTestbed(monkeypatch, tmp_path)


@pytest.fixture(name="qemu_programs")
def qemu_programs_fixture(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, walls: Walls) -> Iterator[QemuPrograms]:
    walls.processes = True
    walls.reachable = lambda address: isinstance(address, str)  # Unix sockets
    programs = QemuPrograms(tmp_path / "qemu", monkeypatch)
    yield programs
    programs.end()
