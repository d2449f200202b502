"""The gateway's files on its machine."""

from __future__ import annotations

import pytest

from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError
from cloudscale.gateway import volume as module
from cloudscale.gateway.volume import GatewayVolume, remove_volumes
from tests.unit.fake_api import FakeApi


def test_what_is_written_is_read_back(volume: GatewayVolume) -> None:
    with volume.opened() as files:
        files.write({"login.json": b"{}", "tls/key.pem": b"key"})
        assert files.read("login.json") == b"{}"
        assert files.read("tls/key.pem") == b"key"
        assert files.read("none") is None
        assert files.read_archive("none") is None


def test_no_container_is_left_whatever_happens(volume: GatewayVolume, api: FakeApi) -> None:
    with pytest.raises(ValueError, match="broken"), volume.opened():
        raise ValueError("broken")
    assert api.containers_ == []
    assert api.volumes_[volume.name]["Labels"] == {"cloudscale.course": "bio", "cloudscale.role": "gateway"}


def test_a_file_without_end_is_not_read(volume: GatewayVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    with volume.opened() as files:
        files.write({"large": b"x" * 2000})
        with pytest.raises(EngineError, match="larger than"):
            files.read("large")


def test_only_the_courses_own_is_removed(volume: GatewayVolume, engine: Engine, api: FakeApi) -> None:
    other = GatewayVolume(engine, "chem", "sha256:11")
    for each in (volume, other):
        with each.opened():
            pass
    remove_volumes(engine, "bio")
    assert [*api.volumes_] == [other.name]


def test_one_that_stays_in_use_is_an_error_with_its_cause(volume: GatewayVolume, engine: Engine, api: FakeApi) -> None:
    with volume.opened():
        api.containers_[0]["State"] = "running"
        with pytest.raises(EngineError, match="in use"):
            remove_volumes(engine, "bio", timeout=0)


def test_what_a_killed_run_left_of_its_writing_is_no_hindrance(
    volume: GatewayVolume, engine: Engine, api: FakeApi
) -> None:
    with volume.opened() as files:
        files.write({"login.json": b"{}"})
        remove_volumes(engine, "bio", timeout=0)
    assert api.containers_ == [] and api.volumes_ == {}


def test_a_volume_of_somebody_elses_with_its_name_is_left_alone(volume: GatewayVolume, api: FakeApi) -> None:
    api.create_volume(volume.name, labels={})
    with pytest.raises(EngineError, match="does not carry this course's mark"), volume.opened():
        pass
    assert api.files == {}
