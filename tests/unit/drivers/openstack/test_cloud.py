"""How often a request is repeated before its failure is reported, and how it is reported."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from keystoneauth1.identity import BaseIdentityPlugin

from cloudscale.drivers.openstack.cloud import (
    ARRIVING,
    AT_ONCE,
    LONGEST_PAUSE,
    LONGEST_RETRY_AFTER,
    PATIENCE,
    PAUSE,
    TRANSIENT,
    Cloud,
    open_cloud,
)
from cloudscale.errors import CloudError
from cloudscale.fanout import fan_out
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARK,
    MARKS,
    OwnCloud,
    Time,
    settings,
)

pytestmark = MARKS
PORTS = "/v2.0/ports"


def look(cloud: Cloud) -> list[str]:
    """A request that a working cloud answers with ["course-net", "public"]."""
    return cloud.attempt("Looking", lambda: sorted(net.name for net in cloud.api.network.networks()))


def make(cloud: Cloud) -> str:
    """Creates a port, of which only one must exist."""
    network = cloud.api.network
    (net,) = network.networks(name="course-net")

    def create() -> str:
        return str(network.create_port(network_id=net.id, name="bio-1", description=MARK).id)

    def find() -> str | None:
        return next((port.id for port in network.ports(description=MARK)), None)

    return cloud.attempt("Making it", create, found=find)


def failure(cloud: Cloud) -> CloudError:
    with pytest.raises(CloudError) as raised:
        look(cloud)
    assert raised.value.exit_code == 1
    return raised.value


# --- transient failures ---


@pytest.mark.parametrize("fault", [*({"status": code} for code in sorted(TRANSIENT)), {"drop": "before"}])
def test_a_cloud_that_stumbles_is_asked_again(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, fault: dict[str, Any]
) -> None:
    stand_in.faults.append(Fault(path="/networks", **fault))
    assert look(cloud) == ["course-net", "public"]
    assert stand_in.count("GET", "/networks") == 2
    (pause,) = clock.pauses
    assert PAUSE / 2 <= pause <= PAUSE


def test_so_is_one_that_does_not_answer_in_time(alone: OwnCloud, clock: Time, tmp_path: Path) -> None:
    file = tmp_path / "clouds.yaml"
    clouds = json.loads(file.read_text())
    clouds["clouds"]["course"]["api_timeout"] = 0.3
    file.write_text(json.dumps(clouds))
    cloud = open_cloud(settings(), clock)
    alone.faults.append(Fault(path="/networks", seconds=60))
    assert look(cloud) == ["course-net", "public"]
    assert len(clock.pauses) == 1
    cloud.api.close()


def test_no_request_waits_for_ever(cloud: Cloud) -> None:
    assert 10 <= (cloud.api.session.timeout or 0) <= 120


def test_the_pauses_grow_and_end_with_the_patience(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.faults.append(Fault(path="/networks", status=503, times=None))
    assert "Looking failed: " in failure(cloud).message
    assert PATIENCE - LONGEST_PAUSE < clock.now() <= PATIENCE + 1
    longest = PAUSE
    for pause in clock.pauses:
        assert longest / 2 <= pause <= longest
        longest = min(2 * longest, LONGEST_PAUSE)
    assert len(stand_in.requests) == len(clock.pauses) + 1


@pytest.mark.parametrize("seconds", [1, 7, LONGEST_RETRY_AFTER / 2])
def test_a_cloud_that_says_when_is_asked_then(stand_in: OwnCloud, cloud: Cloud, clock: Time, seconds: float) -> None:
    stand_in.faults.append(Fault(path="/networks", status=429, retry_after=int(seconds), times=2))
    assert look(cloud) == ["course-net", "public"]
    assert clock.pauses == [seconds, seconds]


def test_a_wish_that_is_too_long_is_not_granted_in_full(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.faults.append(Fault(path="/networks", status=503, retry_after=86400))
    assert look(cloud) == ["course-net", "public"]
    assert clock.pauses == [LONGEST_RETRY_AFTER]


@pytest.mark.parametrize("wish", ["Fri, 07 Nov 2025 23:59:59 GMT", "", "soon", "0", "-5", "nan"])
def test_a_wish_that_is_no_number_of_seconds_is_none(stand_in: OwnCloud, cloud: Cloud, clock: Time, wish: str) -> None:
    stand_in.faults.append(Fault(path="/networks", status=429, retry_after=wish))  # type: ignore[arg-type]
    assert look(cloud) == ["course-net", "public"]
    (pause,) = clock.pauses
    assert PAUSE / 2 <= pause <= PAUSE


@pytest.mark.parametrize("path", ["/networks", "/flavors", "/images", "/volumes"])
def test_only_transient_failures_are_retried_after_a_pause(
    stand_in: OwnCloud, cloud: Cloud, clock: Time, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    api = cloud.api
    listings: dict[str, Callable[[], Iterable[Any]]] = {
        "/networks": api.network.networks,
        "/flavors": api.compute.flavors,
        "/images": api.image.images,
        "/volumes": api.block_storage.volumes,
    }
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    stand_in.faults.append(Fault(path=path, status=503, retry_after=30))
    cloud.attempt("Looking", lambda: list(listings[path]()))
    assert clock.pauses == [30]  # the library's own retries would ignore Retry-After
    assert slept == []


# --- permanent failures ---


@pytest.mark.parametrize("code", [400, 403, 404, 405, 409, 413, 501])
def test_what_is_refused_is_not_asked_again(stand_in: OwnCloud, cloud: Cloud, clock: Time, code: int) -> None:
    body = {"NeutronError": {"type": "No", "message": "The cloud's own words.", "detail": ""}}
    stand_in.faults.append(Fault(path="/networks", status=code, body=body, times=None))
    error = failure(cloud)
    assert error.message == f"Looking failed: The cloud's own words (HTTP {code})."
    assert error.remedy
    assert clock.pauses == []


@pytest.mark.parametrize(
    ("code", "word"), [(403, "has no permission for that"), (413, "quota"), (429, "accepts no more requests")]
)
def test_the_remedy_is_for_the_refusal(stand_in: OwnCloud, cloud: Cloud, code: int, word: str) -> None:
    stand_in.faults.append(Fault(path="/networks", status=code, times=None))
    assert word in failure(cloud).remedy


def test_the_message_of_a_proxy_is_reported_without_its_tags(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault(path="/networks", status=504, times=None))
    message = failure(cloud).message
    assert "A fault on demand" in message
    assert message.endswith("(HTTP 504).")
    assert not set("<>\n") & set(message)


def test_a_dead_connection_is_reported_with_its_address(alone: OwnCloud, clock: Time) -> None:
    cloud = open_cloud(settings(), clock)
    alone.close()
    message = failure(cloud).message
    cloud.api.close()
    assert message.startswith(f"Looking failed: could not connect to {alone.url}/network/v2.0/networks (")
    assert clock.now() > PATIENCE / 2


def test_a_lost_connection_is_reported_without_the_libraries_words(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault(path="/networks", drop="before", times=None))
    message = failure(cloud).message
    assert f"{stand_in.url}/network/v2.0/networks" in message
    assert "(" not in message


def test_a_defect_of_ours_is_not_taken_for_the_clouds(cloud: Cloud, clock: Time) -> None:
    with pytest.raises(ZeroDivisionError):
        cloud.attempt("Looking", lambda: 1 // 0)
    assert clock.pauses == []


# --- requests that may have been carried out ---


@pytest.mark.parametrize("fault", [*({"status": code} for code in sorted(TRANSIENT)), {"drop": "before"}])
def test_what_was_not_done_is_done_in_the_next_attempt(stand_in: OwnCloud, cloud: Cloud, fault: dict[str, Any]) -> None:
    stand_in.faults.append(Fault("POST", PORTS, **fault))
    assert stand_in.network.ports.items[make(cloud)]["name"] == "bio-1"
    assert stand_in.totals()["ports"] == 1
    assert [made.method for made in stand_in.requests if PORTS in made.path] == ["POST", "GET", "POST"]


def test_what_was_done_without_an_answer_is_not_done_again(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault("POST", PORTS, drop="after"))
    assert stand_in.network.ports.items[make(cloud)]["name"] == "bio-1"
    assert stand_in.totals()["ports"] == 1
    assert [made.method for made in stand_in.requests if PORTS in made.path] == ["POST", "GET"]


def test_nor_is_what_was_done_with_a_wrong_answer(stand_in: OwnCloud, cloud: Cloud) -> None:
    # the proxy gave up, but the service carried it out
    stand_in.faults.append(Fault("POST", PORTS, status=504))

    def proxy(request: Any) -> None:
        if request.method == "POST" and not stand_in.totals()["ports"]:
            stand_in.add_port("bio-1")

    stand_in.seen = proxy
    make(cloud)
    assert stand_in.totals()["ports"] == 1


def test_a_request_that_was_not_answered_has_time_to_arrive(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.faults.append(Fault("POST", PORTS, drop="before"))
    late = ["bio-1"]  # is still being carried out

    def arrive(request: Any) -> None:
        if request.method == "GET" and PORTS in request.path and late and clock.now() >= ARRIVING:
            stand_in.add_port(late.pop())

    stand_in.seen = arrive
    make(cloud)
    assert stand_in.totals()["ports"] == 1


def test_a_look_that_stumbles_itself_is_repeated(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults += [Fault("POST", PORTS, drop="after"), Fault("GET", PORTS, status=500, times=3)]
    make(cloud)
    assert stand_in.totals()["ports"] == 1


def test_what_could_not_be_created_is_reported(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.set_quota("port", 0)
    with pytest.raises(CloudError, match=r"Making it failed: Quota exceeded for resources: \['port'\] \(HTTP 409\)"):
        make(cloud)
    assert stand_in.count("POST", PORTS) == 1


# --- tokens ---


def test_a_token_that_runs_out_is_replaced_in_silence(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.identity.expire_all()
    assert look(cloud) == ["course-net", "public"]
    assert clock.pauses == []


def test_it_is_replaced_for_all_who_meet_it_at_once(stand_in: OwnCloud, cloud: Cloud) -> None:
    # no request is refused before all have arrived
    together = threading.Barrier(8, action=stand_in.identity.expire_all)
    arrived: list[str] = []

    def gather(request: Any) -> None:
        if "/networks" in request.path and len(arrived) < together.parties:
            arrived.append(request.target)
            together.wait(50)  # seconds: on a busy machine threads start late

    stand_in.seen = gather
    outcomes = fan_out(lambda _: look(cloud), range(together.parties))
    assert [outcome.error for outcome in outcomes] == [None] * together.parties


def test_a_token_that_is_refused_goes_when_nobody_is_being_given_it(cloud: Cloud, stand_in: OwnCloud) -> None:
    plugin = cloud.api.session.auth
    assert isinstance(plugin, BaseIdentityPlugin)
    invalidate, refused = plugin.invalidate, list[threading.Thread]()

    class Refusing:
        """The plugin's own lock; another thread meets a refusal as soon as it is free."""

        def __enter__(self) -> None:
            pass

        def __exit__(self, *_: object) -> None:
            refused.append(threading.Thread(target=invalidate))
            refused[-1].start()
            refused[-1].join(0.1)

    vars(plugin)["_lock"] = Refusing()
    logins = stand_in.count("POST", "/auth/tokens$")
    first = plugin.get_access(cloud.api.session)
    refused[0].join()
    assert first.auth_token and plugin.get_access(cloud.api.session).auth_token
    assert stand_in.count("POST", "/auth/tokens$") == logins + 1


def test_an_account_that_was_closed_meanwhile_is_reported(stand_in: OwnCloud, cloud: Cloud, clock: Time) -> None:
    stand_in.identity.expire_all()
    stand_in.identity.password = "another"
    error = failure(cloud)
    assert "(HTTP 401)" in error.message
    assert "credentials" in error.remedy
    assert clock.now() < ARRIVING  # no repeated logins: the cloud could lock the account


# --- many requests at once ---


def test_a_service_gets_as_many_requests_at_once_as_it_has_connections(stand_in: OwnCloud, cloud: Cloud) -> None:
    stand_in.faults.append(Fault(path="/networks", seconds=0.02, times=None))
    outcomes = fan_out(lambda _: look(cloud), range(25), width=25)
    assert all(outcome.ok for outcome in outcomes)
    assert 1 < stand_in.most_at_once <= AT_ONCE
