"""Tests of cloudscale.scripts."""

from __future__ import annotations

import pytest

from cloudscale.scripts import script


def test_a_package_has_its_own() -> None:
    assert script("hosts", "facts.sh").startswith("#!/bin/sh") or "cloudscale" in script("hosts", "facts.sh")
    with pytest.raises(FileNotFoundError):
        script("seats", "facts.sh")


def test_all_get_the_same_text() -> None:
    assert script("engines", "engine-up.sh") is script("engines", "engine-up.sh")
