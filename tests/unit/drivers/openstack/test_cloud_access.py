"""Logins to a cloud, and how a failed login is reported."""

from __future__ import annotations

import copy
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudscale.drivers.openstack.cloud import LOGIN_PATIENCE, Cloud, open_cloud
from cloudscale.errors import AccessError
from tests.lab.stand_in import Fault
from tests.unit.drivers.openstack.cloud import (
    MARKS,
    SECRETS,
    WRONG,
    OwnCloud,
    Time,
    only_these,
    settings,
)

pytestmark = MARKS
Json = dict[str, Any]
Opened = Callable[..., Cloud]
PROJECT = Path(__file__).parents[4]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "clouds.yaml"


def changed(file: Path, name: str = "course", *, auth: Json | None = None, **top: Any) -> None:
    """Changes one cloud in the file; None removes a value."""
    clouds = json.loads(file.read_text())
    cloud = clouds["clouds"][name]
    for values, new in ((cloud["auth"], auth or {}), (cloud, top)):
        values.update(new)
        for key in [key for key, value in values.items() if value is None]:
            del values[key]
    file.write_text(json.dumps(clouds))


def refusal(clock: Time, **given: Any) -> str:
    """The error message, which contains no secret."""
    with pytest.raises(AccessError) as raised:
        open_cloud(settings(**given), clock)
    message = str(raised.value)
    assert raised.value.exit_code == 2
    assert not [secret for secret in SECRETS if secret in message]
    assert message == " ".join(message.split(" "))  # without gaps
    return message


def entered(stand_in: OwnCloud, clock: Time, **given: Any) -> Cloud:
    cloud = open_cloud(settings(**given), clock)
    assert cloud.project_id == stand_in.identity.project_id
    assert [net.name for net in cloud.api.network.networks()]
    cloud.api.close()
    return cloud


# --- logins that work ---


@pytest.mark.parametrize("name", ["course", "application"])
def test_a_cloud_of_the_file_is_entered_by_its_name(stand_in: OwnCloud, clock: Time, name: str) -> None:
    assert entered(stand_in, clock, cloud=name).name == name


def test_the_environment_may_name_the_cloud(stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OS_CLOUD", "application")
    assert entered(stand_in, clock, cloud=None).name == "application"


def test_the_configuration_goes_before_the_environment(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OS_CLOUD", "other")
    assert entered(stand_in, clock, cloud="course").name == "course"


def test_the_environment_alone_is_enough(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    file.unlink()
    for name, value in stand_in.environment.items():
        monkeypatch.setenv(name, value)
    entered(stand_in, clock, cloud=None)


def test_the_only_cloud_of_the_file_need_not_be_named(stand_in: OwnCloud, clock: Time, file: Path) -> None:
    clouds = json.loads(file.read_text())
    del clouds["clouds"]["course"]
    file.write_text(json.dumps(clouds))
    assert entered(stand_in, clock, cloud=None).name == "application"


@pytest.mark.parametrize("scope", [{"project_name": "course"}, {"project_id": "1"}, {"system_scope": "all"}])
def test_an_application_credential_with_a_scope_is_named_before_any_login(
    stand_in: OwnCloud, clock: Time, file: Path, scope: dict[str, str]
) -> None:
    clouds = json.loads(file.read_text())
    clouds["clouds"]["application"]["auth"] |= {**scope, "project_domain_name": "Default"}
    file.write_text(json.dumps(clouds))
    message = refusal(clock, cloud="application")
    assert (
        f"application_credential_id '{clouds['clouds']['application']['auth']['application_credential_id']}'" in message
    )
    assert f"Remove {next(iter(scope))} " in message
    assert not [request for request in stand_in.requests if "tokens" in str(request)]


def test_a_token_lets_in_too(stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    cloud = entered(stand_in, clock)
    token = str(cloud.api.auth_token)
    file.unlink()
    whole = {**stand_in.environment, "OS_AUTH_TYPE": "token", "OS_TOKEN": token}
    for name in whole.keys() - {"OS_USERNAME", "OS_PASSWORD", "OS_USER_DOMAIN_NAME"}:
        monkeypatch.setenv(name, whole[name])
    entered(stand_in, clock, cloud=None)


def test_the_region_is_the_one_that_is_named(clock: Time, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    only_these(monkeypatch, file)
    with OwnCloud(regions=("North", "South")) as stand_in:
        stand_in.clouds_yaml(file.parent, "South")
        cloud = entered(stand_in, clock)
        for service in (cloud.api.compute, cloud.api.image, cloud.api.network):
            assert str(service.get_endpoint()).startswith(f"{stand_in.url}/South/")
    assert stand_in.violations == []


def with_own_interfaces(stand_in: OwnCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endpoints of which only the internal one works."""
    catalog = stand_in.identity._catalog

    def shown() -> list[Json]:
        entries = copy.deepcopy(catalog())
        for point in [point for entry in entries for point in entry["endpoints"]]:
            if point["interface"] != "internal":
                point["url"] = "http://192.0.2.1:1"
        return entries

    monkeypatch.setattr(stand_in.identity, "_catalog", shown)


def test_the_interface_is_the_one_that_is_named(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    with_own_interfaces(stand_in, monkeypatch)
    changed(file, interface="internal")
    entered(stand_in, clock)


# --- no account ---


def test_without_an_account_the_remedy_says_where_to_configure_one(clock: Time, file: Path, monkeypatch: Any) -> None:
    only_these(monkeypatch, file)
    message = refusal(clock, cloud=None)
    assert message.startswith("No cloud account is configured (missing: auth_url).")
    assert all(word in message for word in ("clouds.yaml", "~/.config/openstack", "OS_*"))


def test_an_unknown_cloud_is_refused_with_those_that_exist(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    message = refusal(clock, cloud="curse")
    assert message == (
        "The cloud 'curse' can't be used (Cloud curse was not found).\n"
        "  Clouds in clouds.yaml and the environment: course, application."
    )
    monkeypatch.setenv("OS_CLOUD", "curse")
    assert refusal(clock, cloud=None) == message
    assert not stand_in.requests


@pytest.mark.usefixtures("stand_in")
def test_of_several_clouds_one_has_to_be_named(clock: Time) -> None:
    message = refusal(clock, cloud=None)
    assert "clouds.yaml has several clouds: course, application." in message
    assert "openstack.cloud" in message
    assert "OS_CLOUD" in message


@pytest.mark.parametrize(
    "text",
    [
        *("", "clouds:", "clouds: {}", "clouds: [", "clouds: [course]", "clouds: course", "[1, 2]", "just words"),
        *("\x00", "cloud: {course: {}}", "clouds: {course: }", "clouds: {course: 5}", "clouds: {course: [auth]}"),
        *("clouds: {course: {auth: }}", "clouds: {course: {auth: words}}", "clouds: {course: {auth: [words]}}"),
        *("clouds: {course: {region_name: 5}}", "clouds: {course: {region_name: }}"),
    ],
)
def test_a_malformed_file_is_refused(clock: Time, file: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    only_these(monkeypatch, file)
    file.write_text(text)
    assert "clouds.yaml" in refusal(clock, cloud="course" if "course:" in text else None)


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("value", ["soon", "[1]"])
def test_a_malformed_number_is_refused(clock: Time, file: Path, value: str) -> None:
    changed(file, api_timeout=value)
    assert "course" in refusal(clock)


# --- wrong accounts ---


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "auth", "words"),
    [
        ("course", {"password": WRONG}, ["username 'trainer'", "requires authentication", "the password or secret"]),
        ("course", {"username": "other"}, ["username 'other'", "requires authentication"]),
        ("course", {"project_name": "other"}, ["username 'trainer'", "requires authentication", "the project"]),
        ("course", {"user_domain_name": "other"}, ["username 'trainer'", "the domains"]),
        (
            "application",
            {"application_credential_secret": WRONG},
            ["application_credential_id '", "requires authentication", "password or secret"],
        ),
        ("application", {"application_credential_id": "4711"}, ["Could not find Application Credential: 4711"]),
    ],
)
def test_wrong_credentials_are_reported_without_secrets(
    clock: Time, file: Path, name: str, auth: Json, words: list[str]
) -> None:
    changed(file, name, auth=auth)
    message = refusal(clock, cloud=name)
    assert all(word in message for word in (f"the cloud {name!r} at http://", *words)), message
    assert clock.pauses == []  # no repeated logins: the cloud could lock the account


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    ("name", "missing", "words"),
    [
        ("course", ["password"], ["course", "password"]),
        ("course", ["username"], ["course", "username"]),
        ("course", ["auth_url"], ["missing: auth_url"]),
        ("course", ["project_name", "project_domain_name"], ["has no project", "project_name", "OS_PROJECT_NAME"]),
        ("application", ["application_credential_secret"], ["application", "secret"]),
    ],
)
def test_what_is_missing_of_the_credentials_is_named(
    clock: Time, file: Path, name: str, missing: list[str], words: list[str]
) -> None:
    changed(file, name, auth=dict.fromkeys(missing))
    message = refusal(clock, cloud=name)
    assert all(word in message for word in words), message


@pytest.mark.parametrize("missing", ["user_domain_name", "project_domain_name"])
def test_a_missing_domain_is_named(stand_in: OwnCloud, clock: Time, file: Path, missing: str) -> None:
    changed(file, auth={missing: None})
    assert f"find domain in {missing.partition('_')[0]}" in refusal(clock)
    (noted,) = stand_in.violations
    stand_in.violations.clear()
    assert "no domain in" in noted


@pytest.mark.usefixtures("stand_in")
def test_an_unknown_way_to_log_in_is_refused(clock: Time, file: Path) -> None:
    changed(file, auth_type="passwort")
    assert "The plugin passwort could not be found" in refusal(clock)


def test_an_expired_token_is_reported(stand_in: OwnCloud, clock: Time, file: Path) -> None:
    url = stand_in.environment["OS_AUTH_URL"]
    auth = {"auth_url": url, "token": "gAAAAAold", "project_name": "course", "project_domain_name": "Default"}
    file.write_text(json.dumps({"clouds": {"old": {"auth_type": "token", "auth": auth}}}))
    message = refusal(clock, cloud="old")
    assert f"Could not log in to the cloud 'old' at {url} with a token." in message


# --- a cloud that does not answer ---


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("path", ["/v3", "/identity/v3", "/v3/", ""])
def test_an_address_that_does_not_answer_is_reported_in_half_a_minute(clock: Time, file: Path, path: str) -> None:
    url = f"http://127.0.0.1:1{path}"
    changed(file, auth={"auth_url": url})
    message = refusal(clock)
    assert f"Could not log in to the cloud 'course' at {url} with " in message
    assert f"could not connect to {url.rstrip('/')}" in message
    assert "(Connection refused)" in message
    assert "Check auth_url in clouds.yaml" in message
    assert "password" not in message
    assert 5 < clock.now() < LOGIN_PATIENCE


@pytest.mark.usefixtures("stand_in")
def test_who_is_in_a_hurry_gives_a_cloud_up_sooner_and_says_why(clock: Time, file: Path) -> None:
    changed(file, auth={"auth_url": "http://127.0.0.1:1"})
    with pytest.raises(AccessError, match="Connection refused"):
        open_cloud(settings(), clock, patience=3)
    assert clock.now() < 3


def test_all_of_a_login_and_then_each_request_is_within_the_patience(stand_in: OwnCloud, clock: Time) -> None:
    cloud = open_cloud(settings(), clock, patience=3)
    assert (cloud.patience, cloud.api.session.timeout) == (3, 3)
    cloud.api.close()


@pytest.mark.parametrize("url", ["nonsense", "http://", "ftp://127.0.0.1/v3", "127.0.0.1:5000/v3"])
@pytest.mark.usefixtures("stand_in")
def test_a_malformed_address_is_refused(clock: Time, file: Path, url: str) -> None:
    changed(file, auth={"auth_url": url})
    assert url in refusal(clock)


def test_an_address_of_another_service_is_reported(stand_in: OwnCloud, clock: Time, file: Path) -> None:
    changed(file, auth={"auth_url": f"{stand_in.url}/horizon"})
    message = refusal(clock)
    assert f"{stand_in.url}/horizon with " in message
    assert "auth_url" in message
    assert clock.now() < 0.1  # a permanent failure is not retried
    assert "unknown path" in stand_in.violations[0]
    stand_in.violations.clear()


@pytest.mark.parametrize("fault", [503, "before"])
@pytest.mark.parametrize("path", ["/identity/v3$", "/auth/tokens$", "/compute/v2.1$", "/image$"])
def test_a_cloud_that_stumbles_at_the_door_is_asked_again(
    stand_in: OwnCloud, clock: Time, path: str, fault: int | str
) -> None:
    kind: Json = {"status": fault} if isinstance(fault, int) else {"drop": fault}
    stand_in.faults.append(Fault(path=path, times=3, **kind))
    entered(stand_in, clock)
    assert stand_in.faults[0].used


def test_a_cloud_that_stays_down_is_reported_with_its_message(stand_in: OwnCloud, clock: Time) -> None:
    body = {"error": {"code": 503, "message": "Down for the night", "title": "Service Unavailable"}}
    stand_in.faults.append(Fault("POST", "/auth/tokens", status=503, body=body, times=None))
    message = refusal(clock)
    assert "Logging in failed: Down for the night (HTTP 503)." in message
    assert clock.now() < LOGIN_PATIENCE


def test_the_message_of_a_proxy_is_reported_without_its_tags(stand_in: OwnCloud, clock: Time) -> None:
    stand_in.faults.append(Fault("POST", "/auth/tokens", status=502, times=None))
    message = refusal(clock)
    assert "A fault on demand (HTTP 502)." in message
    assert not set("<>") & set(message)


# --- a cloud without the required services ---


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(("key", "value"), [("region_name", "Mars"), ("interface", "inner")])
def test_a_region_without_services_is_reported_with_the_available_regions(
    clock: Time, file: Path, key: str, value: str
) -> None:
    given: Json = {key: value}
    changed(file, **given)
    message = refusal(clock)
    assert "'course' has no service compute in region" in message
    assert repr(value) in message
    assert "Available regions: RegionOne. Set region_name or interface" in message


@pytest.mark.parametrize("service", ["compute", "network", "image"])
def test_a_cloud_that_lacks_a_service_is_reported(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    catalog = stand_in.identity._catalog
    monkeypatch.setattr(stand_in.identity, "_catalog", lambda: [e for e in catalog() if e["type"] != service])
    assert f"has no service {service} in region 'RegionOne', interface 'public'" in refusal(clock)


@pytest.mark.parametrize(("newest", "comes_in"), [("", False), ("2.25", False), ("2.51", False), ("2.52", True)])
def test_a_cloud_too_old_for_tags_is_refused(
    stand_in: OwnCloud, clock: Time, monkeypatch: pytest.MonkeyPatch, newest: str, comes_in: bool
) -> None:
    about = stand_in.compute._about
    oldest = "2.1" if newest else ""
    monkeypatch.setattr(stand_in.compute, "_about", lambda: about() | {"version": newest, "min_version": oldest})
    if comes_in:
        entered(stand_in, clock)
        return
    message = refusal(clock)
    assert re.search(r"too old.* 2\.52", message)
    assert newest in message
    assert "--driver generic" in message


# --- in a process ---


@pytest.mark.usefixtures("processes")
def test_a_refusal_is_all_that_is_printed(stand_in: OwnCloud, file: Path, tmp_path: Path) -> None:
    changed(file, auth={"password": WRONG})
    # the libraries would log this
    stand_in.faults.append(Fault(path="/identity/v3$", status=503))
    world = {**os.environ, "HOME": str(tmp_path)}
    run = [sys.executable, "-m", "invoke", "--search-root", str(PROJECT), "status"]
    clouds = {"INVOKE_CLOUDSCALE_OPENSTACK_CLOUD": "course"}
    done = subprocess.run(run, cwd=tmp_path, env=world | clouds, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"Error: Could not log in to the cloud 'course' at \S+ with .*\n  Check the credentials .*\n", done.stderr
    )
    assert WRONG not in done.stderr
