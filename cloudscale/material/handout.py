"""Material on its way: sent once to each machine, and from there into the students' work folders.

A volume of the course keeps it on each machine, each file under its SHA-256: only what is not there yet is sent. A
helper container copies it into the folders of all students of the machine; scripts/give.py says what it keeps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from errno import ENOSPC
from typing import Any

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors, explain_text
from cloudscale.errors import CloudscaleError, EngineError, SeatError
from cloudscale.material.programs import program, unexpected
from cloudscale.material.sources import Material, MaterialFile
from cloudscale.material.volumes import Helper, Mount, ensure_volume, opened, remove_helpers
from cloudscale.model import Outcome
from cloudscale.outside import OtherForm, formed, parse_json
from cloudscale.seats import containers
from cloudscale.units import MIB

TIMEOUT = 1800.0  # seconds for the material to reach all students of a machine
KEPT = "/material"  # where a helper has the volume that keeps it
GIVEN = {"files": int, "conflicts": int, "named": [str], "error": str}  # what it prints of each student
MOST_PRINTED = 16 * MIB  # bytes that are read of what a program prints


@dataclass(frozen=True)
class Handout:
    """What is given: the material, the folder for it in the work folder, and whether changed files are overwritten."""

    material: Material
    into: str = ""
    force: bool = False


@dataclass(frozen=True)
class Given:
    """What came of one student: how many files were written, and how many were kept as the student has them.

    `named`: some of the latter, with the reason.
    """

    files: int
    conflicts: int
    named: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        return "conflicts" if self.conflicts else "updated" if self.files else "unchanged"


@dataclass(frozen=True)
class HandedOut:
    """What came of one machine: of each student by id, and how many bytes were sent to it."""

    students: Mapping[str, Outcome[Given]]
    sent: int = 0


@dataclass(frozen=True)
class Distributor:
    """Hands out on the machines of a course. `timeout`: seconds for each machine."""

    course: str
    handout: Handout
    timeout: float = TIMEOUT

    def hand_out(self, engine: Engine, image: str, students: Iterable[str], done: Callable[[], None]) -> HandedOut:
        """Gives the material to these students, who have their volumes on this machine. `image`: one that it has.

        `done` is called after each student. Raises EngineError.
        """
        volumes = {each["Labels"][naming.STUDENT]: each for each in containers.volumes(engine, self.course)}
        present = [student for student in students if student in volumes]
        absent = {student: Outcome[Given](student, error=_no_work()) for student in students if student not in volumes}
        if not present:
            return HandedOut(absent)
        ensure_volume(engine, naming.material_name(self.course), naming.material_labels(self.course))
        mounts = [
            Mount(volumes[student]["Name"], f"/students/{number}", volumes[student]["Labels"], writable=True)
            for number, student in enumerate(present)
        ]
        with self._opened(engine, image, [self._kept(), *mounts]) as helper:
            missing = self._missing(helper)
            if missing:
                self._send(engine, image, missing)
            given = self._give(helper, present, [mount.folder for mount in mounts], done)
        return HandedOut({**absent, **given}, sum(file.size for file in missing))

    def _opened(
        self, engine: Engine, image: str, mounts: Sequence[Mount], user: str = ""
    ) -> AbstractContextManager[Helper]:
        return opened(engine, self.course, image, mounts, user=user)

    def _kept(self, *, writable: bool = False) -> Mount:
        return Mount(naming.material_name(self.course), KEPT, naming.material_labels(self.course), writable)

    def _missing(self, helper: Helper) -> list[MaterialFile]:
        """What the machine does not have yet, each content once."""
        files = {file.sha256: file for file in self.handout.material.files}
        wanted = "\n".join(files).encode()
        printed = helper.run(program("missing"), [KEPT], feed=[wanted], timeout=self.timeout)
        lines = list(_lines(printed))
        if not {*lines} <= files.keys():
            raise unexpected(helper.engine.name)
        return [files[line] for line in lines]

    def _send(self, engine: Engine, image: str, files: Sequence[MaterialFile]) -> None:
        # as root: students can't write to the folder that all of them get their files from
        with self._opened(engine, image, [self._kept(writable=True)], user="0:0") as helper:
            try:
                list(helper.run(program("store"), [KEPT], feed=_contents(files), timeout=self.timeout))
            except EngineError as error:
                if os.strerror(ENOSPC) not in error.message:
                    raise
                raise explain_text(os.strerror(ENOSPC), engine.name) from None

    def _give(
        self, helper: Helper, students: Sequence[str], folders: Sequence[str], done: Callable[[], None]
    ) -> dict[str, Outcome[Given]]:
        """What came of each student. If it ends early, those who are left have its error."""
        outcomes: dict[str, Outcome[Given]] = {}
        rest = iter(students)
        try:
            printed = helper.run(program("give"), [KEPT, *folders], feed=[self._plan()], timeout=self.timeout)
            for line in _lines(printed):
                student = next(rest, None)
                if student is None:
                    raise unexpected(helper.engine.name)
                outcomes[student] = _outcome(student, formed(parse_json(line), GIVEN))
                done()
            if len(outcomes) < len(students):
                raise unexpected(helper.engine.name)
        except (EngineError, ValueError, OtherForm) as problem:
            error = problem if isinstance(problem, EngineError) else unexpected(helper.engine.name)
            outcomes |= {student: Outcome(student, error=error) for student in students if student not in outcomes}
        return outcomes

    def _plan(self) -> bytes:
        handout, material = self.handout, self.handout.material
        files = [(file.path, file.sha256, file.size, file.is_program) for file in material.files]
        plan = {"into": handout.into, "folders": material.folders, "files": files, "force": handout.force}
        return json.dumps(plan).encode()


def _contents(files: Iterable[MaterialFile]) -> Iterator[bytes]:
    for each in files:
        yield f"{each.sha256} {each.size}\n".encode()
        left = each.size
        with open(each.source, "rb") as file:
            while left and (piece := file.read(min(MIB, left))):
                left -= len(piece)
                yield piece
        if left:
            raise CloudscaleError(f"{each.source} became shorter while it was sent.", "Run again.")


def _lines(printed: Iterable[bytes]) -> Iterator[str]:
    """The lines that a program prints, as soon as they are complete. Raises EngineError if they are too many."""
    buffer, size = b"", 0
    for piece in printed:
        buffer += piece
        size += len(piece)
        if size > MOST_PRINTED:
            raise EngineError(f"The answer of a helper container is longer than {MOST_PRINTED // MIB} MiB.")
        *lines, buffer = buffer.split(b"\n")
        yield from (line.decode(errors="replace") for line in lines)


def _outcome(student: str, result: Mapping[str, Any]) -> Outcome[Given]:
    if cause := result["error"]:
        remedy = 'invoke com_node "df -h" shows the disks.' if cause == os.strerror(ENOSPC) else ""
        return Outcome(student, error=SeatError(f"not all of the material was copied: {cause}.", remedy))
    return Outcome(student, Given(result["files"], result["conflicts"], tuple(result["named"])))


def _no_work() -> SeatError:
    return SeatError("there is no work folder yet.", "invoke themachine starts the seat, which makes it.")


def remove_kept(engine: Engine, course: str) -> str:
    """Removes what a machine keeps of the material, and helpers that a killed run left. Raises EngineError."""
    remove_helpers(engine, course)
    labels = [f"{key}={value}" for key, value in naming.material_labels(course).items()]
    with engine_errors(engine.name):
        listed = engine.api.volumes(filters={"label": labels})["Volumes"] or []
    for volume in listed:
        containers.remove_volume(engine, volume["Name"])
    return "removed"
