"""Fixtures: a stand-in for a cloud, and openstacksdk that is logged in to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openstack.connection import Connection

from tests.lab.stand_in import StandIn
from tests.unit.drivers.openstack.stand_in_cloud import connect, nothing_else


@pytest.fixture(name="stand_in")
def listening_fixture(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    nothing_else(monkeypatch)
    with StandIn() as stand_in:
        yield stand_in
    assert not stand_in.violations


@pytest.fixture(name="cloud")
def connected_fixture(stand_in: StandIn, tmp_path: Path) -> Iterator[Connection]:
    connection = connect(stand_in, tmp_path)
    yield connection
    connection.close()
