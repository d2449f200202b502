"""Control groups of the lab's own: one in each hierarchy, so that what it starts shares none with the machine."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

ENDING = 30  # seconds


def control_groups(name: str) -> list[Path]:
    """Where a group of this name is, or would be, in each hierarchy."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    return [Path(mount[1]) / name for mount in mounts if mount[2] in ("cgroup", "cgroup2")]


def make_control_groups(name: str) -> list[Path]:
    groups = control_groups(name)
    for group in groups:
        group.mkdir(exist_ok=True)
        for limit in group.glob("cpuset.[cm][pe][um]s"):  # in version 1 they are empty, and let nothing in
            if not limit.read_text().strip():
                limit.write_text((group.parent / limit.name).read_text())
    return groups


def remove_control_groups(name: str) -> None:
    """Removes those of this name (or pattern), and what is below. Raises RuntimeError if a process is in one."""
    deadline = time.monotonic() + ENDING
    while left := [path for group in control_groups(name) for path in group.parent.glob(f"{group.name}/**/")]:
        if time.monotonic() > deadline:
            raise RuntimeError(f"These control groups can't be removed: {' '.join(map(str, left))}")
        for path in sorted(left, reverse=True):
            with contextlib.suppress(OSError):  # who has just been killed may still count
                path.rmdir()
