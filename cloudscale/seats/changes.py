"""How often the passwords of students were changed: the swarm remembers it, for every trainer of the course.

Each change is a Swarm config with a number in its labels; the highest one counts. Two trainers can't make the same
one, since a name exists only once. It is no secret: without the course's key, no password comes from it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError
from cloudscale.outside import formed


def _count(text: str) -> int:
    return int(text)


# what is needed of an engine's answer
CONFIG = {"ID": str, "Spec": {"Labels": {naming.STUDENT: str, naming.COUNT: _count}}}
PASSWORD = "password"  # the role of these configs, in a label


def password_changes(manager: Engine, course: str) -> dict[str, int]:
    """How often each student's password was changed, by id; who is missing: never. Raises EngineError."""
    changes: dict[str, int] = {}
    for labels, _ in _configs(manager, course):
        student_id, count = labels[naming.STUDENT], int(labels[naming.COUNT])
        changes[student_id] = max(count, changes.get(student_id, 0))
    return changes


def count_change(manager: Engine, course: str, student_id: str, before: int) -> int:
    """Notes one more change of a student's password, and returns the number. Raises EngineError.

    Raises CloudscaleError if somebody else does so just now.
    """
    if not _note(manager, course, student_id, before + 1):
        raise CloudscaleError(
            f"Another trainer is changing the password of the student {student_id!r}.",
            "Their new password counts: invoke themachine shows it.",
        )
    _remove(manager, course, {student_id: before + 1})
    return before + 1


def note_changes(manager: Engine, course: str, changes: Mapping[str, int]) -> None:
    """Notes what the swarm does not know: a new one knows nothing. Raises EngineError."""
    known = password_changes(manager, course) if changes else {}
    for student_id, count in changes.items():
        if count > known.get(student_id, 0):
            _note(manager, course, student_id, count)


def forget_changes(manager: Engine, course: str) -> None:
    """Forgets all changes of the course. Raises EngineError."""
    _remove(manager, course)


def _note(manager: Engine, course: str, student_id: str, count: int) -> bool:
    """Whether it was not noted yet."""
    labels = {
        **naming.student_labels(course, student_id),
        naming.ROLE: PASSWORD,
        naming.COUNT: str(count),
    }
    with engine_errors(manager.name):
        try:
            manager.api.create_config(naming.change_name(course, student_id, count), str(count).encode(), labels)
        except APIError as error:
            if error.status_code != 409:
                raise
            return False
    return True


def _remove(manager: Engine, course: str, newest: Mapping[str, int] | None = None) -> None:
    """Removes the notes; with `newest`, only those of these students that are older."""
    for labels, config_id in _configs(manager, course):
        if newest is None or int(labels[naming.COUNT]) < newest.get(labels[naming.STUDENT], 0):
            with engine_errors(manager.name), contextlib.suppress(NotFound):
                manager.api.remove_config(config_id)


def _configs(manager: Engine, course: str) -> list[tuple[Mapping[str, str], str]]:
    """The labels and the id of each note."""
    marks = naming.labels(course, **{naming.ROLE: PASSWORD})
    with engine_errors(manager.name):
        filters = {"label": [f"{key}={value}" for key, value in marks.items()]}
        configs = formed(manager.api.configs(filters=filters), [CONFIG])
    return [(config["Spec"]["Labels"], config["ID"]) for config in configs]
