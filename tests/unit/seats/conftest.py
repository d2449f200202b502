"""What the tests of seats share."""

from __future__ import annotations

import pytest

from tests.unit.seats.services import Swarm


@pytest.fixture
def swarm() -> Swarm:
    """The course bio on one fake engine."""
    return Swarm()
