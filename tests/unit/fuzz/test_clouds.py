"""What clouds answer: any answer to the driver's requests, through openstacksdk."""

from __future__ import annotations

import json
import socket
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example
from hypothesis import strategies as st

from cloudscale.drivers.openstack import quota
from cloudscale.drivers.openstack.choices import choose
from cloudscale.drivers.openstack.cloud import Cloud, open_cloud
from cloudscale.drivers.openstack.credential import check_clock, check_credential
from cloudscale.drivers.openstack.inventory import read_console, read_fault, read_inventory
from cloudscale.drivers.openstack.stored import read_volumes
from cloudscale.hosts.first_login import Booting, host_keys, plain
from cloudscale.hosts.known_hosts import KnownHosts
from tests.lab.stand_in.wire import Answer, Request
from tests.unit.drivers.openstack.cloud import MARK, MARKS, OwnCloud, Time, only_these, quicker, settings
from tests.unit.fuzz.inputs import EDITS, Edit, HurriedClock, changed_bytes, changed_text, edited, fuzz, reading

pytestmark = MARKS


class OddCloud(OwnCloud):
    """A cloud that gives other answers to what reads; `writes` are the requests that would change something."""

    def __init__(self) -> None:
        self.twist: Callable[[Request, Any], Any] | None = None
        self.writes: list[str] = []
        super().__init__()

    def _serve(self, request: Request) -> Answer | None:
        if self.twist is None:
            return super()._serve(request)
        if request.method not in ("GET", "HEAD") and not request.path.endswith(("/auth/tokens", "/action")):
            self.writes.append(f"{request.method} {request.path}")
        answer = super()._serve(request)
        if answer is None or request.method != "GET" or "/identity" in request.path:
            return answer
        return Answer(answer.status, self.twist(request, answer.body), answer.headers)


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OddCloud, Cloud]]:
    """A course with two machines in such a cloud, and a login."""
    with OddCloud() as stand_in, pytest.MonkeyPatch.context() as patched:
        quicker(patched)
        with pytest.MonkeyPatch.context() as for_now:
            only_these(for_now, stand_in.clouds_yaml(tmp_path_factory.mktemp("odd")))
            cloud = open_cloud(settings(), HurriedClock())
        stand_in.renew()
        for name in ("course-1", "course-2"):
            stand_in.add_machine(name)
        stand_in.network.groups.make({"name": "bio", "description": MARK})
        yield stand_in, cloud
        cloud.api.close()


def ask_quotas(cloud: Cloud) -> None:
    given = settings(boot_volume="20G", volume_type="fast")
    allowances, members = quota.read_allowances(cloud, given, lambda text: None)
    choices = choose(cloud, settings(), lambda text: None)
    inventory = read_inventory(cloud, MARK)
    recipe = quota.recipe(choices, given, inventory, quota.read_groups(cloud, MARK), members)
    quota.most(recipe, 3, allowances)


READERS: dict[str, Callable[[Cloud], object]] = {
    "inventory": lambda cloud: [read_inventory(cloud, MARK, with_work=True).address(n, floating=True) for n in "ab"],
    "volumes": lambda cloud: read_volumes(cloud, MARK),
    "choices": lambda cloud: choose(cloud, settings(availability_zone="nova", key_pair="x"), lambda text: None),
    "open choices": lambda cloud: choose(
        cloud, settings(image="", network="", external_network="", user=""), lambda text: None
    ),
    "quotas": ask_quotas,
    "fault": lambda cloud: read_fault(cloud, "1"),
    "console": lambda cloud: read_console(cloud, "1"),
    "credential": lambda cloud: check_credential(cloud, lambda text: None),
    "clock": check_clock,
}
KINDS = 4  # of requests, one of which is answered otherwise


@fuzz(reader=st.sampled_from(sorted(READERS)), which=st.integers(0, KINDS - 1), edits=EDITS)
def test_any_answer(loopback: str, odd: tuple[OddCloud, Cloud], reader: str, which: int, edits: list[Edit]) -> None:
    stand_in, cloud = odd

    def twist(request: Request, body: Any) -> Any:
        # by its path, and not by its turn: several threads ask at once
        if not isinstance(body, dict) or zlib.crc32(request.path.encode()) % KINDS != which:
            return body
        return json.dumps(edited(body, edits))

    ask(stand_in, cloud, reader, twist)


@fuzz(reader=st.sampled_from(sorted(READERS)), body=changed_bytes(b'{"servers": [], "ports": [{}], "flavors": null}'))
@example(reader="inventory", body=b"[" * 20_000)
@example(reader="choices", body=b"[" * 20_000)
def test_any_body(loopback: str, odd: tuple[OddCloud, Cloud], reader: str, body: bytes) -> None:
    stand_in, cloud = odd
    ask(stand_in, cloud, reader, lambda request, _: body.decode(errors="replace"))


def ask(stand_in: OddCloud, cloud: Cloud, reader: str, twist: Callable[[Request, Any], Any]) -> None:
    stand_in.twist = twist
    try:
        with reading():
            READERS[reader](replace(cloud, clock=HurriedClock()))
    finally:
        stand_in.twist = None
        stand_in.violations.clear()
    assert stand_in.writes == []


# --- consoles ------------------------------------------------------------------------------------

CONSOLE = """[    0.000000] Linux version 6.1.0
ci-info: no authorized SSH keys
-----BEGIN SSH HOST KEY KEYS-----
ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBA== root@course-1
ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArq6Mih3EadRSoWA5OQcddgSIQycUmFufsl3r7eliki root@course-1
-----END SSH HOST KEY KEYS-----
\x1b[32m[  OK  ]\x1b[0m Reached target cloud-init.target
"""


@fuzz(console=changed_text(CONSOLE))
@example(console="-----BEGIN SSH HOST KEY KEYS-----" * 3000)
@example(console="ssh-" + "a" * 200_000)
def test_any_console(tmp_path_factory: pytest.TempPathFactory, console: str) -> None:
    with reading():
        known = KnownHosts(Path("/nowhere"), lambda text: None, keeps=False)
        known.trust("m1", host_keys(console))
        plain(console)
        Booting(lambda: console, HurriedClock()).console_end()


# --- clouds.yaml ---------------------------------------------------------------------------------

CLOUDS = b"""clouds:
  course:
    auth_type: password
    auth: {auth_url: http://127.0.0.1:9/identity/v3, username: ann, password: x, project_name: bio}
    region_name: RegionOne
    interface: public
    api_timeout: 10
"""


def unknown(host: object, *args: object, **kwargs: object) -> object:
    raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")


@fuzz(data=changed_bytes(CLOUDS), slow=12)
@example(data=b"clouds: &a {course: *a}")
@example(data=CLOUDS.replace(b"10", b"ten"))
@example(data=b"clouds:\n  course:\n    auth_type:\n")
def test_any_clouds_yaml(loopback: str, tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "clouds.yaml"
    file.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, reading():
        only_these(patch, file)
        patch.setattr(socket, "getaddrinfo", unknown)
        open_cloud(settings(), Time(), patience=0.01)
