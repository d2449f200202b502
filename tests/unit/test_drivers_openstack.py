"""The package as a whole: who loads it, and for whom."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudscale.course import Course
from cloudscale.drivers import load_driver
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.settings import read_settings
from tests.unit.openstack_cloud import (  # noqa: F401 - fixtures
    COURSE,
    MARKS,
    OwnCloud,
    own_cloud_fixture,
    standing_fixture,
)

pytestmark = MARKS
PROJECT = Path(__file__).parents[2]


def imported(tmp_path: Path, *words: str) -> set[str]:
    """The libraries that a command line loads."""
    run = [sys.executable, "-X", "importtime", "-m", "invoke", "--search-root", str(PROJECT), *words]
    world = {**os.environ, "HOME": str(tmp_path), "DOCKER_HOST": f"unix://{tmp_path}/docker.sock"}
    done = subprocess.run(run, cwd=tmp_path, env=world, capture_output=True, text=True, check=False)
    assert "Traceback" not in done.stderr
    return set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))


@pytest.mark.usefixtures("processes")
def test_whoever_lists_the_tasks_does_not_wait_for_the_clouds_library(tmp_path: Path) -> None:
    loaded = imported(tmp_path, "--list")
    assert "invoke" in loaded
    assert not loaded & {"openstack", "keystoneauth1", "cloudscale.drivers.openstack"}


@pytest.mark.usefixtures("processes")
def test_nor_does_whoever_has_machines_of_another_kind(tmp_path: Path) -> None:
    loaded = imported(tmp_path, "status", "--driver", "local")
    assert "cloudscale.drivers.local" in loaded
    assert not loaded & {"openstack", "keystoneauth1", "cloudscale.drivers.openstack"}


@pytest.mark.usefixtures("stand_in")
def test_the_driver_that_is_loaded_for_a_cloud_is_at_home_in_it() -> None:
    settings = read_settings({"openstack": {"cloud": "course"}})
    assert settings.driver == "openstack"
    driver = load_driver(settings, Course.named(COURSE, "openstack"), pytest.fail)
    assert isinstance(driver, OpenStack)
    assert driver.machines() == []
    assert driver.belongings() == ""


def test_a_course_that_only_looks_leaves_nothing_behind(stand_in: OwnCloud) -> None:
    course = Course.named(COURSE, "openstack")
    driver = load_driver(read_settings({"openstack": {"cloud": "course"}}), course, pytest.fail)
    assert driver.kind()
    assert driver.order(2, ()).fits == 2
    assert driver.sweep() == []
    assert {made.method for made in stand_in.requests if "/identity/" not in made.path} == {"GET"}
    assert not course.folder.exists()
