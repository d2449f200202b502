"""The lock files in requirements/ follow pyproject.toml: script/lock writes them."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]
RUNTIME, TEST = "runtime.txt", "test.txt"


def locked(file: str) -> dict[str, str]:
    """Library → its release."""
    text = (PROJECT / "requirements" / file).read_text()
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", text, re.MULTILINE))


def described() -> dict[str, list[str]]:
    """File → the ranges that its releases are chosen from."""
    project: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    runtime = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    return {RUNTIME: runtime, TEST: runtime + project["project"]["optional-dependencies"]["test"]}


@pytest.mark.parametrize("file", [RUNTIME, TEST])
def test_each_library_is_locked_in_a_release_of_its_range(file: str) -> None:
    releases = locked(file)
    for line in described()[file]:
        requirement = Requirement(line)
        assert releases[canonicalize_name(requirement.name)] in requirement.specifier, f"{line}: run script/lock"


def test_the_tests_run_with_the_releases_that_users_get() -> None:
    assert locked(RUNTIME).items() <= locked(TEST).items()
