"""Hosts that are set up as a launch does it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cloudscale.engines.certificates import Authority
from cloudscale.engines.setup import SETTINGS, TLS, Setup, apply, wanted_setup
from tests.unit.fake_host import WITH_ENGINE, FakeHost

HOST = "192.0.2.11"
CERTIFICATE = [f"{TLS}/cert.pem", f"{TLS}/key.pem"]


def setup_for(host: FakeHost, bio: Authority, name: str = HOST) -> Setup | None:
    """The setup that the host needs, as a driver asks for it."""
    return wanted_setup(host.facts, name, host.facts.own_address(name, host.peer), "bio", bio, [host.peer])


def needed(host: FakeHost, bio: Authority, name: str = HOST) -> Setup:
    setup = setup_for(host, bio, name)
    assert setup
    return setup


def settle(host: FakeHost, bio: Authority) -> FakeHost:
    """Sets it up as a launch does."""
    setup = setup_for(host, bio)
    if setup:
        apply(host, setup)  # type: ignore[arg-type]
    return host


def settings_of(setup: Setup) -> dict[str, Any]:
    settings: dict[str, Any] = json.loads(setup.files[SETTINGS])
    return settings


def with_settings(settings: Mapping[str, Any] | str, indent: int | None = 4) -> FakeHost:
    """A host with an engine of its own, with these settings."""
    text = settings if isinstance(settings, str) else json.dumps(settings, indent=indent)
    return FakeHost(values={**WITH_ENGINE, "settings": text})
