"""Bringing a gateway up: what a machine that takes another's place has from it."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cloudscale.course.folder import STORE_COPY
from cloudscale.course.settings import GatewaySettings
from cloudscale.engines.client import Engine
from cloudscale.gateway import certificates, program, setup
from cloudscale.gateway.service import Gateway, running_gateway
from cloudscale.gateway.setup import GatewaySetup
from cloudscale.seats.address import Entrance
from tests.unit.fake_api import FakeApi
from tests.unit.fakes import FakeClock
from tests.unit.gateway.conftest import KEY

ENTRANCE = Entrance("192.0.2.7")


class Lab:
    """One gateway on one fake machine."""

    def __init__(self, api: FakeApi, engine: Engine, folder: Path) -> None:
        self.api, self.engine, self.folder = api, engine, folder
        self.said: list[str] = []
        api.registry = {program.IMAGE: {"Id": "sha256:cadd", "RepoDigests": ["caddy@sha256:cadd"]}}

    def setup(self, **settings: Any) -> GatewaySetup:
        given = GatewaySettings(**{"tls": "internal", **settings})
        return GatewaySetup(
            self.engine, self.api.node_id, "sha256:11", "bio", self.folder, KEY, given, self.said.append
        )

    @property
    def files(self) -> dict[str, bytes]:
        (files,) = self.api.files.values()
        return files


@pytest.fixture
def lab(api: FakeApi, engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    monkeypatch.setattr("cloudscale.waiting.SystemClock", FakeClock)
    return Lab(api, engine, tmp_path)


def test_the_same_again_keeps_its_certificates(lab: Lab) -> None:
    lab.setup().converge(lab.engine, None, ENTRANCE, [])
    first = lab.files["tls/intermediate.pem"]
    lab.setup().converge(lab.engine, _present(lab), ENTRANCE, [])
    assert lab.files["tls/intermediate.pem"] == first
    lab.setup().converge(lab.engine, _present(lab), Entrance("192.0.2.8"), [])
    assert lab.files["tls/intermediate.pem"] != first


def test_with_another_port_the_container_before_does_not_count(lab: Lab) -> None:
    """It reads the new files as well, listens at the new port for a moment, and ends."""

    def program_of(gateway: Gateway | None) -> str:
        assert gateway
        label: str = gateway.spec["TaskTemplate"]["ContainerSpec"]["Labels"]["cloudscale.program"]
        return label

    lab.setup().converge(lab.engine, None, ENTRANCE, [])
    first = program_of(_present(lab))
    lab.setup().converge(lab.engine, _present(lab), Entrance("192.0.2.8"), [])
    assert program_of(_present(lab)) == first  # another address needs no other container
    lab.setup().converge(lab.engine, _present(lab), Entrance("192.0.2.8", 8443), [])
    assert program_of(_present(lab)) != first


def test_the_authoritys_key_stays_in_the_courses_folder(lab: Lab) -> None:
    lab.setup().converge(lab.engine, None, ENTRANCE, [])
    key = (lab.folder / "web-ca-key.pem").read_bytes()
    assert not any(key in data for data in lab.files.values())


def test_what_another_authority_signed_is_kept_and_given_to_the_next_machine(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = {"tls": "acme", "domain": "class.example.org"}
    entrance = Entrance("class.example.org")
    lab.setup(**acme).converge(lab.engine, None, entrance, [])
    lab.files["store/certificates/class"] = b"signed"
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    monkeypatch.setattr(setup, "is_ours", lambda certificate: False)
    lab.setup(**acme).settle(entrance, "192.0.2.7")
    kept = lab.folder / STORE_COPY
    with tarfile.open(fileobj=io.BytesIO(kept.read_bytes())) as archive:
        assert archive.getnames() == ["store/certificates/class"]
    assert kept.stat().st_mode & 0o777 == 0o600
    lab.api.files.clear()
    lab.setup(**acme).converge(lab.engine, _present(lab), entrance, [])
    assert lab.files["store/certificates/class"] == b"signed"


def test_an_authority_that_does_not_sign_is_named_and_the_own_one_stands_in(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    acme = {"tls": "acme", "domain": "class.example.org", "acme": "https://acme.test/dir"}
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: None)
    lab.setup(**acme).settle(Entrance("class.example.org"), "192.0.2.7")
    assert "no certificate for class.example.org yet" in lab.said.pop()
    monkeypatch.setattr(certificates, "shown", lambda address, entrance: object())
    monkeypatch.setattr(setup, "is_ours", lambda certificate: True)
    lab.setup(**acme).settle(Entrance("class.example.org"), "192.0.2.7")
    assert "https://acme.test/dir has signed no certificate" in lab.said[0]
    fingerprint = x509.load_pem_x509_certificate((lab.folder / "web-ca.pem").read_bytes())
    assert lab.setup().authority().certificate == fingerprint
    assert lab.setup().authority().fingerprint in lab.said[1] and "web-ca.pem" in lab.said[1]
    assert not (lab.folder / STORE_COPY).exists()


def _present(lab: Lab) -> Gateway | None:
    return running_gateway(lab.engine, "bio")
