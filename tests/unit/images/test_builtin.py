"""The scripts inside the images: how much of a seat's memory Spark uses."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from cloudscale.images.recipes import RECIPES

MIB = 1 << 20
NO_LIMIT = 9223372036854771712  # the value in version 1 of control groups
VERSION_1, VERSION_2 = "sys/fs/cgroup/memory/memory.limit_in_bytes", "sys/fs/cgroup/memory.max"

pytestmark = pytest.mark.usefixtures("processes")


def heap(root: Path, **environment: str) -> str:
    """The driver's memory that spark-env.sh chooses; `root` has the seat's files in /proc and /sys."""
    (root / "proc").mkdir(exist_ok=True)
    (root / "proc/meminfo").write_text(f"MemTotal:       {16 << 20} kB\nMemFree:        1 kB\n")
    script = (RECIPES / "spark/conf/spark-env.sh").read_text()
    for folder in ("/sys/", "/proc/"):
        script = script.replace(f" {folder}", f" {root}{folder}")
    done = subprocess.run(
        ["bash", "-euc", f'{script}\necho "$SPARK_DRIVER_MEMORY"'],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("file", [VERSION_1, VERSION_2])
@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (2048 * MIB, "1024m"),
        (1024 * MIB, "512m"),
        (512 * MIB, "480m"),  # the least that Spark starts with
        (64 * 1024 * MIB, "8192m"),  # more than the machine has
        (NO_LIMIT, "8192m"),
        ("max", "8192m"),
    ],
)
def test_half_of_the_limit_is_for_sparks_heap(tmp_path: Path, file: str, limit: object, expected: str) -> None:
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(f"{limit}\n")
    assert heap(tmp_path) == expected


def test_without_control_groups_the_machine_is_the_limit(tmp_path: Path) -> None:
    assert heap(tmp_path) == "8192m"


def test_a_memory_that_the_user_chose_stays(tmp_path: Path) -> None:
    assert heap(tmp_path, SPARK_DRIVER_MEMORY="700m") == "700m"
