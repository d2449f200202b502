"""The address that a student opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cloudscale.course import naming
from cloudscale.model import Place, Student
from cloudscale.networks import endpoint


class Placed(Protocol):
    """A planned seat or a running one."""

    @property
    def student(self) -> Student: ...

    @property
    def place(self) -> Place: ...


@dataclass(frozen=True)
class Addresses:
    """The addresses of a course's seats. `hosts`: of the machines, by name. `key`: the course's."""

    hosts: Mapping[str, str]
    key: bytes = field(repr=False)

    def host(self, seat: Placed) -> str:
        """Empty for a machine that the course does not have any more."""
        return self.hosts.get(seat.place.machine, "")

    def url(self, seat: Placed) -> str:
        """What the student opens; empty if the machine has no address."""
        if not (host := self.host(seat)):
            return ""
        return f"http://{endpoint(host, seat.place.port)}{naming.seat_path(self.key, seat.student.id)}"
