"""A fake is worth something only where it takes what the real thing takes."""

from __future__ import annotations

import inspect

import pytest
from docker import APIClient
from docker.errors import APIError
from docker.models.containers import ContainerCollection

from cloudscale.drivers import Driver
from tests.unit.api_schema import SERVICE, check_keys
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeContainers, FakeDriver

OWN = {"add_task", "open_ports"}
CALLS = [name for name in vars(FakeApi) if not name.startswith("_") and name not in OWN]


@pytest.mark.parametrize("name", CALLS)
def test_the_fake_engine_takes_only_arguments_that_docker_py_takes(name: str) -> None:
    fake, real = (inspect.signature(getattr(kind, name)).parameters for kind in (FakeApi, APIClient))
    free = any(parameter.kind is parameter.VAR_KEYWORD for parameter in real.values())
    assert free or set(fake) <= set(real)
    if not free:  # what is given by position means the same
        needed = [known for known, parameter in fake.items() if parameter.default is parameter.empty]
        required = [known for known, parameter in real.items() if parameter.default is parameter.empty]
        assert needed[: len(required)] == required


def test_the_fake_containers_take_what_docker_py_takes() -> None:
    known = set(inspect.signature(APIClient.create_container).parameters) | {"remove", "network_mode"}
    taken = set(inspect.signature(FakeContainers.create).parameters)
    assert taken <= known | set(inspect.signature(ContainerCollection.create).parameters)


def test_the_fake_driver_is_a_driver() -> None:
    driver: Driver = FakeDriver(FakeApi())
    for name in [name for name in vars(Driver) if not name.startswith("_")]:
        assert inspect.signature(getattr(FakeDriver, name)) == inspect.signature(getattr(Driver, name))
        assert hasattr(driver, name)


def test_the_fake_engine_rejects_a_key_that_the_api_does_not_know() -> None:
    check_keys({"TaskTemplate": {"Resources": {"Limits": {"MemoryBytes": 1}}}, "Labels": {"any": "key"}}, SERVICE)
    with pytest.raises(APIError, match=r"unknown key service\.TaskTemplate\.Resources\.Limits\.Memory"):
        check_keys({"TaskTemplate": {"Resources": {"Limits": {"Memory": 1}}}}, SERVICE)
