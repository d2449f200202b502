"""The cloud's API: who asks, and how often it is asked again before a fault counts."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from keystoneauth1 import exceptions as ksa
from keystoneauth1.access import AccessInfo
from keystoneauth1.identity import BaseIdentityPlugin
from openstack import exceptions as sdk
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from cloudscale.course.settings import OpenStackSettings
from cloudscale.errors import AccessError, CloudError
from cloudscale.waiting import Clock, SystemClock

T = TypeVar("T")

ANSWERING = 60.0  # seconds for one request
PATIENCE = 240.0  # seconds for one thing to be done, with all its attempts
LOGIN_PATIENCE = 30.0  # the same for the login: an address may be mistyped
PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two attempts; each pause is up to twice the one before
ARRIVING = 5.0  # seconds in which a request that was not answered is carried out, if it is
LONGEST_WISH = 120.0  # seconds of Retry-After that are granted
AT_ONCE = 10  # requests; as many connections as the client keeps open to one service
# what a cloud answers that is busy or half down (RFC 9110, 15.5 and 15.6; 425: RFC 8470, 429: RFC 6585)
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
TAGS = (2, 52)  # the microversion of compute from which on a server can be made with tags
MICROVERSION = "2.52"
SERVICES = ("compute", "image", "network")
WHO = ("username", "user_id", "application_credential_name", "application_credential_id")

# requests' own words, within keystoneauth's
NO_CONNECTION = re.compile(r"(?:Unable to|Unexpected).*? (?:to|for) (\S+?):? .*\[Errno -?\d+\] ([^\"')\]]+)")
BROKEN = re.compile(r"(?:Unable to|Unexpected).*? (?:to|for) (\S+?): .*\(")

FORM = "clouds.yaml is YAML, with your cloud under clouds: (docs.openstack.org/openstacksdk has examples)."

for library in ("keystoneauth", "openstack"):  # what goes wrong is told once, by us
    logging.getLogger(library).addHandler(logging.NullHandler())

Failure = (sdk.SDKException, ksa.ClientException)
# among them what the libraries say of a service that did not tell its versions
OUT_OF_REACH = (
    ksa.ConnectFailure,
    ksa.UnknownConnectionError,
    ksa.RetriableConnectionFailure,
    ksa.DiscoveryFailure,
    sdk.NotSupported,
    sdk.ServiceDiscoveryException,
)


@dataclass(frozen=True)
class Cloud:
    """One project of one cloud. Safe to use from several threads."""

    api: Connection
    name: str
    project_id: str
    clock: Clock

    def attempt(
        self,
        what: str,
        call: Callable[[], T],
        *,
        found: Callable[[], T | None] | None = None,
        patience: float = PATIENCE,
        has_token: bool = True,
    ) -> T:
        """Makes a request, and again with growing pauses where the cloud or the line to it is at fault.

        `found` looks for what the request creates: one that was not answered may have been heard all the same.
        Raises CloudError, with the cloud's own words.
        """
        deadline, pause, renewed = self.clock.now() + patience, PAUSE, not has_token
        while True:
            try:
                return call()
            except Failure as error:
                wish = _retry_after(error)
                wait = min(wish, LONGEST_WISH) if wish else random.uniform(pause / 2, pause)
                if found and status(error) is None:  # what was asked for may yet be on its way
                    wait = max(wait, ARRIVING)
                # of several threads whose token has run out, the first gets a new one for all, and the others this
                expired = status(error) == 401 and not renewed
                renewed = renewed or expired
                if not (expired or is_transient(error)) or self.clock.now() + wait > deadline:
                    raise told(what, error) from None
            self.clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
            if found and (there := self.attempt(f"{what} (was it done?)", found)) is not None:
                return there


def is_transient(error: Exception) -> bool:
    """Whether the same request may do better a little later."""
    if isinstance(error, ksa.SSLError):
        return False
    if isinstance(error, ksa.DiscoveryFailure) and isinstance(error.__context__, Failure):
        return is_transient(error.__context__)  # a 404 is a wrong address
    if isinstance(error, OUT_OF_REACH):
        return True
    return status(error) in TRANSIENT


def status(error: Exception) -> int | None:
    """The HTTP status of an answer that was a refusal."""
    found = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    return int(found) if found else None


def _retry_after(error: Exception) -> float:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    wish = str(headers.get("Retry-After", "")).strip()
    return float(wish) if wish.isdecimal() else 0.0  # a date (RFC 9110, 10.2.3) is read as no wish


def told(what: str, error: Exception) -> CloudError:
    """A failure in the cloud's own words, with what can be done about it."""
    code = status(error)
    remedy = {
        401: "The credentials have run out or were taken back: get new ones, then run again.",
        403: "Your account may not do that, or a quota is used up: ask who runs the cloud.",
        413: "A quota is used up: ask who runs the cloud.",
        429: "The cloud takes no more requests just now: run again in some minutes.",
    }.get(code or 0, "Run again; if it stays, ask who runs the cloud.")
    return CloudError(f"{what}: {_plain(error)}{f' (HTTP {code})' if code else ''}.", remedy)


def open_cloud(settings: OpenStackSettings, clock: Clock | None = None) -> Cloud:
    """Logs in, by clouds.yaml or the environment (OS_*). Raises AccessError, with what is wrong by name."""
    try:
        known = OpenStackConfig(app_name="cloudscale")
        names = ", ".join(name for name in known.get_cloud_names() if name != "defaults")
    except Exception as error:  # what is not of the form of a clouds.yaml breaks it in many ways
        raise AccessError(f"clouds.yaml can't be read ({_plain(error)}).", FORM) from None
    if settings.cloud is None and known.default_cloud is None:
        raise AccessError(
            f"There are several clouds to choose from: {names}.",
            "Name one: openstack.cloud in the configuration, or OS_CLOUD.",
        )
    try:
        region = known.get_one(cloud=settings.cloud)
        region.config["api_timeout"] = float(region.config.get("api_timeout") or ANSWERING)
        # asking again is done here, and nowhere else; of so many at once, the library lets in one more
        region.config |= {"status_code_retries": 0, "connect_retries": 0, "image_status_code_retries": 0}
        region.config["concurrency"] = dict.fromkeys((*SERVICES, "block-storage"), AT_ONCE - 1)
        connection = Connection(config=region)
    except ksa.MissingRequiredOptions as error:
        raise AccessError(
            f"No cloud account is known (missing: {', '.join(option.dest for option in error.options)}).",
            "Save clouds.yaml, as your cloud's web page offers it, here or in ~/.config/openstack, or set OS_*."
            f" If it is there: {FORM}",
        ) from None
    except Failure as error:
        raise AccessError(
            f"The cloud {settings.cloud or known.default_cloud!r} can't be used ({_plain(error)}).",
            f"clouds.yaml and the environment have: {names or 'none'}.",
        ) from None
    except Exception as error:  # as above: a number that is none, a list where there should be a name
        raise AccessError(
            f"What is said of the cloud {settings.cloud or known.default_cloud!r} can't be read ({_plain(error)}).",
            FORM,
        ) from None
    cloud = Cloud(connection, region.name, "", clock or SystemClock())
    access = _login(cloud)
    _check_services(cloud, access)
    _check_tags(cloud)
    return replace(cloud, project_id=str(access.project_id))


def _login(cloud: Cloud) -> AccessInfo:
    session, arguments = cloud.api.session, cloud.api.config.get_auth_args()
    plugin = session.auth
    assert isinstance(plugin, BaseIdentityPlugin)
    where = f"the cloud {cloud.name!r} at {arguments.get('auth_url')}"
    who = next((f"{key} {arguments[key]!r}" for key in WHO if arguments.get(key)), "")
    if not who and cloud.api.config.config.get("auth_type") in ("password", "v3password"):
        raise AccessError(f"The credentials for {where} are not complete: there is no username.")
    who = who or "a token"
    try:
        access: AccessInfo = cloud.attempt(
            "Logging in", lambda: plugin.get_access(session), patience=LOGIN_PATIENCE, has_token=False
        )
    except CloudError as error:
        raise AccessError(
            f"{where[0].upper()}{where[1:]} does not let {who} in. {error.message}",
            "Check the credentials in clouds.yaml or OS_*: the password or secret, the project, the domains, auth_url.",
        ) from None
    except Exception as error:  # a plugin that lacks a part of the credentials has no error of its own for that
        raise AccessError(f"The credentials for {where} are not complete: {_plain(error)}.") from None
    if not access.project_id:
        raise AccessError(
            f"The account for {where} names no project.",
            "Set project_name (OS_PROJECT_NAME) with project_domain_name, or use an application credential.",
        )
    return access


def _check_services(cloud: Cloud, access: AccessInfo) -> None:
    """Has the client find all services now: it is not safe to use from threads before."""
    config = cloud.api.config
    region, interface = config.get_region_name(), config.get_interface()
    for service in SERVICES:
        try:
            cloud.attempt("Looking for it", partial(_endpoint, cloud, service), patience=LOGIN_PATIENCE)
        except CloudError as error:
            regions = sorted({point["region"] for one in access.service_catalog.catalog for point in one["endpoints"]})
            raise AccessError(
                f"The cloud {cloud.name!r} has no service {service} in region {region or 'any'!r}, interface"
                f" {interface!r} ({error.message})",
                f"Its regions: {', '.join(regions)}. Set region_name or interface in clouds.yaml (OS_REGION_NAME,"
                " OS_INTERFACE).",
            ) from None


def _check_tags(cloud: Cloud) -> None:
    """Servers are known by their tags."""
    newest = cloud.attempt("Reading the versions of compute", partial(_newest, cloud), patience=LOGIN_PATIENCE)
    if newest < TAGS:
        version = ".".join(map(str, newest))
        raise AccessError(
            f"The cloud {cloud.name!r} is too old: its compute service speaks {version}, and 2.52 (of 2017) is needed.",
            "Make the machines yourself, and use them with --driver generic.",
        )


def _newest(cloud: Cloud) -> tuple[float, ...]:
    """The newest microversion of compute; 2.1 where it has none."""
    found = cloud.api.compute.get_endpoint_data()
    if not found or not found.max_microversion:  # the library says the same of a service that did not answer
        cloud.api.session.get(str(cloud.api.config.get_endpoint_from_catalog("compute")))
        found = cloud.api.compute.get_endpoint_data()
    return found.max_microversion if found and found.max_microversion else (2, 1)


def _endpoint(cloud: Cloud, service: str) -> object:
    return getattr(cloud.api, service).get_endpoint()


def _plain(error: Exception) -> str:
    """An error's text without what only the cloud's makers read."""
    text = getattr(error, "details", None) or getattr(error, "message", None) or str(error) or type(error).__name__
    text = re.sub(r"<[^>]*>", " ", str(text))  # of proxies
    text = re.sub(r"\s*\((HTTP \d+|Request-ID: \S+)\)", "", " ".join(text.split()))
    if cause := NO_CONNECTION.search(text):
        return f"there is no connection to {cause[1]} ({cause[2].strip()})"
    if broken := BROKEN.search(text):
        return f"the connection to {broken[1]} broke off"
    return text.rstrip(".")
