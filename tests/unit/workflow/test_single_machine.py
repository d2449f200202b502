from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cloudscale.errors import RequestError
from cloudscale.workflow import single_machine
from tests.unit.classroom import Class


class Given:
    """A driver of machines that exist already."""


class Made(Given):
    """One that makes machines, and names them itself."""

    def _method(self) -> None: ...

    kind = claim = order = boot = check_port = open_ports = _method
    enter_by_first = settle_addresses = resources = sweep = _method


@pytest.mark.parametrize("task", [single_machine.machine_new, single_machine.machine_rm])
@pytest.mark.parametrize(
    ("kind", "driver", "remedy"),
    [("generic", Given(), "Add it to generic.hosts"), ("openstack", Made(), "invoke driver_reset --only dev removes")],
)
def test_a_driver_that_can_not_is_refused_with_what_to_do_instead(
    bio: Class, monkeypatch: pytest.MonkeyPatch, task: Any, kind: str, driver: object, remedy: str
) -> None:
    monkeypatch.setattr("cloudscale.cluster.driver.load_driver", lambda *given: driver)
    bio.kind = kind
    with pytest.raises(RequestError, match=f"The driver {kind}") as raised:
        task(replace(bio.session(), names_driver=True), "dev")
    assert raised.value.exit_code == 2
    assert remedy in raised.value.remedy
