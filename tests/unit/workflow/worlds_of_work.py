"""Classes whose volumes are folders of this computer, so that their work can be collected."""

from __future__ import annotations

from pathlib import Path

from tests.unit.classroom import Class


def with_disks(lab: Class, tmp_path: Path) -> Class:
    for api in lab.apis:
        api.disk = tmp_path / "disks" / api.name
    return lab


def work_of(lab: Class, student: str) -> Path:
    """What is in a student's volume."""
    (found,) = (
        api.folder(name)
        for api in lab.apis
        for name, volume in api.volumes_.items()
        if volume["Labels"].get("cloudscale.student") == student
    )
    return found
