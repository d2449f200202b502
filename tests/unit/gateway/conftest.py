"""What the tests of the gateway share."""

from __future__ import annotations

import pytest

from cloudscale.engines.client import Engine
from cloudscale.gateway.volume import GatewayVolume
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

KEY = b"k" * 32


@pytest.fixture
def api() -> FakeApi:
    return FakeApi()


@pytest.fixture
def engine(api: FakeApi) -> Engine:
    return fake_engine(api)


@pytest.fixture
def volume(engine: Engine) -> GatewayVolume:
    return GatewayVolume(engine, "bio", "sha256:11")
