"""Tests of cloudscale.scripts."""

from __future__ import annotations

from pathlib import Path

import pytest

import cloudscale
from cloudscale.scripts import script


def test_a_package_has_its_own() -> None:
    room = Path(cloudscale.__file__).parent / "hosts"
    assert script("hosts", "facts.sh") == (room / "scripts/facts.sh").read_text(encoding="utf-8")
    with pytest.raises(FileNotFoundError):
        script("seats", "facts.sh")


def test_all_get_the_same_text() -> None:
    assert script("engines", "engine-up.sh") is script("engines", "engine-up.sh")
