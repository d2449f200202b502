"""The folder that all seats of a machine can read: a folder of the trainer's, mirrored into a volume on each machine.

What is there is compared by size and time of the last change, as rsync does it: nothing is remembered on the trainer's
computer, and a second run sends nothing. The volume is mounted read-only into the seats, so a change reaches them
without a restart.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import CloudscaleError, EngineError, RequestError
from cloudscale.material.programs import program, unexpected
from cloudscale.material.sources import Scan
from cloudscale.material.volumes import LIFETIME, Helper, Mount, ensure_volume, opened, remove_helpers
from cloudscale.outside import OtherForm, formed, parse_json
from cloudscale.seats import containers
from cloudscale.units import MIB, amount
from cloudscale.waiting import poll

FOLDER = "/cloudscale-shared"  # where a helper has the volume
MOST_FILES = 200_000
MOST_ANSWERED = 16 * MIB  # bytes of an answer about all of them
LATEST = 2**33 * 10**9  # nanoseconds; file systems keep no later times
LOOKING = 600.0  # seconds to compare
SLOWEST = 128 * 1024  # bytes a second; a machine that takes less is given up
RELEASING = 60.0  # seconds until the containers of seats that had it are gone
SETTING = "seat.shared"

AMOUNT = range(2**63)
Sent = Callable[[int], None]  # argument: bytes


@dataclass(frozen=True)
class SharedFile:
    """A file: its path in the folder, where it is here, its size, and when it was changed, in nanoseconds."""

    path: str
    source: Path
    size: int
    changed: int
    mode: int


@dataclass(frozen=True)
class Shared:
    """The files and folders to share. `special`: files with a setuid or setgid bit, which they lose."""

    files: tuple[SharedFile, ...]
    folders: tuple[str, ...] = ()
    special: tuple[str, ...] = ()

    @cached_property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


def scan(location: Path) -> Shared:
    """The files of a folder; a link in it is what it leads to, inside of it. Raises RequestError."""
    files: list[SharedFile] = []
    special: list[str] = []

    def take(source: Path, path: str, about: os.stat_result) -> None:
        if not os.access(source, os.R_OK):
            raise RequestError(f"{source} can't be read.", "Change its permissions, or remove it.")
        if about.st_mode & (stat.S_ISUID | stat.S_ISGID):
            special.append(path)
        mode = 0o755 if about.st_mode & stat.S_IXUSR else 0o644
        files.append(SharedFile(path, source, about.st_size, min(max(0, about.st_mtime_ns), LATEST), mode))
        if len(files) > MOST_FILES:
            raise RequestError(f"More than {MOST_FILES} files are too many.", "Pack them, or share a part.")

    try:
        if not location.is_dir():
            what = "is not a folder" if location.exists() else "does not exist"
            raise RequestError(f"{location} {what}.", "Give a folder of this computer.")
        root = location.resolve()
        found = Scan(root, take)
        found.folder(root, "", ())
        if not files:
            raise RequestError(
                f"{location} has no files.", "Check the folder. To share nothing, leave the setting out."
            )
    except RequestError as error:
        raise RequestError(f"{SETTING}: {error.message}", error.remedy) from None
    except OSError as error:
        raise RequestError(f"{SETTING}: {error.filename or location} can't be read: {error.strerror}.") from None
    return Shared(tuple(files), tuple(found.folders), tuple(special))


# --- on a machine ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Mirror:
    """Brings the folder to the machines of a course. `timeout`: seconds for each; None: as its size needs."""

    course: str
    shared: Shared
    timeout: float | None = None

    def bring(self, engine: Engine, image: str, sent: Sent) -> int:
        """Makes the machine's copy the same as the folder. Returns how many files were sent, -1 if nothing differed.

        `image`: one that the machine has. `sent` is called with the bytes on their way. Raises EngineError, also where
        the disk is too small.
        """
        name, labels = naming.shared_name(self.course), naming.shared_labels(self.course)
        ensure_volume(engine, name, labels)
        mounts = [Mount(name, FOLDER, labels, writable=True)]
        # as root: students can read it, and nobody but root can write
        with opened(engine, self.course, image, mounts, user="0:0", what="the shared folder") as helper:
            differing, extra, room = self._look(helper)
            files = [self.shared.files[number] for number in differing]
            size = sum(file.size for file in files)
            if size > room:
                raise EngineError(
                    f"{engine.name}: the shared folder needs {amount(size)} more of its disk, which has room for"
                    f" {amount(max(0, room))}.",
                    "Make room there (docker system df shows what the engine has), or share less.",
                )
            if not files and not extra:
                return -1
            timeout = self.timeout or min(LOOKING + size / SLOWEST, LIFETIME - LOOKING)
            feed = self._feed(differing, _contents(files, sent))
            list(helper.run(program("mirror"), [FOLDER, "take"], feed=feed, timeout=timeout))
        return len(files)

    def _look(self, helper: Helper) -> tuple[list[int], int, int]:
        """The numbers of the files that differ, how many other entries do, and the bytes that there is room for."""
        answer = bytearray()
        timeout = self.timeout or LOOKING
        for piece in helper.run(program("mirror"), [FOLDER, "look"], feed=self._feed(), timeout=timeout):
            answer += piece
            if len(answer) > MOST_ANSWERED:
                raise EngineError(f"{helper.engine.name}: the answer about the shared folder is too long.")
        numbers = range(len(self.shared.files))
        try:
            form = {"differing": [numbers], "extra": AMOUNT, "room": int}
            found = formed(parse_json(bytes(answer)), form)
        except (ValueError, OtherForm):
            raise unexpected(helper.engine.name) from None
        return found["differing"], found["extra"], found["room"]

    def _feed(self, take: Sequence[int] = (), contents: Iterable[bytes] = ()) -> Iterator[bytes]:
        files = [(file.path, file.size, file.changed, file.mode) for file in self.shared.files]
        wanted = json.dumps({"folders": self.shared.folders, "files": files, "take": take}).encode()
        yield len(wanted).to_bytes(8, "big") + wanted
        yield from contents


def _contents(files: Sequence[SharedFile], sent: Sent) -> Iterator[bytes]:
    for each in files:
        left = each.size
        try:
            with open(each.source, "rb") as file:
                while left and (piece := file.read(min(MIB, left))):
                    left -= len(piece)
                    yield piece
                    sent(len(piece))
        except OSError as error:
            raise CloudscaleError(f"{each.source} can't be read any more: {error.strerror}.", "Run again.") from None
        if left:
            raise CloudscaleError(f"{each.source} became shorter while it was sent.", "Run again.")


def make_room(engine: Engine, course: str, image: str, students: Sequence[str], name: str) -> list[str]:
    """Renames what these students have on the machine by the name of the shared folder, unless it is an empty folder.

    It would be hidden, or the seat could not start. Returns the students of whom something was. Raises EngineError.
    """
    own = {each["Labels"][naming.STUDENT]: each for each in containers.volumes(engine, course)}
    present = [student for student in students if student in own]
    if not present:
        return []
    mounts = [
        Mount(own[student]["Name"], f"/students/{number}", own[student]["Labels"], writable=True)
        for number, student in enumerate(present)
    ]
    with opened(engine, course, image, mounts) as helper:
        words = [name, *(mount.folder for mount in mounts)]
        printed = b"".join(helper.run(program("make_room"), words, timeout=LOOKING))
    try:
        return [present[formed(int(number), range(len(present)))] for number in printed.split()]
    except (ValueError, OtherForm):
        raise unexpected(engine.name) from None


def machine_has(engine: Engine, course: str) -> bool:
    """Whether a machine has a copy already, complete or not. Raises EngineError."""
    return bool(_volumes(engine, course))


def remove_shared(engine: Engine, course: str, timeout: float = RELEASING) -> str:
    """Removes a machine's copy, once no seat has it any more. Raises EngineError."""
    if not (names := _volumes(engine, course)):
        return ""
    remove_helpers(engine, course)

    def is_gone() -> bool:
        for container in engine.api.containers(all=True, filters={"volume": names}):
            # of the tasks that have ended, Swarm keeps some
            if container["Labels"].get(naming.MARK) == course and container["State"] != "running":
                with contextlib.suppress(NotFound):
                    engine.api.remove_container(container["Id"], force=True)
        try:
            for name in names:
                with contextlib.suppress(NotFound):
                    engine.api.remove_volume(name)
        except APIError as error:
            if error.status_code != 409:
                raise
            return False
        return True

    with engine_errors(engine.name):
        if not poll(is_gone, timeout=timeout):
            raise EngineError(
                f"{engine.name}: the volume of the shared folder is in use.",
                "Remove the container that uses it, then run again.",
            )
    return "removed"


def _volumes(engine: Engine, course: str) -> list[str]:
    labels = [f"{key}={value}" for key, value in naming.shared_labels(course).items()]
    with engine_errors(engine.name):
        return [volume["Name"] for volume in engine.api.volumes(filters={"label": labels})["Volumes"] or []]
