"""When each student's work was collected: a Swarm config of the course, which all trainers of it see.

It goes with the last of the work that it is about.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from collections.abc import Collection, Mapping

from docker.errors import NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.outside import formed, parse_json

CONFIG = {"ID": str, "Spec": {"Name": str, "Data?": str}}  # what is needed of an engine's answer
COLLECTED = "collected"  # the role of the config, in a label


def read_marks(manager: Engine, course: str) -> dict[str, int]:
    """Student's id → the time of the student's machine, in nanoseconds, to which all work is collected. EngineError."""
    with engine_errors(manager.name):
        marks: dict[str, int] = {}
        for config in _configs(manager, course):
            with contextlib.suppress(ValueError):
                marks |= formed(parse_json(base64.b64decode(config["Spec"].get("Data") or "")), {"*": int})
        return marks


def write_marks(manager: Engine, course: str, marks: Mapping[str, int]) -> None:
    """Replaces them: a config can't be changed. Raises EngineError."""
    data = json.dumps(dict(sorted(marks.items()))).encode()
    name = f"{naming.collected_name(course)}-{hashlib.sha256(data).hexdigest()[:16]}"
    with engine_errors(manager.name):
        present = {config["Spec"]["Name"]: config["ID"] for config in _configs(manager, course)}
        if marks and name not in present:
            manager.api.create_config(name, data, labels={naming.MARK: course, naming.ROLE: COLLECTED})
        for other, config in present.items():
            if not marks or other != name:
                with contextlib.suppress(NotFound):
                    manager.api.remove_config(config)


def forget_marks(manager: Engine, course: str, student_ids: Collection[str]) -> None:
    """Removes those of some students. Raises EngineError."""
    marks = read_marks(manager, course)
    if marks.keys() & {*student_ids}:
        write_marks(manager, course, {id: since for id, since in marks.items() if id not in student_ids})


def _configs(manager: Engine, course: str) -> list[dict[str, dict[str, str]]]:
    labels = [f"{naming.MARK}={course}", f"{naming.ROLE}={COLLECTED}"]
    return list(formed(manager.api.configs(filters={"label": labels}), [CONFIG]))
