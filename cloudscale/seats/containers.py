"""What a course has on one engine: the containers of its seats, and the students' volumes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, close_stream, engine_errors
from cloudscale.errors import EngineError, SeatError
from cloudscale.model import TIMED_OUT, CommandResult, Outcome, Place, Printed, command_result
from cloudscale.outside import date_text, formed, port_text
from cloudscale.waiting import poll

SERVICE = "com.docker.swarm.service.name"  # a label that Swarm sets
UNFINISHED = datetime.min.replace(tzinfo=UTC)
STOPPING = 60  # seconds for a container to disappear after its service was removed, or after another one has
PIECE = 65536  # bytes of a command's output that are taken at once
ENDING = 10  # seconds for a command to end after its deadline
KILLED = frozenset({137, 143})  # exit codes of a command that timeout(1) had to kill, and that BusyBox's ended

# $0 is the deadline in seconds, $1 the command. Nothing can end a command from outside the container,
# so timeout(1) ends it inside, where the image has it.
WITH_DEADLINE = 'if command -v timeout >/dev/null; then exec timeout -k 5 "$0" sh -c "$1"; else exec sh -c "$1"; fi'


def made(date: str) -> datetime | None:
    """When a volume was made; None if the engine does not know."""
    return date_text(date) if date else None


# what is needed of an engine's answers
CONTAINER = {"Id": str, "Labels": {naming.STUDENT: str, "*": str}}
LABELS = {"*": str, f"{naming.PORT}?": port_text}
VOLUMES = {"Volumes?": [{"Name": str, "Labels?": LABELS, "CreatedAt?": made, "Options?": dict}]}


@dataclass(frozen=True)
class SeatContainer:
    """A seat's container; `service` is the seat's name, from a label that Swarm sets."""

    id: str
    service: str


def seat_containers(engine: Engine, course: str, *, all_states: bool = False) -> dict[str, SeatContainer]:
    """Student's id → container of each seat that runs on this machine (`all_states`: also those that have ended)."""
    filters = {"label": [f"{naming.MARK}={course}", naming.STUDENT]}
    with engine_errors(engine.name):
        listed = formed(engine.api.containers(all=all_states, filters=filters), [CONTAINER])
    return {
        container["Labels"][naming.STUDENT]: SeatContainer(container["Id"], container["Labels"].get(SERVICE, ""))
        for container in listed
    }


def remove_others(engine: Engine, course: str) -> None:
    """Removes the course's containers that are no seats: those of an interrupted look inside an image."""
    with engine_errors(engine.name):
        for container in engine.api.containers(all=True, filters={"label": f"{naming.MARK}={course}"}):
            if naming.STUDENT not in container["Labels"]:
                engine.api.remove_container(container["Id"], force=True, v=True)


def execute(engine: Engine, container: str, command: str, timeout: float) -> CommandResult:
    """Runs a shell command in a container; after `timeout` seconds it is ended, with exit code 124.

    Raises SeatError if the container is gone or paused, or has no shell.
    """
    with engine_errors(engine.name):
        try:
            start = time.monotonic()
            created = engine.api.exec_create(container, ["sh", "-c", WITH_DEADLINE, f"{timeout:g}", command])
            out, err = _output(engine.api.exec_start(created["Id"], socket=True), timeout + ENDING)
            exit_code = formed(engine.api.exec_inspect(created["Id"]), {"ExitCode?": int}).get("ExitCode")
            took = time.monotonic() - start
        except APIError as error:
            raise SeatError(f"The command can't run in the container: {error.explanation or error}.") from None
    late = ""
    if exit_code in (None, TIMED_OUT) or (exit_code in KILLED and took >= timeout):
        exit_code, late = TIMED_OUT, f"ended after {timeout:g} s (--timeout)"
    return command_result(exit_code, out, err, late)


def _output(stream: Any, timeout: float) -> tuple[Printed, Printed]:
    """Reads (stdout, stderr) of an exec until it ends, or for `timeout` seconds.

    docker-py waits without a limit, and a process in the background keeps the stream open.
    """
    connection = getattr(stream, "_sock", stream)
    ending = threading.Timer(timeout, _shut, [connection])
    ending.daemon = True
    ending.start()
    printed = {1: Printed(), 2: Printed()}
    try:
        for channel, data in _frames(stream):
            printed[channel if channel in printed else 2].add(data)  # 3 is the engine's own error
    except OSError:
        pass  # the timer closed it in the middle of a frame
    finally:
        ending.cancel()
        close_stream(stream)
    return printed[1], printed[2]


def _frames(stream: Any) -> Iterator[tuple[int, bytes]]:
    """What a command prints, out of the engine's frames (Engine API, "Stream format").

    docker-py's own reader takes the socket, and loses what came in one packet with the headers of the answer: that is
    in their buffer.
    """
    reader: BinaryIO = stream._response.raw._fp.fp
    while len(head := reader.read(8)) == 8:
        channel, left = struct.unpack(">BxxxL", head)
        while left and (piece := reader.read(min(left, PIECE))):
            yield channel, piece
            left -= len(piece)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def wait_gone(engine: Engine, course: str, students: Collection[str], timeout: float = STOPPING) -> list[Outcome[str]]:
    """Waits until the containers of removed seats are gone, so that their ports and volumes are free.

    An engine that ends hundreds takes longer than for one: the time is that without any that disappears. Returns a
    failure for each student whose container stays.
    """

    def left() -> set[str]:
        return set(students) & seat_containers(engine, course, all_states=True).keys()

    def is_less_than(count: int) -> bool:
        return len(left()) < count

    count = len(left())
    while count and poll(partial(is_less_than, count), timeout=timeout):
        count = len(left())
    return [
        Outcome(
            student,
            error=SeatError(
                f"The container of student {student!r} is still on {engine.name} after {timeout:.0f} s.",
                "Restart the Docker Engine of that machine, then run again.",
            ),
        )
        for student in sorted(left())
    ]


def clear_orphans(engine: Engine, course: str, services: Collection[str], timeout: float = STOPPING) -> None:
    """Sees to the end of containers whose service does not exist any more (`services` do): a run that was cut off has
    removed it, and did not wait. One that has ended, but was not removed, would keep a volume in use.
    """

    def orphans(*, all_states: bool) -> list[str]:
        with engine_errors(engine.name):
            marks = {"label": [f"{naming.MARK}={course}", naming.STUDENT, SERVICE]}
            listed = engine.api.containers(all=all_states, filters=marks)
        return [container["Id"] for container in listed if container["Labels"][SERVICE] not in services]

    poll(lambda: not orphans(all_states=False), timeout=timeout)
    running = orphans(all_states=False)
    for id in (id for id in orphans(all_states=True) if id not in running):
        with engine_errors(engine.name), contextlib.suppress(NotFound):
            try:
                engine.api.remove_container(id, force=True)
            except APIError as error:
                if error.status_code != 409:  # the swarm is about to
                    raise


def volumes(engine: Engine, course: str) -> list[Any]:
    """The students' volumes on this machine, as the engine describes them."""
    return [volume for volume in _volumes(engine, course) if naming.STUDENT in volume["Labels"]]


def _volumes(engine: Engine, course: str) -> list[Any]:
    with engine_errors(engine.name):
        listed = formed(engine.api.volumes(filters={"label": f"{naming.MARK}={course}"}), VOLUMES).get("Volumes")
        return [volume for volume in listed or [] if volume.get("Labels")]


def let_count(engine: Engine, course: str, students: Collection[str]) -> None:
    """What these students have on this machine counts from now on: their seats are here. Raises EngineError."""
    for volume in _volumes(engine, course):
        if volume["Labels"].get(naming.COPYING) in students:
            with engine_errors(engine.name), contextlib.suppress(NotFound):
                engine.api.remove_volume(volume["Name"])


def remembered_places(engine: Engine, course: str) -> dict[str, tuple[datetime, Place]]:
    """Where students sat whose seats were removed, and since when, from the labels of their volumes on this machine.

    The engine knows no date of a volume whose folder somebody removed; that volume is left out. A copy that does not
    count (seats/moving.py) has the date UNFINISHED, so that every other volume counts more.
    """
    listed = _volumes(engine, course)
    unfinished = {volume["Labels"].get(naming.COPYING) for volume in listed}
    return {
        student: (
            UNFINISHED if student in unfinished else date_text(volume["CreatedAt"]),
            Place(engine.name, port_text(volume["Labels"].get(naming.PORT, "0"))),
        )
        for volume in listed
        if (student := volume["Labels"].get(naming.STUDENT)) and volume.get("CreatedAt")
    }


def without_limit(engine: Engine, course: str) -> set[str]:
    """The students, by id, whose volume on this machine has no limit: it is from before there was one."""
    return {
        volume["Labels"].get(naming.STUDENT, "")
        for volume in _volumes(engine, course)
        if "size" not in (volume.get("Options") or {})
    }


def remove_volume(engine: Engine, volume: str) -> str:
    """Removes a volume with everything in it. Raises EngineError if a container uses it."""
    with engine_errors(engine.name):
        # A manager that lacks a volume asks the swarm for one of that name, which a leader before 23.0 can't answer.
        listed = engine.api.volumes(filters={"label": naming.MARK})["Volumes"] or []
        present = {each["Name"] for each in listed}
        for name in (name for name in (volume, naming.unfinished_name(volume)) if name in present):
            try:
                engine.api.remove_volume(name)
            except NotFound:
                pass
            except APIError as error:
                if error.status_code != 409:
                    raise
                raise EngineError(
                    f"The volume {name} on {engine.name} is in use.",
                    "Remove the container that uses it, then run again.",
                ) from None
    return "removed"


def wait_stopped(engine: Engine, course: str, student_id: str, timeout: float = STOPPING) -> None:
    """Waits until no container of a student runs on this machine. Raises SeatError, EngineError."""
    if not poll(lambda: student_id not in seat_containers(engine, course), timeout=timeout):
        raise SeatError(
            f"The container of student {student_id!r} still runs on {engine.name} after {timeout:.0f} s.",
            "Restart the Docker Engine of that machine, then run again.",
        )


def remove_stopped(engine: Engine, course: str, student_id: str) -> None:
    """Removes a student's containers that have ended: they hold the volume. Raises EngineError."""
    marks = naming.student_labels(course, student_id)
    with engine_errors(engine.name):
        filters = {"label": [f"{key}={value}" for key, value in marks.items()]}
        for container in engine.api.containers(all=True, filters=filters):
            if container["State"] != "running":
                with contextlib.suppress(NotFound):
                    engine.api.remove_container(container["Id"], force=True)
