"""A name or an id of the configuration, looked up in the cloud; or a message with those that exist."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from openstack.exceptions import DuplicateResource

from cloudscale.drivers.openstack.cloud import Cloud
from cloudscale.errors import SettingsError

SHOWN = 12  # names in a message


def find(cloud: Cloud, key: str, name: str, search: Callable[..., Any], listing: Callable[[], Iterable[Any]]) -> Any:
    """One resource by name or id. Raises SettingsError, with the names that exist, and CloudError."""
    what = f"openstack.{key}: {name!r}"

    def look() -> Any:
        try:
            return search(name, ignore_missing=True)
        except DuplicateResource:
            raise several(key, name) from None

    resource = cloud.attempt(f"Looking for {what}", look)
    if resource is not None:
        return resource
    raise missing(cloud, key, name, cloud.attempt(f"Looking for {what}", lambda: list(listing())))


def among(items: Iterable[Any], key: str, name: str) -> Any:
    """The item with this id, or the only one with this name; None if there is none. Raises SettingsError."""
    items = list(items)
    matches = [one for one in items if one.id == name] or [one for one in items if one.name == name]
    if len(matches) > 1:
        raise several(key, name, [one.id for one in matches])
    return next(iter(matches), None)


def several(key: str, name: str, ids: Collection[str] = ()) -> SettingsError:
    available = f": {', '.join(sorted(ids))}" if ids else ""
    return SettingsError(
        f"openstack.{key}: {name!r}: the cloud has several with this name.", f"Use an id instead{available}."
    )


def missing(cloud: Cloud, key: str, name: str, existing: Iterable[Any], extra: str = "") -> SettingsError:
    return SettingsError(
        f"The cloud {cloud.name!r} does not have openstack.{key}: {name!r}.",
        f"Available: {names_of(existing, name)}.{extra}",
    )


def names_of(items: Iterable[Any], like: str = "") -> str:
    """The names of resources, the ones most similar to `like` first."""
    names = sorted({str(one.name) for one in items})
    close = difflib.get_close_matches(like, names, SHOWN)
    ordered = [*close, *(other for other in names if other not in close)]
    more = f" and {len(ordered) - SHOWN} more" if len(ordered) > SHOWN else ""
    return (", ".join(ordered[:SHOWN]) + more) or "none"
