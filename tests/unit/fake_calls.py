"""What the calls of a fake engine have in common: who is down answers none, and changes are written down."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Concatenate, ParamSpec, TypeVar

import requests

from tests.unit.api_schema import Json
from tests.unit.fake_swarm import FakeNetwork


class FakeCalls:
    """An engine that is asked."""

    def __init__(self, name: str, network: FakeNetwork) -> None:
        self.name, self.network = name, network
        self.is_down = False
        self.changes: list[str] = []
        self.containers_: list[Json] = []

    def _changed(self, what: str) -> None:
        self.changes.append(what)


A = TypeVar("A", bound=FakeCalls)
P = ParamSpec("P")
R = TypeVar("R")


def call(method: Callable[Concatenate[A, P], R]) -> Callable[Concatenate[A, P], R]:
    """A call of the Engine API: an engine that is down does not answer it."""

    @functools.wraps(method)
    def answered(api: A, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if api.is_down:
            raise requests.ConnectionError(f"connection to {api.name}: no route to host")
        with api.network.lock:
            return method(api, *args, **kwargs)

    return answered


def labelled(items: list[Json], filters: Mapping[str, Any] | None, labels: Callable[[Json], Json]) -> list[Json]:
    """The items that carry the labels of a filter: `key`, `key=value`, or a list of such."""
    assert set(filters or ()) <= {"label"}
    wanted = (filters or {}).get("label", [])
    wanted = [wanted] if isinstance(wanted, str) else wanted
    pairs = [label.partition("=") for label in wanted]
    return [
        item
        for item in items
        if all(key in labels(item) and (not equals or labels(item)[key] == value) for key, equals, value in pairs)
    ]
