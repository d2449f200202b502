"""The driver `openstack` at a stand-in for a cloud: a clock, and a record of all requests."""

from __future__ import annotations

import functools
import json
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from openstack import fields
from openstack.config import loader
from openstack.resource import Resource

from cloudscale.course.settings import OpenStackSettings
from cloudscale.drivers.openstack.inventory import mark
from tests.lab.stand_in import StandIn
from tests.lab.stand_in.machines import Server
from tests.lab.stand_in.region import Region
from tests.lab.stand_in.wire import Answer, Request
from tests.unit.drivers.openstack.stand_in_cloud import MARKS as MARKS  # for the tests that use this module

COURSE = "bio"
MARK = mark(COURSE)
PRIVATE, PUBLIC = "10.20.0.0/20", "192.0.2.0/24"  # the stand-in's
PASSWORD = "pass-{}:word"
WRONG = "wrong-and-yet-secret"
# the stand-in's password, the secret of its application credential, its tokens, and what users type instead
SECRETS = (PASSWORD, "a secret", "gAAAAA", WRONG)
TICK = 1e-6  # seconds
ENDING = 10.0  # seconds for a thread


class Time:
    """A clock whose time passes with each sleep, and by a tick with each look. Safe for several threads."""

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
    """A clock for so many threads: when all of them sleep, time passes until the first one wakes.

    `tick`: the time that passes with each look at it.
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

    def run(self, *tasks: Callable[[], object]) -> None:
        assert len(tasks) == self._size

        def one(task: Callable[[], object]) -> None:
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

    def renew(self) -> None:
        """Resets it. Tokens stay valid."""
        (place,) = self.regions
        self.regions[place] = Region(self.identity, self.url, "", volume=True, private=PRIVATE, public=PUBLIC)
        self._services.update({service.prefix: service for service in self.region.services})
        self.identity.password = PASSWORD
        self.seen = lambda request: None
        self.most_at_once = 0
        for noted in (self.requests, self.asked, self.faults, self.violations):
            noted.clear()

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
        """The bodies of the requests to a path, without their outermost key."""
        bodies = [asked.body for asked in self.asked if asked.method == method and re.search(path, asked.path)]
        return [next(iter(body.values())) if len(body) == 1 else body for body in bodies]

    # --- the number of resources, with those of others ---

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

    # --- resources of an earlier run, or of others ---

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

    def add_machine(self, name: str, *, marked: str = MARK, **more: Any) -> Server:
        """A machine that is up: its server, its port and its floating IP."""
        port = self.add_port(name, marked=marked, tags=(marked,))
        self.add_ip(port, marked=marked)["tags"] = [marked]
        server = self.compute.add_server(name, "m1.small", tags=[marked, *more.pop("tags", ())], **more)
        server.ports = [port["id"]]
        self.network.bind(port, server.id, server.zone)
        return server


def only_these(monkeypatch: pytest.MonkeyPatch, *clouds_yaml: Path) -> None:
    """Hides the cloud configurations of this computer, and uses these files."""
    for name in [name for name in os.environ if name.startswith("OS_")]:
        monkeypatch.delenv(name)
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    # openstacksdk determines these paths when it is imported
    monkeypatch.setattr(loader, "CONFIG_FILES", [str(file) for file in clouds_yaml])
    monkeypatch.setattr(loader, "SECURE_FILES", [])
    monkeypatch.setattr(loader, "VENDOR_FILES", [])


def settings(**given: Any) -> OpenStackSettings:
    return OpenStackSettings.model_validate({"cloud": "course", **given})


def quicker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Caches the attributes of a class: openstacksdk lists them again and again, which takes half of the time."""
    known: Any = Resource._attributes_iterator.__func__  # type: ignore[attr-defined]
    cached: Any = functools.cache(lambda cls, kinds: tuple(known(cls, kinds)))
    usual = (fields.Body, fields.Header)
    monkeypatch.setattr(Resource, "_attributes_iterator", classmethod(lambda cls, kinds=usual: cached(cls, kinds)))
