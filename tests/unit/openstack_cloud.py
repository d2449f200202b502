"""The driver `openstack` at a stand-in for a cloud: a clock, a record of what was asked, and fixtures."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openstack.config import loader

from cloudscale.drivers.openstack.cloud import Cloud, open_cloud
from cloudscale.drivers.openstack.inventory import mark
from cloudscale.settings import OpenStackSettings
from tests.lab.stand_in import StandIn
from tests.lab.stand_in.wire import Answer, Request
from tests.unit.stand_in_cloud import MARKS as MARKS  # for the tests that use this module

COURSE = "bio"
MARK = mark(COURSE)
SECRETS = ("pass-{}:word", "a secret", "gAAAAA")  # of the stand-in: password, application credential, every token


TICK = 1e-6  # seconds
ENDING = 10.0  # seconds for a thread


class Time:
    """A clock whose time passes as soon as somebody sleeps, and by a tick with each look. Safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now = 0.0
        self.pauses: list[float] = []

    def now(self) -> float:
        with self._lock:
            self._now += TICK
            return self._now

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        with self._lock:
            self._now += seconds
            self.pauses.append(seconds)


class Crowd:
    """A clock of so many threads: time passes when all of them sleep, up to the first that wakes.

    `tick`: what passes with each look at it, too.
    """

    def __init__(self, size: int, *, tick: float = TICK) -> None:
        self._size = size
        self._tick = tick
        self._now = 0.0
        self._asleep: list[float] = []
        self._changed = threading.Condition()

    def now(self) -> float:
        with self._changed:
            self._now += self._tick
            return self._now

    def sleep(self, seconds: float) -> None:
        with self._changed:
            wake = self._now + seconds
            self._asleep.append(wake)
            self._pass()
            assert self._changed.wait_for(lambda: self._now >= wake, ENDING)
            self._asleep.remove(wake)

    def leave(self) -> None:
        with self._changed:
            self._size -= 1
            self._pass()

    def _pass(self) -> None:
        if self._asleep and len(self._asleep) == self._size:
            self._now = min(self._asleep)
            self._changed.notify_all()

    def run(self, *tasks: Callable[[], None]) -> None:
        assert len(tasks) == self._size

        def one(task: Callable[[], None]) -> None:
            try:
                task()
            finally:
                self.leave()

        threads = [threading.Thread(target=one, args=(task,), daemon=True) for task in tasks]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(ENDING)
            assert not thread.is_alive()


class Asked(NamedTuple):
    """A request with a body."""

    method: str
    path: str
    body: Any


class OwnCloud(StandIn):
    """A stand-in that remembers the bodies of the requests, too, and how many it had `most_at_once`.

    `seen` is called with each request before it is served.
    """

    def __init__(self, **settings: Any) -> None:
        self.asked: list[Asked] = []
        self.seen: Callable[[Request], None] = lambda request: None
        self.most_at_once = 0
        self._open = 0
        self._counting = threading.Lock()
        super().__init__(**settings)

    def _serve(self, request: Request) -> Answer | None:
        with self._counting:
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
        self.seen(request)
        if request.raw:
            self.asked.append(Asked(request.method, request.path, json.loads(request.raw)))
        answer = super()._serve(request)
        with self._counting:
            self._open -= 1
        return answer

    def bodies(self, path: str, method: str = "POST") -> list[Any]:
        """What was asked of a path, without the envelope's name."""
        found = [asked.body for asked in self.asked if asked.method == method and re.search(path, asked.path)]
        return [next(iter(body.values())) if len(body) == 1 else body for body in found]

    # --- how much there is of what, strangers' included ---

    def totals(self) -> dict[str, int]:
        network = self.network
        return {
            "servers": len(self.compute.servers),
            "server groups": len(self.compute.groups.items),
            "ports": sum(port["device_owner"] != "network:router_interface" for port in network.ports.items.values()),
            "floating IPs": len(network.floating_ips.items),
            "security groups": sum(group["name"] != "default" for group in network.groups.items.values()),
            "volumes": len(self.volumes.volumes) if self.region.volumes else 0,
        }

    def add_port(self, name: str, *, marked: str = MARK, tags: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
        (net,) = (net for net in self.network.networks.items.values() if net["name"] == "course-net")
        given = {"network_id": net["id"], "name": name, "description": marked, **more}
        port = self.network.ports.make(given)
        port["tags"] = list(tags)
        return port

    def add_ip(self, port: Mapping[str, Any] | None = None, *, marked: str = MARK) -> dict[str, Any]:
        (net,) = (net for net in self.network.networks.items.values() if net["name"] == "public")
        given = {"floating_network_id": net["id"], "description": marked}
        return self.network.floating_ips.make(given | ({"port_id": port["id"]} if port else {}))


def only_these(monkeypatch: pytest.MonkeyPatch, *clouds_yaml: Path) -> None:
    """Of this computer's configurations of clouds none but these files."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    # the places are found out when openstacksdk is imported
    monkeypatch.setattr(loader, "CONFIG_FILES", [str(file) for file in clouds_yaml])
    monkeypatch.setattr(loader, "SECURE_FILES", [])
    monkeypatch.setattr(loader, "VENDOR_FILES", [])


def settings(**given: Any) -> OpenStackSettings:
    return OpenStackSettings.model_validate({"cloud": "course", **given})


@pytest.fixture(name="stand_in")
def own_cloud_fixture(loopback: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[OwnCloud]:
    """Listening, with a clouds.yaml for it; whatever is asked of it, it is asked in its own terms."""
    only_these(monkeypatch, tmp_path / "clouds.yaml")
    with OwnCloud() as stand_in:
        stand_in.clouds_yaml(tmp_path)
        yield stand_in
    assert stand_in.violations == []


@pytest.fixture(name="clock")
def clock_fixture() -> Time:
    return Time()


@pytest.fixture(name="cloud")
def opened_fixture(stand_in: OwnCloud, clock: Time) -> Iterator[Cloud]:
    cloud = open_cloud(settings(), clock)
    stand_in.requests.clear()
    yield cloud
    cloud.api.close()
