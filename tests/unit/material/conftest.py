from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fake_api import FakeApi


@pytest.fixture
def api(tmp_path: Path) -> FakeApi:
    """An engine whose volumes are folders of this computer, on which real programs run."""
    api = FakeApi()
    api.disk = tmp_path / "volumes"
    return api
