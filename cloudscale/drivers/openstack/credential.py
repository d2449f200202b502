"""When the login to the cloud expires: an application credential, a token that can't be renewed, a password."""

from __future__ import annotations

import contextlib
import datetime
import email.utils
from typing import Any

from keystoneauth1.access import AccessInfoV3
from keystoneauth1.identity import BaseIdentityPlugin
from openstack.exceptions import raise_from_response

from cloudscale.drivers.openstack.cloud import LOGIN_PATIENCE, Cloud
from cloudscale.errors import AccessError, CloudError
from cloudscale.model import Finding, Say
from cloudscale.outside import formed

MOST_OFF = datetime.timedelta(minutes=5)
SOON = datetime.timedelta(hours=24)
TOKENS = ("token", "v3token", "admin_token")  # the kinds of login of which nothing can get a new token


def check_credential(cloud: Cloud, say: Say) -> None:
    """Reports a login that expires within a day. Raises AccessError if it has expired."""
    for what, expires, remedy in _ends(cloud):
        left = expires - datetime.datetime.now(datetime.UTC)
        when = f"{expires.astimezone():%Y-%m-%d %H:%M %Z}"
        if left <= datetime.timedelta():
            raise AccessError(f"The {what} for the cloud {cloud.name!r} has expired ({when}).", remedy)
        if left <= SOON:
            say(
                f"Warning: the {what} for the cloud {cloud.name!r} expires in {left.total_seconds() / 3600:.1f} hours,"
                f" at {when}. After that, nothing can be changed or deleted with it. {remedy}"
            )


def check_clock(cloud: Cloud) -> Finding | None:
    """A warning where this computer's clock differs from the cloud's, by which certificates and logins expire."""
    answer = cloud.attempt("Reading the time", lambda: cloud.api.session.get(cloud.api.auth["auth_url"]))
    try:
        theirs = email.utils.parsedate_to_datetime(answer.headers["Date"])  # RFC 9110, 6.6.1
    except (KeyError, ValueError):
        return None
    off = datetime.datetime.now(datetime.UTC) - theirs
    if abs(off) <= MOST_OFF:
        return None
    return Finding(
        "this computer",
        "warning",
        f"its clock is {abs(off)} {'ahead of' if off > datetime.timedelta() else 'behind'} that of the cloud"
        f" {cloud.name!r}: certificates may count as expired or as not valid yet.",
        "Set the clock: sudo timedatectl set-ntp true.",
    )


def _ends(cloud: Cloud) -> list[tuple[str, datetime.datetime, str]]:
    """What the login needs and when that ends, as far as the cloud says so; with what to do."""
    session = cloud.api.session
    plugin = session.auth
    assert isinstance(plugin, BaseIdentityPlugin)
    access = plugin.get_access(session)
    ends = []
    if isinstance(access, AccessInfoV3) and access.application_credential_id:
        what = f"application credential {access.application_credential['name']!r}"
        expires = _time(_application_credential(cloud, str(access.user_id), access.application_credential_id))
        ends += [(what, expires, "Create one that lasts longer.")] if expires else []
    if cloud.api.config.config.get("auth_type") in TOKENS and access.expires:
        ends.append(("token", access.expires, "Get a new token, or use an application credential."))
    return ends


def _application_credential(cloud: Cloud, user: str, credential: str) -> Any:
    """Its expires_at; None if it has no end, or if the account may not read it."""

    def read() -> Any:
        answer = cloud.api.identity.get(f"/users/{user}/application_credentials/{credential}")
        raise_from_response(answer)
        return formed(answer.json(), {"application_credential": dict})["application_credential"].get("expires_at")

    with contextlib.suppress(CloudError):
        return cloud.attempt("Reading the application credential", read, patience=LOGIN_PATIENCE)
    return None


def _time(text: Any) -> datetime.datetime | None:
    """Keystone's times are UTC, and do not always say so."""
    try:
        time = datetime.datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
