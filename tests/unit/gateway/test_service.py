"""The gateway's service, and what it says of itself."""

from __future__ import annotations

import hashlib

import pytest

from cloudscale.course.naming import PROGRAM
from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError
from cloudscale.gateway.service import ensure, listening, remove, running_gateway, take_effect, wanted_spec
from cloudscale.gateway.volume import GatewayVolume
from cloudscale.seats.address import Entrance
from cloudscale.seats.spec import Spec
from tests.unit.fake_api import FakeApi

ENTRANCE = Entrance("192.0.2.7")
FILES = {"caddy.json": b"{}", "login.json": b"[]"}
DIGESTS = {name.removesuffix(".json"): hashlib.sha256(data).hexdigest() for name, data in FILES.items()}


def wanted(api: FakeApi, entrance: Entrance = ENTRANCE, program: str = "p1") -> Spec:
    return wanted_spec("bio", entrance, api.node_id, "sha256:11", program)


def bring_up(engine: Engine, volume: GatewayVolume, spec: Spec) -> str:
    with volume.opened() as files:
        files.write(FILES)
        done = ensure(engine, running_gateway(engine, "bio"), spec)
        take_effect(engine, files, volume, DIGESTS, spec["TaskTemplate"]["ContainerSpec"]["Labels"][PROGRAM], timeout=0)
    return done


def test_what_runs_is_read_back(engine: Engine, volume: GatewayVolume, api: FakeApi) -> None:
    assert running_gateway(engine, "bio") is None
    entrance = Entrance("class.test", 8443, by_name=True)
    assert bring_up(engine, volume, wanted(api, entrance)) == "created"
    found = running_gateway(engine, "bio")
    assert found and (found.entrance, found.node_id, found.image) == (entrance, api.node_id, "sha256:11")
    assert (found.mode, found.ports) == ("subdomain", [8443])
    assert running_gateway(engine, "chem") is None


def test_it_is_changed_only_if_it_differs(engine: Engine, volume: GatewayVolume, api: FakeApi) -> None:
    bring_up(engine, volume, wanted(api))
    # as an engine does: the network's name becomes an id
    (service,) = api.swarm.services.values()
    service["Spec"]["TaskTemplate"]["Networks"] = [{"Target": "hbdyvidciqaf"}]
    assert bring_up(engine, volume, wanted(api)) == "unchanged"
    assert bring_up(engine, volume, wanted(api, program="p2")) == "updated"


def test_it_has_one_right_alone_and_writes_nothing_but_its_volume(api: FakeApi) -> None:
    container = wanted(api)["TaskTemplate"]["ContainerSpec"]
    assert (container["CapabilityDrop"], container["CapabilityAdd"]) == (["ALL"], ["CAP_NET_BIND_SERVICE"])
    assert container["ReadOnly"] is True
    assert "docker.sock" not in str(container)
    assert [mount["Target"] for mount in container["Mounts"]] == ["/tmp", "/gateway"]


def test_it_listens_for_http_too_on_the_usual_port_alone() -> None:
    assert listening(Entrance("h")) == [443, 80]
    assert listening(Entrance("h", 8443)) == [8443]


def test_a_service_of_somebody_elses_with_its_name_is_left_alone(engine: Engine, api: FakeApi) -> None:
    spec = wanted(api)
    foreign = {**spec, "Labels": {}}
    ensure(engine, None, foreign)
    with pytest.raises(EngineError, match="does not carry this course's mark"):
        ensure(engine, running_gateway(engine, "bio"), spec)


def test_what_it_refuses_is_said_in_its_words(engine: Engine, volume: GatewayVolume, api: FakeApi) -> None:
    api.gateway_error = "unknown module"
    with pytest.raises(EngineError, match="refuses its configuration: unknown module"):
        bring_up(engine, volume, wanted(api))


def test_one_that_does_not_stay_up_is_given_up_early(
    engine: Engine, volume: GatewayVolume, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    with volume.opened() as files:
        files.write(FILES)
        ensure(engine, None, wanted(api))
        files.write({"state.json": b"{}"})
        (service,) = api.swarm.services

        def kill(container: str, signal: str) -> None:
            for _ in range(3):
                api.add_task(service, "failed", error="starting container failed: no space left on device")

        monkeypatch.setattr(api, "kill", kill)
        with pytest.raises(EngineError, match=r"does not start .*no space left on device"):
            take_effect(engine, files, volume, DIGESTS, "p1", timeout=5)


def test_it_goes(engine: Engine, volume: GatewayVolume, api: FakeApi) -> None:
    bring_up(engine, volume, wanted(api))
    found = running_gateway(engine, "bio")
    assert found
    for _ in range(2):  # somebody else may have been faster
        remove(engine, found)
    assert running_gateway(engine, "bio") is None and api.containers_ == []
