"""The address that a student opens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from cloudscale.course import naming
from cloudscale.model import Place, Student
from cloudscale.networks import endpoint
from cloudscale.seats import jupyter


class Placed(Protocol):
    """A planned seat or a running one."""

    @property
    def student(self) -> Student: ...

    @property
    def place(self) -> Place: ...


HTTPS = 443


@dataclass(frozen=True)
class Entrance:
    """The one HTTPS address of a class behind a gateway. `by_name`: each seat has a host name of its own below it."""

    host: str
    port: int = HTTPS
    by_name: bool = False

    def at(self, label: str = "") -> str:
        """Host and port as in a URL; of a seat with its label."""
        host = f"{label}.{self.host}" if label and self.by_name else self.host
        return (f"[{host}]" if ":" in host else host) if self.port == HTTPS else endpoint(host, self.port)

    @property
    def url(self) -> str:
        """Where everybody logs in."""
        return f"https://{self.at()}/"


@dataclass(frozen=True)
class Addresses:
    """The addresses of a course's seats. `hosts`: of the machines, by name. `key`: the course's.

    Behind a gateway, `entrance` is the address that students open, `gateway` that of its machine, and `names` the key
    of the seats' host names.
    """

    hosts: Mapping[str, str]
    key: bytes = field(repr=False)
    entrance: Entrance | None = None
    gateway: str = ""
    names: bytes = field(default=b"", repr=False)

    def host(self, seat: Placed) -> str:
        """Empty for a machine that the course does not have any more."""
        return self.hosts.get(seat.place.machine, "")

    def answers(self, seat: Placed) -> bool:
        """Whether the seat's server answers there."""
        if not self.entrance:
            return jupyter.answers(self.url(seat))
        return bool(self.gateway) and jupyter.answers(
            self.url(seat), at=self.gateway, probe=naming.gateway_probe(self.key)
        )

    def activity(self, seat: Placed, status: str) -> jupyter.Activity:
        """What the seat's server says of its use; nothing, if it does not answer. `status`: the pass for that."""
        if not self.entrance:
            return jupyter.activity(self.url(seat), status=status)
        probe = naming.gateway_probe(self.key)
        url = self.url(seat) if self.gateway else ""
        return jupyter.activity(url, at=self.gateway, probe=probe, status=status)

    def url(self, seat: Placed) -> str:
        """What the student opens; empty if the machine has no address."""
        path = naming.seat_path(self.key, seat.student.id)
        if self.entrance:
            return f"https://{self.entrance.at(naming.seat_label(self.names, seat.student.id))}{path}"
        if not (host := self.host(seat)):
            return ""
        return f"http://{endpoint(host, seat.place.port)}{path}"

    def to_type(self, seat: Placed) -> str:
        """The shortest address that leads the student there: behind a gateway that of the login page."""
        return self.entrance.url if self.entrance else self.url(seat)
