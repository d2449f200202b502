"""The one place that students' passwords come from, and all that lets in to a seat with them.

A password is derived from the course's key, the student's id and how often the trainer has changed it. The swarm
remembers that number (seats/changes.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from cloudscale.course import naming


@dataclass(frozen=True)
class Passwords:
    """The passwords of a course. `changes`: how often that of a student was changed, by id; who is missing: never."""

    key: bytes = field(repr=False)
    changes: Mapping[str, int] = field(default_factory=dict)

    def of(self, student_id: str) -> str:
        """The student's password as it is now."""
        return naming.password(self.key, student_id, self._count(student_id))

    def token(self, student_id: str) -> str:
        """What a browser shows to the gateway after a login with it."""
        return naming.seat_token(self.key, student_id, self._count(student_id))

    def gateway_pass(self, student_id: str) -> str:
        """What the gateway shows to the seat's server."""
        return naming.seat_pass(self.key, student_id, self._count(student_id))

    def status_pass(self, student_id: str) -> str:
        """What the tool shows to the seat's server to learn how it is used."""
        return naming.status_pass(self.gateway_pass(student_id))

    def _count(self, student_id: str) -> int:
        return self.changes.get(student_id, 0)


def latest(*known: Mapping[str, int]) -> dict[str, int]:
    """What several places know of the changes: the highest number of each student counts."""
    ids = {id: None for changes in known for id in changes}
    return {id: max(changes.get(id, 0) for changes in known) for id in ids}
