"""The project's own rules of form, checked by the tools that know them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize("tool", ["ruff check --no-cache", "ruff format --check --no-cache", "mypy"])
def test_the_tools_find_nothing(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *tool.split()], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
