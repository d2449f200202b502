from __future__ import annotations

from dataclasses import replace

import pytest

from cloudscale.cluster.driver import driver_of
from cloudscale.drivers.local import Local
from cloudscale.errors import RequestError
from tests.unit.cluster.sessions import session


def test_it_is_the_one_that_the_session_names() -> None:
    assert isinstance(driver_of(session()), Local)


def test_sizes_of_vms_are_for_no_other_driver() -> None:
    with pytest.raises(RequestError, match=r"^--memory, --cpus: only for VMs on this computer"):
        driver_of(replace(session(), vm_flags=("--memory", "--cpus")))
