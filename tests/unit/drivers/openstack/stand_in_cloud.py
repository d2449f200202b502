"""A stand-in for a cloud, and openstacksdk that is connected to it: shorthands."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from tests.lab.stand_in import StandIn

MARKS = [
    pytest.mark.usefixtures("loopback"),
    # warnings of openstacksdk about its own parts
    pytest.mark.filterwarnings("ignore::DeprecationWarning:openstack"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning:openstack"),
]


def nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hides the cloud and the proxy of this computer."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")


def connect(stand_in: StandIn, folder: Path, cloud: str = "course", region: str = "", **more: Any) -> Connection:
    return open_cloud(stand_in.clouds_yaml(folder, region), cloud, **more)


def open_cloud(clouds_yaml: Path, cloud: str, **more: Any) -> Connection:
    """Uses this file, and no other configuration of this computer."""
    known = OpenStackConfig(config_files=[str(clouds_yaml)], vendor_files=[], secure_files=[], load_envvars=False)
    return Connection(config=known.get_one(cloud, api_timeout=5, **more))


def violated(stand_in: StandIn) -> list[str]:
    """Returns the violations, and clears them."""
    noted = list(stand_in.violations)
    stand_in.violations.clear()
    return noted


def network_id(cloud: Connection, name: str = "course-net") -> str:
    (net,) = cloud.network.networks(name=name)
    return str(net.id)


def new_port(cloud: Connection, name: str = "course-1", **more: Any) -> Any:
    return cloud.network.create_port(network_id=network_id(cloud), name=name, description="cloudscale:course", **more)


def new_server(cloud: Connection, name: str = "course-1", **more: Any) -> Any:
    flavor = next(flavor for flavor in cloud.compute.flavors() if flavor.name == "m1.tiny")
    (image,) = cloud.image.images(name="debian-13")
    given = {"flavor_id": flavor.id, "image_id": image.id, "networks": "none", **more}
    return cloud.compute.create_server(name=name, **given)
