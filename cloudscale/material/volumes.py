"""Access to the files of a student's volume on its machine, whether or not the seat runs.

A volume lives on one machine only. A helper container from the class's notebook image, which that machine has, mounts
it where the seat mounts it, and runs small Python programs as the seat's user:

    mount = Mount.of_seat(seat)
    with opened(engine, course, image_of(seat), [mount]) as helper:
        printed = b"".join(helper.run(PROGRAM, [mount.folder], feed=[b"some", b"data"], timeout=60))

A program has the generator `feed()` for what is sent to it, and `sys.argv[1:]` for its words; what it prints is
streamed back. It need not wait for the one or the other: both are done at once. No student's code runs in the
container, but a student's server may change the files meanwhile: a program must not follow links.
"""

from __future__ import annotations

import contextlib
import select
import socket
import ssl
import struct
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import DriverConfig
from docker.types import Mount as DockerMount

from cloudscale.course import naming
from cloudscale.engines.client import Engine, close_stream, engine_errors
from cloudscale.errors import EngineError
from cloudscale.model import Printed, last_lines
from cloudscale.seats.services import RunningSeat
from cloudscale.seats.spec import work_mount
from cloudscale.units import MIB

WORK = "a student's files"
HELPER = "helper"  # the role of these containers, in a label
LIFETIME = 6 * 3600  # seconds after which one that a killed run left ends, and its engine removes it
MEMORY = 512 * MIB
PROCESSES = 64
SHARES = 128  # of the processor; a seat has 1024
PIECE = 64 * 1024  # bytes that are sent or received at once
MOST_ERRORS = 16 * 1024  # bytes that are kept of what a program prints on standard error

SLEEP = "import sys, time\ntime.sleep(int(sys.argv[1]))"

# What runs before each program. A half of a TLS connection can't be closed, so what is sent comes in pieces of known
# length. The first, empty one starts the program: what it printed before the engine's answer was read would be lost.
PRELUDE = '''
import sys

def _piece():
    def exactly(size):
        data = sys.stdin.buffer.read(size)
        if len(data) < size:
            raise EOFError("the connection was cut")
        return data
    return exactly(int.from_bytes(exactly(4), "big"))

def feed():
    """The pieces that are sent, until the end."""
    while piece := _piece():
        yield piece

_piece()
'''


@dataclass(frozen=True)
class Mount:
    """A volume, and the folder of the container that it is mounted on.

    The seat's folder is the right one: an empty volume gets what the image has there, and its owner. `labels` and
    `options` (of the engine's own kind of volume): for one that does not exist yet.
    """

    volume: str
    folder: str
    labels: Mapping[str, str] = field(default_factory=dict)
    writable: bool = False
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_seat(cls, seat: RunningSeat, *, writable: bool = False) -> Mount:
        """A student's work, where the seat has it."""
        mount = work_mount(_container(seat))
        given = mount["VolumeOptions"]
        options = (given.get("DriverConfig") or {}).get("Options") or {}
        return cls(mount["Source"], mount["Target"], given["Labels"], writable, options)


def ensure_volume(engine: Engine, name: str, labels: Mapping[str, str]) -> None:
    """Makes a volume of the course, unless it is there. Raises EngineError for one of that name without its mark."""
    with engine_errors(engine.name):
        volume = engine.api.create_volume(name, labels=dict(labels))  # one that is there is returned as it is
    if not labels.items() <= (volume["Labels"] or {}).items():
        raise EngineError(
            f"{engine.name}: a volume {name} exists that does not carry this course's mark.",
            f"Remove it (docker volume rm {name}) or choose another --course.",
        )


def _mounted(mount: Mount) -> DockerMount:
    options = DriverConfig("local", dict(mount.options)) if mount.options else None
    return DockerMount(
        mount.folder,
        mount.volume,
        type="volume",
        read_only=not mount.writable,
        labels=dict(mount.labels),
        driver_config=options,
    )


def image_of(seat: RunningSeat) -> str:
    """The image that the seat runs, by a name with which its machine has it."""
    return str(_container(seat)["Image"])


def _container(seat: RunningSeat) -> Mapping[str, Any]:
    container: Mapping[str, Any] = seat.spec["TaskTemplate"]["ContainerSpec"]
    return container


@contextlib.contextmanager
def opened(
    engine: Engine,
    course: str,
    image: str,
    mounts: Sequence[Mount],
    *,
    user: str = "",
    capabilities: Sequence[str] = (),
    what: str = WORK,
) -> Iterator[Helper]:
    """A container with these volumes, removed in the end. It has no network, and no rights but `capabilities`.

    `user`: as in `docker run`; empty: that of the image, as in a seat. `what`: what is in the volumes, for messages.
    Raises EngineError, also where the engine does not have the image.
    """
    api = engine.api
    with engine_errors(engine.name):
        created = api.create_container(
            image,
            entrypoint=["python3", "-IS", "-c", SLEEP, str(LIFETIME)],
            command=[],
            user=user,
            labels=helper_labels(course),
            host_config=api.create_host_config(
                mounts=[_mounted(mount) for mount in mounts],
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                cap_add=list(capabilities),
                security_opt=["no-new-privileges"],
                mem_limit=MEMORY,
                memswap_limit=MEMORY,
                pids_limit=PROCESSES,
                cpu_shares=SHARES,
                auto_remove=True,
            ),
        )
        try:
            api.start(created["Id"])
            yield Helper(engine, created["Id"], what)
        finally:
            _remove(engine, created["Id"])


def helper_labels(course: str) -> dict[str, str]:
    return naming.labels(course, **{naming.ROLE: HELPER})


def remove_helpers(engine: Engine, course: str) -> str:
    """Removes the helpers that a killed run left: they hold volumes. Raises EngineError."""
    filters = {"label": [f"{key}={value}" for key, value in helper_labels(course).items()]}
    with engine_errors(engine.name):
        for container in engine.api.containers(all=True, filters=filters):
            _remove(engine, container["Id"])
    return "removed"


def _remove(engine: Engine, container: str) -> None:
    """Removes a container, unless the engine does so at this moment, as it has ended."""
    try:
        engine.api.remove_container(container, force=True, v=True)
    except NotFound:
        pass
    except APIError as error:
        if error.status_code != 409:
            raise


@dataclass(frozen=True)
class Helper:
    """A container that waits for programs to run in it. Safe to share between threads."""

    engine: Engine
    container: str
    what: str = WORK

    def run(
        self, code: str, words: Sequence[str] = (), *, feed: Iterable[bytes] = (), timeout: float
    ) -> Iterator[bytes]:
        """Runs a Python program with the image's interpreter, isolated; streams what it prints.

        `feed` is drawn from while the program takes it. Raises EngineError at the end if the program failed, with its
        last words, or if all of it was not done within `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        errors = Printed(MOST_ERRORS)
        with engine_errors(self.engine.name):
            api = self.engine.api
            command = ["python3", "-IS", "-c", PRELUDE + code, *words]
            execution = api.exec_create(self.container, command, stdin=True)["Id"]
            stream = api.exec_start(execution, socket=True)
            is_cut = False
            try:
                yield from _printed(_exchange(stream, _framed(feed), deadline), errors)
            except ConnectionResetError:  # by a program that ended without reading all; or by the network
                is_cut = True
            except TimeoutError:
                raise EngineError(
                    f"{self.engine.name}: reading or writing {self.what} took longer than {timeout:.0f} s.",
                    "Check the load of that machine, then run again.",
                ) from None
            finally:
                close_stream(stream)
            exit_code = api.exec_inspect(execution)["ExitCode"]
        if exit_code != 0 or is_cut:
            cause = "the connection was cut" if exit_code == 0 else f"exit code {exit_code}"
            last_words = last_lines(errors.text()) or cause
            raise EngineError(
                f"{self.engine.name}: {self.what} could not be read or written ({last_words.rstrip('.')})."
            )


def _framed(feed: Iterable[bytes]) -> Iterator[bytes]:
    """Pieces as the prelude reads them, between an empty one and another."""
    end = bytes(4)
    yield end
    for data in feed:
        for at in range(0, len(data), PIECE):
            piece = data[at : at + PIECE]
            yield len(piece).to_bytes(4, "big") + piece
    yield end


def _printed(received: Iterable[bytes], errors: Printed) -> Iterator[bytes]:
    """What a program prints, out of the engine's frames (Engine API, "Stream format"); its errors are kept aside."""
    buffer = bytearray()
    channel, left = 0, 0
    for data in received:
        buffer += data
        while buffer:
            if not left:
                if len(buffer) < 8:
                    break
                channel, left = struct.unpack(">BxxxL", buffer[:8])
                del buffer[:8]
            piece = bytes(buffer[:left])
            del buffer[: len(piece)]
            left -= len(piece)
            if channel == 2:
                errors.add(piece)
            elif piece:
                yield piece


def _exchange(stream: Any, pieces: Iterator[bytes], deadline: float) -> Iterator[bytes]:
    """Sends the pieces and yields what is received, both at once, until the other side has ended.

    Raises TimeoutError at the deadline. One thread does both: two must not use a TLS connection at once.
    """
    connection = getattr(stream, "_sock", stream)
    connection.setblocking(False)
    to_send = memoryview(b"")
    is_sending = True
    while True:
        if is_sending and not to_send:
            to_send = memoryview(next(pieces, b""))
            is_sending = bool(to_send)
        sent = _sent(connection, to_send) if to_send else 0
        if sent < 0:  # the program has ended without reading all: what it said is still to be received
            to_send, is_sending, sent = memoryview(b""), False, 0
        to_send = to_send[sent:]
        data = _received(connection)
        if data:
            yield data
        elif data is not None:
            return
        if time.monotonic() >= deadline:
            raise TimeoutError
        if not sent and data is None:
            _wait(connection, deadline, writing=bool(to_send))


def _sent(connection: socket.socket, data: memoryview) -> int:
    """How much could be sent just now; less than 0 if nothing can be any more."""
    try:
        return connection.send(data)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return 0
    except OSError:
        return -1


def _received(connection: socket.socket) -> bytes | None:
    """What has been received; empty at the end, None if there is nothing just now."""
    try:
        return connection.recv(PIECE)
    except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
        return None


def _wait(connection: socket.socket, deadline: float, *, writing: bool) -> None:
    """Until there is something to receive or, with `writing`, room to send."""
    poller = select.poll()
    poller.register(connection, select.POLLIN | (select.POLLOUT if writing else 0))
    poller.poll(max(0.0, deadline - time.monotonic()) * 1000 + 1)
