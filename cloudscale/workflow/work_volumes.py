"""Volumes of the cloud with the students' work, which outlive their machines: what a reset has to know of them."""

from __future__ import annotations

from collections.abc import Sequence

from cloudscale.drivers.protocols import KeepsWork
from cloudscale.errors import CloudscaleError
from cloudscale.model import WorkVolume


def work_volumes(driver: object) -> Sequence[WorkVolume]:
    return driver.work_volumes() if isinstance(driver, KeepsWork) else ()


def delete_question(volumes: Sequence[WorkVolume], course: str, *, more: bool) -> str:
    what = f"{len(volumes)} volumes with the students' work of the course {course!r}"
    return f"Also delete the {what}, for good?" if more else f"Delete {what}, for good?"


def check_attached(volumes: Sequence[WorkVolume]) -> None:
    """Raises CloudscaleError where work was to be collected first, and is on volumes that no machine has."""
    if detached := [volume.name for volume in volumes if volume.is_used and not volume.is_attached]:
        raise CloudscaleError(
            f"Nothing was removed: no machine has {', '.join(detached)}, so the work there can't be collected.",
            "invoke themachine makes the machines again, with it. Or run again without --collect: then it is lost.",
        )
