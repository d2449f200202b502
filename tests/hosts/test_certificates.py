"""The gateway's certificates from an authority such as Let's Encrypt: had, kept, and stood in for."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from urllib.parse import urlsplit

import docker
import pytest
from cryptography import x509

from cloudscale.gateway.certificates import shown
from cloudscale.seats.address import Entrance
from tests.hosts.conftest import MARTY, STATE, Roster
from tests.lab.caddy_image import load_caddy_image
from tests.lab.engine import LabEngine
from tests.lab.namespace import Namespace, run
from tests.lab.pebble import DIRECTORY, Pebble
from tests.lab.tool import Result, Tool

ADDRESS = "192.0.2.7"  # as one on the internet, which leads to the machine


@pytest.fixture(scope="module")
def pebble(namespace: Namespace) -> Iterator[Pebble]:
    folder = STATE / "pebble"
    folder.mkdir()
    run("ip", "address", "add", f"{ADDRESS}/32", "dev", "lo")
    started = Pebble(namespace, folder, ADDRESS)
    yield started
    started.stop()
    run("ip", "address", "delete", f"{ADDRESS}/32", "dev", "lo")


@pytest.fixture(scope="module")
def tool(engine: LabEngine, image: str, pebble: Pebble) -> Iterator[Tool]:
    load_caddy_image(engine.client, STATE / "caddy")
    settings = {"IMAGE": image, "GATEWAY_MODE": "path", "GATEWAY_TLS": "acme", "GATEWAY_ACME": DIRECTORY}
    used = Tool(engine, STATE / "certificates", {f"INVOKE_CLOUDSCALE_{key}": value for key, value in settings.items()})
    used.environment["REQUESTS_CA_BUNDLE"] = str(pebble.authority)
    yield used
    left = used("driver_reset", "--yes")
    assert left.code == 0, left.err


@pytest.fixture(scope="module")
def roster() -> Roster:
    return Roster(STATE / "certificates.csv")


def certificate(entrance: Entrance) -> x509.Certificate:
    found = shown(ADDRESS, entrance)
    assert found
    return found


def host(launched: Result) -> str:
    return str(urlsplit(launched.rows[0]["url"]).netloc)


def issuer(entrance: Entrance) -> str:
    return certificate(entrance).issuer.rfc4514_string()


def lifetime(entrance: Entrance) -> int:
    """In days."""
    found = certificate(entrance)
    return round((found.not_valid_after_utc - found.not_valid_before_utc) / datetime.timedelta(days=1))


def test_a_domain_gets_one_and_it_is_kept_for_the_next_machine(
    tool: Tool, roster: Roster, client: docker.DockerClient
) -> None:
    domain = {"INVOKE_CLOUDSCALE_GATEWAY_DOMAIN": "class.test"}
    launched = tool.launch("--gateway", "subdomain", *roster(MARTY), **domain)
    assert "Warning: https" not in launched.err and "browsers warn" not in launched.err
    first = certificate(Entrance("class.test"))
    assert "Pebble" in first.issuer.rfc4514_string()
    assert lifetime(Entrance("class.test")) in (90, 6)  # no profile is asked for, and Pebble takes any, by chance
    assert "Pebble" in issuer(Entrance(host(launched)))
    (kept,) = tool.home.glob("**/gateway-store.tar")
    assert kept.stat().st_mode & 0o777 == 0o600

    left = tool("driver_reset", "--yes")
    assert left.code == 0 and "certificates stay" in left.err
    assert {path.name for path in kept.parent.iterdir()} == {"gateway-store.tar", "gateway-names"}
    assert client.volumes.list(filters={"label": "cloudscale.course"}) == []
    again = tool.launch("--gateway", "subdomain", *roster(MARTY), **domain)
    assert host(again) == host(launched)
    assert certificate(Entrance("class.test")).serial_number == first.serial_number


def test_so_does_a_bare_address(tool: Tool, roster: Roster) -> None:
    launched = tool.launch(*roster(MARTY), INVOKE_CLOUDSCALE_GATEWAY_DOMAIN=ADDRESS)
    assert "browsers warn" not in launched.err
    assert "Pebble" in issuer(Entrance(ADDRESS))
    assert lifetime(Entrance(ADDRESS)) == 6  # of the profile `shortlived`, with which alone Let's Encrypt signs for one


def test_the_courses_own_authority_stands_in_for_one_that_is_down(tool: Tool, roster: Roster, pebble: Pebble) -> None:
    pebble.stop()
    launched = tool.launch(*roster(MARTY), INVOKE_CLOUDSCALE_GATEWAY_DOMAIN="other.test")
    assert f"{DIRECTORY} has signed no certificate for other.test yet" in launched.err
    assert "cloudscale gateway" in issuer(Entrance("other.test"))
