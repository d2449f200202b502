"""Certificate authorities of two courses."""

from __future__ import annotations

from pathlib import Path

import pytest

from cloudscale.engines.certificates import Authority
from tests.unit.engines.authorities import made


@pytest.fixture
def bio(tmp_path: Path) -> Authority:
    return made(tmp_path / "bio")


@pytest.fixture
def geo(tmp_path: Path) -> Authority:
    """Another course's."""
    return made(tmp_path / "geo", "geo")
