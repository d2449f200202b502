from __future__ import annotations

import pytest

from cloudscale.drivers import load_driver
from cloudscale.drivers.local import Local
from cloudscale.errors import RequestError
from cloudscale.settings import read_settings


def test_the_driver_that_the_settings_name_is_loaded() -> None:
    assert isinstance(load_driver(read_settings({"driver": "local"})), Local)


def test_a_driver_that_is_not_there_yet_is_a_wrong_request() -> None:
    with pytest.raises(RequestError, match="qemu"):
        load_driver(read_settings({"driver": "qemu"}))
