"""A student's volume on two machines: the work is copied from one engine to the other, through this computer.

The copy is a tar archive that the engines make and unpack themselves, so owners, modes, times and links stay. It passes
chunk by chunk; nothing of it gets on a disk here. The volumes are read and written through containers that never start,
as `docker cp` does, and only after the seat has stopped.

Until a seat is pinned to the machine with the copy, another volume beside that one says that it does not count: labels
of volumes can't be changed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from docker.errors import NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError, EngineError
from cloudscale.seats.containers import remove_stopped, remove_volume
from cloudscale.units import gib, mib

FOLDER = "/cloudscale-work"  # no image has anything there, which an engine would put into an empty volume
END = bytes(1024)  # of every tar archive (POSIX.1-2017, pax, "ustar Interchange Format")


@dataclass(frozen=True)
class StudentVolume:
    """A student's volume on one machine. `image`: one that the machine has."""

    engine: Engine
    course: str
    student_id: str
    image: str

    @property
    def name(self) -> str:
        return naming.volume_name(self.course, self.student_id)

    @property
    def _marks(self) -> dict[str, str]:
        return naming.labels(self.course, **{naming.COPYING: self.student_id})

    @contextlib.contextmanager
    def opened(self) -> Iterator[str]:
        """A container that has the volume and never starts. Raises EngineError."""
        api = self.engine.api
        with engine_errors(self.engine.name):
            created = api.create_container(
                self.image,
                entrypoint=["true"],
                host_config=api.create_host_config(binds=[f"{self.name}:{FOLDER}"], network_mode="none"),
                labels=self._marks,
            )
            try:
                yield created["Id"]
            finally:
                # what is left is removed by the next move; it must not hide why this one failed
                with contextlib.suppress(CloudscaleError), engine_errors(self.engine.name):
                    api.remove_container(created["Id"], force=True)

    def begin(self, labels: Mapping[str, str], disk: int = 0) -> None:
        """Makes it as an empty copy that does not count, in place of what is there. Raises EngineError.

        `disk`: its limit in bytes; 0: none.
        """
        self._make(naming.unfinished_name(self.name), self._marks)
        self._make(self.name, labels)  # checks whose it is
        self._free()
        with engine_errors(self.engine.name):
            self.engine.api.remove_volume(self.name)
        self._make(self.name, labels, {"size": str(disk)} if disk else {})

    def _make(self, name: str, labels: Mapping[str, str], options: Mapping[str, str] = MappingProxyType({})) -> None:
        with engine_errors(self.engine.name):  # one that is there is returned as it is
            volume = self.engine.api.create_volume(name, labels=dict(labels), driver_opts=dict(options))
        if (volume["Labels"] or {}).get(naming.MARK) != self.course:
            raise EngineError(
                f"{self.engine.name}: a volume {name} exists that does not carry this course's mark.",
                f"Remove it (docker volume rm {name}) or choose another --course.",
            )

    def remove(self) -> None:
        """Removes it, finished or not. Raises EngineError."""
        self._free()
        remove_volume(self.engine, self.name)

    def _free(self) -> None:
        """Removes what holds it: containers of the seat that have ended, and of a move that was killed."""
        remove_stopped(self.engine, self.course, self.student_id)
        remove_helpers(self.engine, self.course, self.student_id)


def remove_helpers(engine: Engine, course: str, student_id: str = "") -> None:
    """Removes the containers that a killed move left; of one student, or of all. Raises EngineError."""
    helper = f"{naming.COPYING}={student_id}" if student_id else naming.COPYING
    with engine_errors(engine.name):
        for container in engine.api.containers(all=True, filters={"label": [f"{naming.MARK}={course}", helper]}):
            with contextlib.suppress(NotFound):
                engine.api.remove_container(container["Id"], force=True)


def copy(
    source: StudentVolume,
    target: StudentVolume,
    *,
    room: int | None,
    timeout: float,
    advance: Callable[[int, int], None] = lambda done, of: None,
) -> None:
    """Copies what is in a volume into another one, which `begin` has made.

    `room`: bytes that it may take there; None if that is not known. `timeout`: seconds for all of it. Raises
    EngineError.
    """
    limits = _Limits(source, target, room, timeout, advance)
    with source.opened() as from_, target.opened() as to:
        with engine_errors(source.engine.name):
            chunks, _ = source.engine.api.get_archive(from_, FOLDER)
        # load-bearing: an engine does nothing else with a container of which somebody still reads
        with contextlib.closing(chunks):
            try:
                with engine_errors(target.engine.name):
                    target.engine.api.put_archive(to, "/", limits.watch(chunks))
            except CloudscaleError as error:
                if limits.error:  # the engine's own is only that the archive was cut off
                    raise limits.error from None
                raise _refused(target, error) from None


class _Limits:
    """Watches an archive as it passes; `error` says why it was cut off."""

    def __init__(
        self,
        source: StudentVolume,
        target: StudentVolume,
        room: int | None,
        timeout: float,
        advance: Callable[[int, int], None],
    ) -> None:
        self._source = source.engine.name
        self._target = target.engine.name
        self._room = room
        self._timeout = timeout
        self._advance = advance
        self.error: EngineError | None = None

    def watch(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks. Raises EngineError if there are too many, at the deadline, and if the end is missing."""
        try:
            with engine_errors(self._source):
                yield from self._checked(chunks)
        except EngineError as error:
            self.error = error
            raise

    def _checked(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        deadline = time.monotonic() + self._timeout
        done, end = 0, b""
        for chunk in chunks:
            done += len(chunk)
            end = (end + chunk)[-len(END) :]
            if self._room is not None and done > self._room:
                raise EngineError(
                    f"{self._target}: its disk has too little room for the work on {self._source}, which is more than"
                    f" {gib(self._room)}.",
                    "Make room there (docker system df), or choose another machine.",
                )
            if time.monotonic() > deadline:
                raise EngineError(
                    f"The work on {self._source} was not copied to {self._target} within {self._timeout:g} s"
                    f" ({mib(done)} so far).",
                    "Run again with a longer --timeout.",
                )
            yield chunk
            self._advance(done, done)
        # an engine that fails in the middle ends its answer as if nothing were wrong
        if end != END:
            raise EngineError(
                f"{self._source}: its engine has not sent all of the student's work.",
                "Look at its log (journalctl -u docker), then run again.",
            )


def _refused(target: StudentVolume, error: CloudscaleError) -> EngineError:
    return EngineError(
        f"{target.engine.name}: it does not take the student's work. {error.message}",
        error.remedy or "Check the room on its disk (docker system df), then run again.",
    )
