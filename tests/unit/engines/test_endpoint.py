"""Which engine is the trainer's own: the same as the docker command takes."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudscale.engines.api import Client
from cloudscale.engines.client import from_environment, trainers_engine
from cloudscale.engines.endpoint import TLS, Endpoint, own_endpoint
from cloudscale.errors import EngineError, RequestError
from tests.unit.engines.contexts import use_context


@pytest.fixture
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of the docker command."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


def test_by_default_it_is_the_socket_of_this_computer(config: Path) -> None:
    assert own_endpoint() == Endpoint()
    assert (Endpoint().host, Endpoint().name, Endpoint().note) == ("", "this computer", "")
    (config / "config.json").write_text('{"currentContext": "default"}')
    assert own_endpoint() == Endpoint()
    (config / "config.json").write_text("not json")
    assert own_endpoint() == Endpoint()


def test_the_context_in_use_is_followed_and_said(config: Path) -> None:
    use_context(config, "server", "ssh://ann@server.example")
    endpoint = own_endpoint()
    assert (endpoint.url, endpoint.host) == ("ssh://ann@server.example", "server.example")
    assert "the Docker context 'server': ssh://ann@server.example" in endpoint.note


def test_the_users_own_folder_is_the_default(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".docker").mkdir()
    use_context(tmp_path / ".docker", "rootless", "unix:///run/user/1000/docker.sock")
    assert (own_endpoint().url, own_endpoint().host) == ("unix:///run/user/1000/docker.sock", "")
    assert "rootless" in own_endpoint().note


def test_docker_host_goes_before_every_context(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_context(config, "server", "ssh://ann@server.example")
    monkeypatch.setenv("DOCKER_CONTEXT", "server")
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2375")
    assert (own_endpoint().url, own_endpoint().host) == ("tcp://192.0.2.9:2375", "192.0.2.9")
    assert own_endpoint().name == "this computer (DOCKER_HOST=tcp://192.0.2.9:2375)"
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/other.sock")
    assert own_endpoint().note == ""  # the user has just named it


def test_docker_context_goes_before_the_context_in_use(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_context(config, "other", "tcp://192.0.2.8:2375")
    use_context(config, "server", "ssh://ann@server.example")
    monkeypatch.setenv("DOCKER_CONTEXT", "other")
    assert own_endpoint().host == "192.0.2.8"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert own_endpoint() == Endpoint()


@pytest.mark.parametrize("host", ["", "nonsense", "ftp://192.0.2.1"])
def test_a_context_without_an_engine_is_named(config: Path, host: str) -> None:
    use_context(config, "broken", host)
    with pytest.raises(RequestError, match="Docker context 'broken'") as raised:
        own_endpoint()
    assert "docker context use default" in raised.value.remedy


def test_a_context_that_does_not_exist_is_named(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(RequestError, match="Docker context 'gone'"):
        own_endpoint()


@pytest.mark.parametrize("names", [["DOCKER_TLS_VERIFY"], ["DOCKER_CERT_PATH"], [*TLS]])
def test_what_is_left_over_of_another_engine_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]
) -> None:
    for name in names:
        monkeypatch.setenv(name, "1")
    with pytest.raises(RequestError, match=" and ".join(names)) as raised:
        own_endpoint()
    assert f"unset {' '.join(names)}" in raised.value.remedy
    for name in names:
        monkeypatch.setenv(name, "")
    assert own_endpoint() == Endpoint()


def test_with_tls_the_certificates_must_be_there(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://192.0.2.9:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", str(config))
    with pytest.raises(RequestError, match=r"ca\.pem is needed") as raised:
        own_endpoint()
    assert "unset DOCKER_TLS_VERIFY DOCKER_CERT_PATH" in raised.value.remedy
    for name in ("ca.pem", "cert.pem", "key.pem"):
        (config / name).touch()
    assert own_endpoint() == Endpoint("tcp://192.0.2.9:2376", "DOCKER_HOST", config)


def test_a_socket_needs_no_certificates(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/docker.sock")
    assert own_endpoint() == Endpoint("unix:///run/docker.sock", "DOCKER_HOST")


def test_an_engine_of_a_context_that_does_not_answer_is_not_to_be_installed_here(
    config: Path, no_engine: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_context(config, "rootless", os.environ["DOCKER_HOST"])
    monkeypatch.delenv("DOCKER_HOST")
    with pytest.raises(EngineError, match="No Docker Engine answers") as raised:
        from_environment()
    assert "docker context use default" in raised.value.remedy and "machine_new" not in raised.value.remedy


def test_where_the_engine_for_images_is_gets_reported(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_context(config, "server", "ssh://ann@server.example")
    monkeypatch.setattr("cloudscale.engines.client.from_environment", lambda timeout: None)
    said: list[str] = []
    trainers_engine(said.append)
    assert said == ["The Docker Engine is that of the Docker context 'server': ssh://ann@server.example"]


@pytest.mark.parametrize("skip", [True, False])
def test_the_client_gets_the_endpoint_and_looks_for_no_other(
    config: Path, monkeypatch: pytest.MonkeyPatch, skip: bool
) -> None:
    use_context(config, "server", "tcp://192.0.2.9:2376", with_tls=True, skip_verify=skip)
    given: dict[str, Any] = {}

    def client(**settings: Any) -> object:
        given.update(settings)
        return SimpleNamespace(api=SimpleNamespace(api_version="1.45"))

    monkeypatch.setattr(Client, "from_env", client)
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")  # left over: it does not count for a context
    from_environment()
    (folder,) = (config / "contexts" / "tls").iterdir()
    assert given["environment"] == {
        "DOCKER_HOST": "tcp://192.0.2.9:2376",
        "DOCKER_CERT_PATH": str(folder / "docker"),
        "DOCKER_TLS_VERIFY": "" if skip else "1",
    }
