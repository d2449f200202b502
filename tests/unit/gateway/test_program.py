"""What the gateway runs, and how it gets there."""

from __future__ import annotations

from typing import Any

import pytest

from cloudscale.course import naming
from cloudscale.engines.client import Engine
from cloudscale.errors import EngineError, ImageError
from cloudscale.gateway import program
from cloudscale.gateway.volume import GatewayVolume
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import fake_engine

CADDY = {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}


@pytest.fixture(autouse=True)
def no_engine_here(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> Engine:
        raise EngineError("No Docker Engine runs here.")

    monkeypatch.setattr(program, "trainers_engine", absent)


def test_all_files_of_the_login_service_go_along() -> None:
    files = program.login_program()
    assert {"serve.py", "login.py", "limits.py", "pages/start.html", "pages/style.css"} <= {*files}
    assert not any("__pycache__" in name for name in files)
    assert program.identify(files) != program.identify({**files, "serve.py": b"changed"})


def test_caddy_comes_from_its_image_which_does_not_stay(volume: GatewayVolume, engine: Engine, api: FakeApi) -> None:
    api.registry = {program.IMAGE: CADDY}
    with volume.opened() as files:
        program.ensure_caddy(engine, "bio", files, print)
        assert files.read("caddy") == b"Caddy"
        api.registry = {}
        program.ensure_caddy(engine, "bio", files, print)  # once is enough
    assert api.images_ == {} and api.containers_ == []


def test_an_image_that_was_there_before_stays(volume: GatewayVolume, engine: Engine, api: FakeApi) -> None:
    api.receive(program.IMAGE, CADDY)
    with volume.opened() as files:
        program.ensure_caddy(engine, "bio", files, print)
    assert len(api.images_) == 1


def test_without_a_registry_it_comes_from_the_trainers_own_engine(
    volume: GatewayVolume, engine: Engine, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers = FakeApi()
    trainers.receive(program.IMAGE, CADDY)
    monkeypatch.setattr(program, "trainers_engine", lambda: fake_engine(trainers))
    said: list[str] = []
    with volume.opened() as files:
        program.ensure_caddy(engine, "bio", files, said.append)
        program.ensure_caddy(engine, "bio", files, said.append)  # once is enough
        assert files.read("caddy") == b"Caddy"
    assert len(said) == 1 and "this computer" in said[0]
    assert len(trainers.images_) == 1 and trainers.containers_ == []


@pytest.mark.parametrize("then", ["next run", "reset"])
def test_what_a_run_left_on_the_trainers_engine_when_it_was_killed_is_removed(
    volume: GatewayVolume, engine: Engine, monkeypatch: pytest.MonkeyPatch, then: str
) -> None:
    """And nothing else there: it may have a course of the same name, with a gateway."""
    trainers = FakeApi()
    trainers.receive(program.IMAGE, CADDY)
    others = trainers.create_container(program.IMAGE, entrypoint=["caddy"], labels=naming.gateway_labels("bio"))["Id"]
    monkeypatch.setattr(program, "trainers_engine", lambda: fake_engine(trainers))

    def killed(*args: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as dies, volume.opened() as files, pytest.raises(KeyboardInterrupt):
        dies.setattr(trainers, "get_archive", killed)
        dies.setattr(trainers, "remove_container", killed)
        program.ensure_caddy(engine, "bio", files, print)
    assert len(trainers.containers_) == 2
    if then == "reset":
        program.forget_readings("bio")
    else:
        with volume.opened() as files:
            program.ensure_caddy(engine, "bio", files, print)
    assert [container["Id"] for container in trainers.containers(all=True)] == [others]


def test_a_trainer_without_an_engine_has_nothing_left_there() -> None:
    program.forget_readings("bio")


def test_an_image_for_other_processors_is_of_no_use(
    volume: GatewayVolume, engine: Engine, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainers = FakeApi()
    trainers.receive(program.IMAGE, {**CADDY, "Architecture": "arm64"})
    monkeypatch.setattr(program, "trainers_engine", lambda: fake_engine(trainers))
    monkeypatch.setattr(program, "fetch_file", lambda *args, **options: b"Debian's")
    with volume.opened() as files:
        program.ensure_caddy(engine, "bio", files, print)
        assert files.read("caddy") == b"Debian's"


def test_without_a_registry_it_comes_from_debian(
    volume: GatewayVolume, engine: Engine, api: FakeApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetch(package: str, path: str, *, sources: str, architecture: str) -> bytes:
        asked.append(f"{package} {path} {architecture}")
        return b"Debian's"

    said: list[str] = []
    monkeypatch.setattr(program, "fetch_file", fetch)
    with volume.opened() as files:
        program.ensure_caddy(engine, "bio", files, said.append)
        assert files.read("caddy") == b"Debian's"
    assert asked == ["caddy usr/bin/caddy amd64"]
    assert "Debian" in said[0]


def test_where_neither_can_be_had_both_are_named(
    volume: GatewayVolume, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(*args: object, **options: object) -> bytes:
        raise ImageError("no route to deb.debian.org")

    monkeypatch.setattr(program, "fetch_file", fetch)
    with (
        volume.opened() as files,
        pytest.raises(ImageError, match=r"(?s)caddy:.*no route to deb\.debian\.org.*docker pull caddy:"),
    ):
        program.ensure_caddy(engine, "bio", files, print)
