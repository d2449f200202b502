"""One course on three stock hosts (the driver `generic`), from an SSH key to a table, and back to bare hosts.

The files of this folder have it one after the other: what stands after the first run, what is done with it, and what
happens until its end. Their engines are of three ages, see `lab_hosts`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hosts.classroom import Classroom, generic_tool
from tests.hosts.conftest import STATE
from tests.lab.engine import LabEngine
from tests.lab.hosts import LabHosts


@pytest.fixture(scope="package")
def room(engine: LabEngine, image: str, lab_hosts: LabHosts) -> Iterator[Classroom]:
    home = STATE / "many"
    home.mkdir()
    hosts = [f"debian@{host.address}" for host in lab_hosts.hosts]
    made = Classroom(generic_tool(engine, lab_hosts, home, image, hosts), lab_hosts, home)
    yield made
    for host in lab_hosts.hosts:
        if not host.is_up():
            host.start()
    left = made.tool("driver_reset", "--yes")
    assert left.code == 0, left.err
