"""The driver as a whole: when it is loaded, and that it works with a cloud."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from cloudscale.course.flags import Common, read_flags
from cloudscale.course.folder import CourseFolder
from cloudscale.course.session import Session
from cloudscale.course.settings import read_settings
from cloudscale.drivers import load_driver
from cloudscale.drivers.openstack.driver import OpenStack
from cloudscale.drivers.protocols import MakesMachines
from cloudscale.errors import RequestError
from cloudscale.workflow import single_machine
from tests.unit.classroom import Said
from tests.unit.drivers.openstack.cloud import COURSE, MARKS, OwnCloud

pytestmark = MARKS
PROJECT = Path(__file__).parents[4]


@pytest.mark.usefixtures("processes")
def test_listing_the_tasks_does_not_load_the_clouds_library(tmp_path: Path) -> None:
    run = [sys.executable, "-X", "importtime", "-m", "invoke", "--search-root", str(PROJECT), "--list"]
    world = {**os.environ, "HOME": str(tmp_path)}
    done = subprocess.run(run, cwd=tmp_path, env=world, capture_output=True, text=True, check=True)
    assert "themachine" in done.stdout
    loaded = set(re.findall(r"^import time:.*\| +([\w.]+)$", done.stderr, re.MULTILINE))
    assert "invoke" in loaded
    assert not loaded & {"openstack", "keystoneauth1", "cloudscale.drivers.openstack"}


@pytest.mark.usefixtures("stand_in")
def test_the_driver_that_is_loaded_for_a_cloud_is_at_home_in_it() -> None:
    settings = read_settings({"openstack": {"cloud": "course"}})
    assert settings.driver == "openstack"
    driver = load_driver(settings, CourseFolder.named(COURSE, "openstack"), pytest.fail)
    assert isinstance(driver, OpenStack)
    assert driver.machines() == []
    assert driver.resources() == ""


def test_a_cloud_names_its_machines_itself(stand_in: OwnCloud) -> None:
    settings = read_settings({"course": COURSE, "driver": "openstack", "openstack": {"cloud": "course"}})
    session = Session(settings, read_flags(Common), Said(), pytest.fail, names_driver=True)
    with pytest.raises(RequestError, match="The driver openstack names its machines itself: ann can't be") as raised:
        single_machine.machine_new(session, "ann")
    assert raised.value.exit_code == 2
    assert "--nodes" in raised.value.remedy
    assert {made.method for made in stand_in.requests if "/identity/" not in made.path} <= {"GET"}


def test_a_course_that_only_looks_leaves_nothing_behind(stand_in: OwnCloud) -> None:
    course = CourseFolder.named(COURSE, "openstack")
    driver = load_driver(read_settings({"openstack": {"cloud": "course"}}), course, pytest.fail)
    assert isinstance(driver, MakesMachines)
    assert driver.kind()
    assert driver.order(2, ()).fits == 2
    assert driver.sweep() == ()
    assert {made.method for made in stand_in.requests if "/identity/" not in made.path} == {"GET"}
    assert not course.folder.exists()
