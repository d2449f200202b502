"""Authorities of courses, as a launch makes them."""

from __future__ import annotations

from pathlib import Path

from cloudscale.engines.certificates import Authority, authority


def made(folder: Path, course: str = "bio") -> Authority:
    signer = authority(folder, course)
    assert signer
    return signer
