"""The course's deadline in the swarm: a config with the course's mark, which no service uses.

A swarm that the trainer adopted can have several courses, and its own labels are somebody else's: a config is the
course's in any swarm, and is removed with it.
"""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Any

from docker.errors import NotFound

from cloudscale.course import deadline, naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.outside import formed

CONFIG = {"ID": str, "Spec": {"Labels?": {"*": str}}}  # what is needed of an engine's answer


def read_deadline(manager: Engine, course: str) -> datetime | None:
    """None: the course has none. Raises EngineError."""
    with engine_errors(manager.name):
        return deadline.latest(config["Spec"]["Labels"][deadline.MARK] for config in _configs(manager, course))


def write_deadline(manager: Engine, course: str, when: datetime | None) -> None:
    """Sets the course's deadline, or takes it away (None). Idempotent. Raises EngineError."""
    text = deadline.as_text(when) if when else ""
    with engine_errors(manager.name):
        present = _configs(manager, course)
        if text and all(config["Spec"]["Labels"][deadline.MARK] != text for config in present):
            labels = naming.labels(course, **{deadline.MARK: text})
            manager.api.create_config(naming.deadline_name(course, text), text.encode(), labels)
        # after the new one is there: a run that is cut off leaves the later of two
        for config in present:
            if config["Spec"]["Labels"][deadline.MARK] != text:
                with contextlib.suppress(NotFound):
                    manager.api.remove_config(config["ID"])


def _configs(manager: Engine, course: str) -> list[Any]:
    configs = formed(manager.api.configs(filters={"label": f"{naming.MARK}={course}"}), [CONFIG])
    return [config for config in configs if deadline.MARK in (config["Spec"].get("Labels") or {})]
