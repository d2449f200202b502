"""The API of the cloud: the login, and how often a request is repeated before its failure is reported."""

from __future__ import annotations

import contextlib
import logging
import os
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, TypeVar

from keystoneauth1 import exceptions as ksa
from keystoneauth1.access import AccessInfo
from keystoneauth1.identity import BaseIdentityPlugin
from keystoneauth1.session import Session
from openstack import exceptions as sdk
from openstack.config import OpenStackConfig
from openstack.connection import Connection

from cloudscale.course.settings import OpenStackSettings
from cloudscale.errors import AccessError, CloudError
from cloudscale.outside import UNEXPECTED, OtherForm, home_path, in_words, is_of_library
from cloudscale.waiting import Clock, SystemClock

T = TypeVar("T")

ANSWERING = 60.0  # seconds for one request
PATIENCE = 240.0  # seconds for one action, with all its attempts
LOGIN_PATIENCE = 30.0  # the same for the login, which is shorter because the address may be wrong
LOGIN_REQUESTS = 2  # Keystone's versions, then the token
PAUSE, LONGEST_PAUSE = 0.5, 15.0  # seconds between two attempts; each pause is up to twice the previous one
ARRIVING = 5.0  # seconds in which the cloud may still carry out a request that it did not answer
LONGEST_RETRY_AFTER = 120.0  # seconds; a longer Retry-After is cut to this
AT_ONCE = 10  # requests; the client keeps as many connections to one service open
# answers of a cloud that is busy or partly down (RFC 9110, 15.5 and 15.6; 425: RFC 8470, 429: RFC 6585)
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
TAGS = (2, 52)  # the first microversion of compute in which a server can be created with tags
MICROVERSION = "2.52"
SERVICES = ("compute", "image", "network")
# Keystone refuses these with an application credential ("Application credentials cannot request a scope")
SCOPE = ("project_name", "project_id", "tenant_name", "tenant_id", "domain_name", "domain_id", "system_scope")
ACCOUNT = ("username", "user_id", "application_credential_name", "application_credential_id")

# the texts of requests, as part of the texts of keystoneauth1
NO_CONNECTION = re.compile(r"(?:Unable to|Unexpected).*? (?:to|for) (\S+?):? .*\[Errno -?\d+\] ([^\"')\]]+)")
BROKEN = re.compile(r"(?:Unable to|Unexpected).*? (?:to|for) (\S+?): .*\(")

COMPLETE = "Complete them in clouds.yaml or OS_*."
FORM = "clouds.yaml is YAML, with your cloud under clouds: (docs.openstack.org/openstacksdk has examples)."

for library in ("keystoneauth", "openstack"):  # failures are reported once, by us
    logging.getLogger(library).addHandler(logging.NullHandler())

Failure = (sdk.SDKException, ksa.ClientException)
# the last three: errors of the libraries if a service did not report its versions
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
    """One project of one cloud. Safe to use from several threads.

    `patience`: seconds for one action at most, if less than usual.
    """

    api: Connection
    name: str
    project_id: str
    clock: Clock
    patience: float = PATIENCE

    def attempt(
        self,
        what: str,
        call: Callable[[], T],
        *,
        found: Callable[[], T | None] | None = None,
        patience: float = PATIENCE,
        has_token: bool = True,
    ) -> T:
        """Makes a request, and repeats it with growing pauses while the cloud or the connection to it fails.

        `found` looks for what the request creates: the cloud may have carried out a request that it did not answer.
        Raises CloudError, with the message of the cloud.
        """
        deadline, pause, renewed = self.clock.now() + min(patience, self.patience), PAUSE, not has_token
        while True:
            try:
                with understood(what):
                    return call()
            except Failure as error:
                asked = _retry_after(error)
                wait = min(asked, LONGEST_RETRY_AFTER) if asked else random.uniform(pause / 2, pause)
                if found and status(error) is None:  # no answer: the cloud may still carry it out
                    wait = max(wait, ARRIVING)
                # if the token of several threads has expired, the first thread renews it, and all of them try again
                expired = status(error) == 401 and not renewed
                renewed = renewed or expired
                if not (expired or is_transient(error)) or self.clock.now() + wait > deadline:
                    raise cloud_error(what, error) from None
            self.clock.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)
            if found and (existing := self.attempt(f"{what} (looking whether it was done)", found)) is not None:
                return existing


@contextlib.contextmanager
def understood(what: str) -> Iterator[None]:
    """Turns the error over an answer that is none of the API's into a CloudError: ours, or that of a library.

    `what` was being done.
    """
    try:
        yield
    except (OtherForm, *UNEXPECTED) as error:
        if not isinstance(error, OtherForm) and not is_of_library(error):
            raise
        raise CloudError(
            f"{what} failed: the cloud's answer can't be understood ({in_words(error)}).",
            "Check the address of the cloud, and the versions of its services. --debug shows more.",
        ) from error


def is_transient(error: Exception) -> bool:
    """Whether the same request may succeed a little later."""
    if isinstance(error, ksa.SSLError):
        return False
    if isinstance(error, ksa.DiscoveryFailure) and isinstance(error.__context__, Failure):
        return is_transient(error.__context__)  # a 404 means a wrong address
    if isinstance(error, OUT_OF_REACH):
        return True
    return status(error) in TRANSIENT


def status(error: Exception) -> int | None:
    """The HTTP status of the cloud's answer; None if there was no answer."""
    code = getattr(error, "status_code", None) or getattr(error, "http_status", None)
    return int(code) if code else None


def _retry_after(error: Exception) -> float:
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", None) or {}
    seconds = str(headers.get("Retry-After", "")).strip()
    return float(seconds) if seconds.isdecimal() else 0.0  # a date (RFC 9110, 10.2.3) is ignored


def cloud_error(what: str, error: Exception) -> CloudError:
    """A failed request with the message of the cloud, and what the user can do."""
    code = status(error)
    remedy = {
        401: "The credentials have expired or were revoked. Get new ones, then run again.",
        403: "Your account has no permission for that, or a quota is used up. Ask the cloud's administrators.",
        413: "A quota is used up. Ask the cloud's administrators.",
        429: "The cloud accepts no more requests at the moment. Run again in some minutes.",
    }.get(code or 0, "Run again. If it fails again, ask the cloud's administrators.")
    return CloudError(f"{what} failed: {_plain(error)}{f' (HTTP {code})' if code else ''}.", remedy)


def open_cloud(settings: OpenStackSettings, clock: Clock | None = None, patience: float | None = None) -> Cloud:
    """Logs in, with clouds.yaml or the environment (OS_*). Raises AccessError, which names what is wrong.

    `patience`: seconds for each action, if less than usual.
    """
    if file := os.environ.get("OS_CLIENT_CONFIG_FILE"):
        os.environ["OS_CLIENT_CONFIG_FILE"] = str(home_path(file))
    try:
        known = OpenStackConfig(app_name="cloudscale")
        names = ", ".join(name for name in known.get_cloud_names() if name != "defaults")
    except Exception as error:  # the library has no error of its own for a malformed clouds.yaml
        raise AccessError(f"Could not read clouds.yaml ({_plain(error)}).", FORM) from None
    if settings.cloud is None and known.default_cloud is None:
        raise AccessError(
            f"clouds.yaml has several clouds: {names}.",
            "Choose one: set openstack.cloud in the configuration, or OS_CLOUD.",
        )
    try:
        region = known.get_one(cloud=settings.cloud)
        region.config["api_timeout"] = min(float(region.config.get("api_timeout") or ANSWERING), patience or inf)
        # retries are made here only, not by the library; the library allows one request more than this number
        region.config |= {"status_code_retries": 0, "connect_retries": 0, "image_status_code_retries": 0}
        region.config["concurrency"] = dict.fromkeys((*SERVICES, "block-storage"), AT_ONCE - 1)
        connection = Connection(config=region)
    except ksa.MissingRequiredOptions as error:
        raise AccessError(
            f"No cloud account is configured (missing: {', '.join(option.dest for option in error.options)}).",
            "Download clouds.yaml from your cloud's web page, and save it here or in ~/.config/openstack. Or set OS_*."
            f" If it is there: {FORM} For the Docker Engine of this computer, add --driver local.",
        ) from None
    except Failure as error:
        raise AccessError(
            f"The cloud {settings.cloud or known.default_cloud!r} can't be used ({_plain(error)}).",
            f"Clouds in clouds.yaml and the environment: {names or 'none'}.",
        ) from None
    except Exception as error:  # malformed, as above: a text instead of a number, a list instead of a name
        raise AccessError(
            f"The configuration of the cloud {settings.cloud or known.default_cloud!r} is malformed ({_plain(error)}).",
            FORM,
        ) from None
    cloud = Cloud(connection, region.name, "", clock or SystemClock(), patience or PATIENCE)
    session: Any = connection.session
    session.timeout /= LOGIN_REQUESTS  # so that all of a login together is within the patience
    access = _login(cloud)
    session.timeout *= LOGIN_REQUESTS
    _check_services(cloud, access)
    _check_tags(cloud)
    return replace(cloud, project_id=str(access.project_id))


def _login(cloud: Cloud) -> AccessInfo:
    session, arguments = cloud.api.session, cloud.api.config.get_auth_args()
    plugin = session.auth
    if not isinstance(plugin, BaseIdentityPlugin):
        raise AccessError(f"The cloud {cloud.name!r} has no way to log in (auth_type).", COMPLETE)
    _guard_token(plugin)
    where = f"the cloud {cloud.name!r} at {arguments.get('auth_url')}"
    account = next((f"{key} {arguments[key]!r}" for key in ACCOUNT if arguments.get(key)), "")
    if not account and cloud.api.config.config.get("auth_type") in ("password", "v3password"):
        raise AccessError(f"The credentials for {where} are incomplete: the username is missing.", COMPLETE)
    scope = [key for key in SCOPE if arguments.get(key)]
    if account.startswith("application") and scope:
        raise AccessError(
            f"The {account} for {where} belongs to one project, and must not name another scope: {', '.join(scope)}.",
            f"Remove {', '.join(scope)} from that cloud in clouds.yaml (or unset OS_PROJECT_NAME and the like).",
        )
    try:
        access: AccessInfo = cloud.attempt(
            "Logging in", lambda: plugin.get_access(session), patience=LOGIN_PATIENCE, has_token=False
        )
    except CloudError as error:
        expired = " The application credential may have expired." if account.startswith("application") else ""
        raise AccessError(
            f"Could not log in to {where} with {account or 'a token'}. {error.message}",
            "Check auth_url in clouds.yaml (OS_AUTH_URL), the network, and the VPN if your cloud needs one."
            if isinstance(error.__context__, OUT_OF_REACH)
            else "Check the credentials in clouds.yaml or OS_*: the password or secret, the project, the domains,"
            f" auth_url.{expired}",
        ) from None
    except Exception as error:  # the plugins have no error of their own for missing credentials
        raise AccessError(f"The credentials for {where} are incomplete: {_plain(error)}.", COMPLETE) from None
    if not access.project_id:
        raise AccessError(
            f"The account for {where} has no project.",
            "Set project_name (OS_PROJECT_NAME) with project_domain_name, or use an application credential.",
        )
    return access


def _guard_token(plugin: BaseIdentityPlugin) -> None:
    """Lets a thread drop the token (it was refused) only while no other thread is being given it.

    keystoneauth1 guards only the renewal, and fails with an AssertionError if the token goes between that and
    the return (identity/base.py, get_access).
    """
    lock = threading.RLock()
    get_access, invalidate = plugin.get_access, plugin.invalidate

    def get_alone(session: Session, **options: Any) -> AccessInfo:
        with lock:
            return get_access(session, **options)

    def invalidate_alone() -> bool:
        with lock:
            return invalidate()

    vars(plugin).update(get_access=get_alone, invalidate=invalidate_alone)


def _check_services(cloud: Cloud, access: AccessInfo) -> None:
    """Lets the client look up all services now: before that, it is not safe to use from several threads."""
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
                f"Available regions: {', '.join(regions)}. Set region_name or interface in clouds.yaml"
                " (OS_REGION_NAME, OS_INTERFACE).",
            ) from None


def _check_tags(cloud: Cloud) -> None:
    """The servers of a course are recognised by their tags."""
    newest = cloud.attempt("Reading the versions of compute", partial(_newest, cloud), patience=LOGIN_PATIENCE)
    if newest < TAGS:
        version = ".".join(map(str, newest))
        raise AccessError(
            f"The cloud {cloud.name!r} is too old: its compute service has version {version}, but"
            f" {MICROVERSION} (of 2017) is needed.",
            "Create the machines yourself, and use them with --driver generic.",
        )


def _newest(cloud: Cloud) -> tuple[float, ...]:
    """The newest microversion of compute; 2.1 if it has none."""
    data = cloud.api.compute.get_endpoint_data()
    if not data or not data.max_microversion:  # the library returns the same if the service did not answer
        cloud.api.session.get(str(cloud.api.config.get_endpoint_from_catalog("compute")))
        data = cloud.api.compute.get_endpoint_data()
    return data.max_microversion if data and data.max_microversion else (2, 1)


def _endpoint(cloud: Cloud, service: str) -> object:
    return getattr(cloud.api, service).get_endpoint()


def _plain(error: Exception) -> str:
    """The text of an error without what only developers of the cloud need."""
    text = getattr(error, "details", None) or getattr(error, "message", None) or str(error) or type(error).__name__
    text = re.sub(r"<[^>]*>", " ", str(text))  # proxies answer with HTML
    text = re.sub(r"\s*\((HTTP \d+|Request-ID: \S+)\)", "", " ".join(text.split()))
    if cause := NO_CONNECTION.search(text):
        return f"could not connect to {cause[1]} ({cause[2].strip()})"
    if broken := BROKEN.search(text):
        return f"the connection to {broken[1]} was lost"
    return text.rstrip(".")
