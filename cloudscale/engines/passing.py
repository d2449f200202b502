"""Passes an image from one machine to others, past the trainer's computer: each passes it on while it receives it.

An engine knows no right that is less than everything: with a certificate for the other's port, the machine that sends
could do whatever the trainer can. And the command line of one release refuses the engines of others. So the image goes
over SSH, which runs on every machine: each engine is used by its own command line, and the key that logs in is made for
this one image and this one machine. All that it can do there is `docker load`, and to send the same on to the one
machine that comes next, until it is removed there, or has expired.

A machine that fails harms only those behind it: what is in front of it goes on loading. Where machines don't reach each
other by SSH, `images.delivery` sends the image through the trainer's computer.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from cloudscale.engines.setup import tar
from cloudscale.errors import MachineError
from cloudscale.fanout import MACHINES_WIDTH, fan_out
from cloudscale.hosts.facts import script_failure
from cloudscale.hosts.login_key import passing_key
from cloudscale.hosts.ssh import Connection
from cloudscale.model import CommandResult, Outcome, Outcomes, last_lines
from cloudscale.scripts import script

Key = tuple[bytes, str]  # the private one, and the line for authorized_keys

PASSING = 3600.0  # seconds for an image, to all machines of a chain
OPENING = 60.0  # seconds to let a key in, or to remove it
DD = re.compile("copied|records")  # dd's own statistics are not the cause of a failure
COPIED = re.compile(r"\b(\d{1,18}) bytes.*copied")  # dd(1)'s count
REPORT = re.compile(r"cloudscale: (loaded|failed|unsaved) (\d{1,6})(?: (.*))?$")
MOST_OF_LINE = 4096  # characters
# A machine that went silent holds up those in front of it until its connection is given up, after half a minute.
# The cipher is that which takes the least of the CPU, of those that both accept anyway.
CONFIG = """\
Host next
  HostName {host}
  Port {port}
  User "{user}"
  IdentityFile key
  IdentitiesOnly yes
  IdentityAgent none
  BatchMode yes
  LogLevel ERROR
  UserKnownHostsFile known_hosts
  GlobalKnownHostsFile none
  HostKeyAlias cloudscale
  StrictHostKeyChecking yes
  Ciphers ^aes128-gcm@openssh.com
  ConnectTimeout 15
  ServerAliveInterval 10
  ServerAliveCountMax 3
"""


@dataclass(frozen=True)
class Stop:
    """A machine on the image's way. `login` returns the login to it, and where the machine before it reaches it."""

    name: str
    login: Callable[[], tuple[Connection, str]]


@dataclass(frozen=True)
class _Door:
    """A machine that lets a key load the image. `host` and `port` are for the machine before it."""

    name: str
    position: int
    connection: Connection
    host: str
    port: str
    key: Key = field(repr=False)

    @property
    def files(self) -> Mapping[str, bytes]:
        """What the machine before it needs to send the image there."""
        config = CONFIG.format(host=self.host, port=self.port, user=self.connection.target.user)
        known = f"cloudscale {self.connection.host_key}\n"
        return {"config": config.encode(), "known_hosts": known.encode(), "key": self.key[0]}


def pass_image(
    image: str,
    source: Connection,
    stops: Sequence[Stop],
    on_bytes: Callable[[int], None],
    on_arrival: Callable[[str], None],
) -> Outcomes[None]:
    """Sends an image from `source` through all stops, and returns which have it, and why the others have not.

    `on_bytes` gets how many have left the source, `on_arrival` the name of each stop as soon as its engine has it.
    Raises ConnectionFailed if the login to the source is lost.
    """
    with _open_doors(stops) as outcomes:
        doors = [*outcomes.values.values()]
        reports = Reports({door.position: door.name for door in doors}, on_bytes, on_arrival)
        if doors:
            files = tar(doors[0].files)
            done = source.run_root(
                script("engines", "image-send.sh"), image, timeout=PASSING, data=files, on_output=reports.add
            )
            reports.end(done)

    def result(opened: Outcome[_Door]) -> Outcome[None]:
        if not opened.ok:
            return Outcome(opened.target, error=opened.error)
        door = opened.get()
        if not (cause := reports.cause(door.position)):
            return Outcome(door.name)
        error = MachineError(
            f"{door.name}: could not pass the image {image} to it from {source.target.name} ({cause}).",
            f"Check that SSH (port {door.port}) is open between the machines.",
        )
        return Outcome(door.name, error=error)

    return Outcomes(map(result, outcomes))


@contextlib.contextmanager
def _open_doors(stops: Sequence[Stop]) -> Iterator[Outcomes[_Door]]:
    """Lets a key load the image at each stop, and gives each but the last the key to the next. In the end undoes it.

    What can't be opened is left out. One that does not get the key ends the way: nothing arrives behind it.
    """
    planned = [(position, stop, passing_key()) for position, stop in enumerate(stops)]
    try:
        outcomes = fan_out(_open, planned, name=lambda plan: plan[1].name, width=MACHINES_WIDTH)
        fan_out(_give, pairwise(outcomes.values.values()), width=MACHINES_WIDTH)
        yield outcomes
    finally:
        fan_out(_close, planned, width=MACHINES_WIDTH)


def _open(planned: tuple[int, Stop, Key]) -> _Door:
    position, stop, key = planned
    connection, host = stop.login()
    user, minutes = connection.target.user, f"{PASSING / 60 + 1:.0f}"
    receiver = script("engines", "image-receive.sh").encode()  # what the key runs
    arguments = ("open", key[1], user, minutes, str(position))
    done = connection.run_root(script("engines", "image-door.sh"), *arguments, timeout=OPENING, data=receiver)
    if done.exit_code:
        raise MachineError(f"{stop.name}: it can't let another machine in ({script_failure(done)}).")
    port = re.sub(r"\D", "", done.stdout) or str(connection.target.port)
    return _Door(stop.name, position, connection, host, port, key)


def _give(pair: tuple[_Door, _Door]) -> None:
    door, behind = pair
    door.connection.run_root(
        script("engines", "image-door.sh"), "next", door.key[1], timeout=OPENING, data=tar(behind.files)
    )


def _close(planned: tuple[int, Stop, Key]) -> None:
    _, stop, key = planned
    connection, _ = stop.login()
    connection.run_root(script("engines", "image-door.sh"), "close", key[1], connection.target.user, timeout=OPENING)


# --- what the machines report ----------------------------------------------------------------


class Reports:
    """What arrives on the sender's standard error: dd's progress, and a line of each machine that is done."""

    def __init__(
        self, names: Mapping[int, str], on_bytes: Callable[[int], None], on_arrival: Callable[[str], None]
    ) -> None:
        self._names = names
        self._on_bytes = on_bytes
        self._on_arrival = on_arrival
        self._rest = ""
        self._arrived: set[int] = set()
        self._causes: dict[int, str] = {}
        self._is_saved = True
        self._cause = ""  # of those that report nothing

    def add(self, piece: bytes) -> None:
        *lines, rest = re.split(r"[\r\n]", self._rest + piece.decode(errors="replace"))
        self._rest = rest[-MOST_OF_LINE:]
        for line in lines:
            if copied := COPIED.search(line):
                self._on_bytes(int(copied[1]))
            if report := REPORT.search(line):
                word, position, cause = report.groups(default="")
                self._take(word, int(position), cause)

    def _take(self, word: str, position: int, cause: str) -> None:
        if word == "unsaved":
            self._is_saved = False
        elif word == "failed":
            self._causes[position] = cause
        elif position in self._names and position not in self._arrived:
            self._arrived.add(position)
            self._on_arrival(self._names[position])

    def end(self, done: CommandResult) -> None:
        self.add(b"\n")
        lines = [line for line in re.split(r"[\r\n]", done.stderr) if not (DD.search(line) or REPORT.search(line))]
        silent = f"exit code {done.exit_code}" if done.exit_code else "a machine on the way stopped answering"
        self._cause = last_lines("\n".join(lines)) or silent

    def cause(self, position: int) -> str:
        """Why the image is not at that stop; empty if it is."""
        if position in self._arrived:
            return ""
        own = self._causes.get(position) if self._is_saved else ""
        return own or self._cause
