"""Classes on machines that are made for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.fake_cloud import CloudClass


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> CloudClass:
    """A class for which no machine is made yet."""
    return CloudClass(monkeypatch, tmp_path)
