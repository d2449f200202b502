"""The parts of a configuration that can be used although others are wrong: `doctor` reports all that it can.

A part is a key at the top, with all that stands below it: what a misspelt key of `openstack` should set is not known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloudscale.course.settings import Settings, read_settings
from cloudscale.errors import SettingsError


@dataclass(frozen=True)
class Usable:
    """Settings without the parts `left_out`, and why those are refused."""

    settings: Settings
    refused: SettingsError | None = None
    left_out: frozenset[str] = frozenset()


def read_usable(configuration: Mapping[str, Any], origins: Mapping[str, str] | None = None, **flags: object) -> Usable:
    """The same as `read_settings`, but for wrong parts. Raises SettingsError where a flag is wrong."""
    try:
        return Usable(read_settings(configuration, origins, **flags))
    except SettingsError as error:
        refused = error
    right = {key: value for key, value in configuration.items() if _is_right(key, value)}
    return Usable(read_settings(right, origins, **flags), refused, frozenset(configuration.keys() - right.keys()))


def _is_right(key: str, value: object) -> bool:
    try:
        read_settings({key: value})
    except SettingsError:
        return False
    return True
