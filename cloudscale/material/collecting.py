"""One student's work, from the volume into the trainer's folder.

All that comes from there is bounded and checked here again: what it is called, how much it is, whether it is whole.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import IO, Any

from cloudscale.errors import CloudscaleError
from cloudscale.material import work_manifest
from cloudscale.material.programs import program, records, unexpected
from cloudscale.material.volumes import Helper
from cloudscale.material.work_folder import Incoming, WorkFolder
from cloudscale.material.work_manifest import Row
from cloudscale.material.work_names import LONGEST_PATH, BadName, Names, own_path
from cloudscale.model import Student
from cloudscale.outside import parse_json
from cloudscale.units import GIB, MIB, gib

MOST_FILES = 100_000  # of one student
MOST_BYTES = 10 * GIB
LIMITS = {  # beside these; of one student
    "entries": 200_000,  # files and folders that are looked at
    "depth": 64,  # folders in each other
    "path": LONGEST_PATH,
    "names": 32 * MIB,  # of all paths together
}
SHOWN = 3  # names of each kind
LONGEST_SHOWN = 60  # characters of a name
LONGEST_REASON = 120  # characters
MOST_KINDS = 16
IN_MEMORY = MIB  # bytes of a student's lines of the manifest
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)  # of the trainer's disk

# Why something is left out, by the program's word for it: one, and several.
WORDS = {
    "link": ("link", "links"),
    "special": ("pipe, socket or device", "pipes, sockets or devices"),
    "many": ("file too many", "files too many"),
    "more": ("part of the work, which has too many files and folders", ""),
    "deep": ("folder that is too deep", "folders that are too deep"),
    "long": ("path that is too long", "paths that are too long"),
    "changed": ("file that changed while it was read", "files that changed while they were read"),
}
HARMLESS = ("link", "special")  # there is no work in them


class LeftOut:
    """What was left out, and why: so many of each kind, and the names of the first ones."""

    def __init__(self) -> None:
        self._kinds: dict[str, tuple[int, list[str]]] = {}

    def add(self, why: str, name: str) -> None:
        if why not in self._kinds and len(self._kinds) >= MOST_KINDS:
            why = "left out for other reasons"
        count, names = self._kinds.get(why, (0, []))
        self._kinds[why] = count + 1, [*names, name] if len(names) < SHOWN else names

    def __bool__(self) -> bool:
        return bool(self._kinds)

    @property
    def is_work(self) -> bool:
        """Whether there was work in it."""
        return any(why not in HARMLESS for why in self._kinds)

    def __str__(self) -> str:
        """`2 links (a, b), 1 file …`"""
        work_first = sorted(self._kinds.items(), key=lambda kind: kind[0] in HARMLESS)
        return ", ".join(f"{count} {_kind(why, count)}{_some(names, count)}" for why, (count, names) in work_first)


def _kind(why: str, count: int) -> str:
    if why in WORDS:
        return WORDS[why][count > 1]
    return f"{'file' if count == 1 else 'files'} {why}"


def _some(names: list[str], count: int) -> str:
    shown = ", ".join(filter(None, names))
    more = f" and {count - len(names)} more" if count > len(names) else ""
    return f" ({shown}{more})" if shown else ""


@dataclass
class Collected:
    """What came of one student's work.

    `lines`: those of the manifest. `files`, `bytes`: all of it; `sent`: how many files, and bytes of them, were not
    here yet. `since`: the machine's time, in nanoseconds, before it was read. `aside`: what was there, and where it is
    now. `earlier`: how many files are here that the student does not have (any more), and
    `dropped`: how many of them were in the manifest.
    """

    student: Student
    folder: str
    lines: IO[str] = field(repr=False)
    files: int = 0
    bytes: int = 0
    sent_files: int = 0
    sent_bytes: int = 0
    since: int = 0
    earlier: int = 0
    dropped: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)
    coded: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)

    @property
    def state(self) -> str:
        if self.left_out.is_work:
            return "incomplete"
        return "collected" if self.sent_files else "unchanged"


@dataclass(frozen=True)
class Limits:
    """Of one student: files and bytes in all, and the seconds for all of it."""

    timeout: float
    files: int = MOST_FILES
    bytes: int = MOST_BYTES


def collect_work(
    helper: Helper, root: str, folder: WorkFolder, student: Student, own: str, before: Mapping[str, str], limits: Limits
) -> Collected:
    """Brings a student's work into the folder `own` of the trainer's folder. What is there already is not sent again.

    `root`: where the helper has the volume. `before`: path and sum of what was collected the last time; such a file is
    overwritten where it has changed, any other one is set aside. What the student has removed since stays.

    Raises EngineError, and CloudscaleError where it can't be written.
    """
    folder.make(own)
    here = _Here(folder, own, before)
    # the task closes it, once it is in the manifest
    lines = tempfile.SpooledTemporaryFile(IN_MEMORY, mode="w+", encoding="utf-8", newline="")  # noqa: SIM115
    receiver = _Receiver(Collected(student, own, lines), folder, here, limits, helper.engine.name)
    given = json.dumps({"files": limits.files, "bytes": limits.bytes, **LIMITS})
    printed = helper.run(program("collect"), [root, given], feed=here.known(), timeout=limits.timeout)
    try:
        with contextlib.closing(receiver):
            for kind, content in records(printed, helper.engine.name):
                receiver.take(kind, content)
    except BaseException as error:
        lines.close()
        if not isinstance(error, OSError) or error.errno not in FULL:
            raise
        raise CloudscaleError(
            f"{folder.path} can't be written: {error.strerror}.", "Free some space there, then run again."
        ) from None
    receiver.collected.earlier, receiver.collected.dropped = here.unused, here.dropped
    return receiver.collected


class _Here:
    """What the trainer's folder has of a student already: the sum of each file, as it is now."""

    def __init__(self, folder: WorkFolder, own: str, before: Mapping[str, str]) -> None:
        self._folder = folder
        self._before = before
        self._sums = dict(folder.sums(own))
        self._of_own: dict[bytes, str] = {}
        for path in self._sums:
            with contextlib.suppress(BadName):
                self._of_own[own_path(path.partition("/")[2])] = path
        self._used: set[str] = set()

    def known(self) -> Iterator[bytes]:
        """For the program: each file as its sum, the student's path, and a zero byte."""
        for own, path in self._of_own.items():
            yield self._sums[path].encode() + own + b"\0"

    @property
    def unused(self) -> int:
        return len(self._sums.keys() - self._used)

    @property
    def dropped(self) -> int:
        return len(self._before.keys() - self._used)

    def keep(self, own: bytes, path: str, digest: str) -> str:
        """A file that is here under this path, or under another one that it had. Returns what was set aside."""
        present = self._of_own.get(own, "")
        if self._sums.get(present) != digest:
            raise BadName("that changed here at the same time")
        self._used |= {present, path}
        return self._folder.move(present, path) if present != path else ""

    def place(self, incoming: Incoming, path: str, digest: str, *, time: int, runs: bool) -> str:
        """Puts a new file into its place. Returns what was set aside, since it was not collected."""
        aside = ""
        self._used.add(path)
        if path in self._sums and self._sums[path] not in (self._before.get(path), digest):
            aside = self._folder.set_aside(path)
        incoming.place(path, time=time, runs=runs)
        return aside


class _Receiver:
    """Takes the records of scripts/collect.py in."""

    def __init__(self, collected: Collected, folder: WorkFolder, here: _Here, limits: Limits, machine: str) -> None:
        self.collected = collected
        self._here = here
        self._folder = folder
        self._limits = limits
        self._machine = machine
        self._names = Names()
        self._open = contextlib.ExitStack()
        self._incoming: Incoming | None = None
        self._size = 0
        self._digest = hashlib.sha256()
        self._about: list[Any] = []
        self._path = b""

    def close(self) -> None:
        self._open.close()

    def take(self, kind: bytes, content: bytes) -> None:
        """Raises EngineError for what can't be, OSError where the disk is full."""
        takers = {b"T": self._time, b"F": self._file, b"D": self._data, b"A": self._restart, b"E": self._end}
        takers |= {b"S": self._same, b"X": self._left_out}
        if kind not in takers:
            raise unexpected(self._machine)
        try:
            takers[kind](content)
        except (ValueError, IndexError, TypeError, OverflowError):
            raise unexpected(self._machine) from None

    def _time(self, content: bytes) -> None:
        self.collected.since = int(content)

    def _file(self, content: bytes) -> None:
        self._begin(content)
        self._open.close()
        self._incoming = self._open.enter_context(self._folder.incoming())

    def _begin(self, content: bytes) -> None:
        about, _, self._path = content.partition(b"\0")
        self._about = parse_json(about)
        self._size, self._digest = 0, hashlib.sha256()
        if self.collected.files >= self._limits.files:
            raise unexpected(self._machine)

    def _data(self, content: bytes) -> None:
        self._size += len(content)
        if self._incoming is None or self.collected.bytes + self._size > self._limits.bytes:
            raise unexpected(self._machine)
        self._digest.update(content)
        self._incoming.file.write(content)

    def _restart(self, content: bytes) -> None:
        self._open.close()
        self._incoming = None

    def _end(self, content: bytes) -> None:
        digest, _, changed = content.partition(b"\0")
        if self._incoming is None or self._digest.hexdigest().encode() != digest:
            raise unexpected(self._machine)
        incoming, (_, time, runs), text = self._incoming, self._about, digest.decode()
        with self._open:
            if self._stored(text, lambda path: self._here.place(incoming, path, text, time=int(time), runs=bool(runs))):
                self.collected.sent_files += 1
                self.collected.sent_bytes += self._size
        self._incoming = None
        if changed:
            self.collected.left_out.add("changed", shown(self._path))

    def _same(self, content: bytes) -> None:
        self._begin(content)
        size, _, _, digest = self._about
        self._size = int(size)
        if self.collected.bytes + self._size > self._limits.bytes:
            raise unexpected(self._machine)
        self._stored(str(digest), lambda path: self._here.keep(self._path, path, str(digest)))

    def _stored(self, digest: str, store: Callable[[str], str]) -> bool:
        """Whether a file is here now; one that can't be is left out. Raises OSError where the disk is full."""
        collected, student = self.collected, self.collected.student
        try:
            inner = self._names.path(self._path)
            aside = store(f"{collected.folder}/{inner}")
        except BadName as error:
            collected.left_out.add(error.message, shown(self._path))
            return False
        except OSError as error:
            if error.errno in FULL:
                raise
            collected.left_out.add(f"that can't be written here ({error.strerror})", shown(self._path))
            return False
        if aside:
            collected.aside.append(aside)
        if inner.encode() != self._path:
            collected.coded.append(inner)
        row = Row(student.full_name, student.id, f"{collected.folder}/{inner}", self._size, digest)
        collected.lines.write(work_manifest.line(row))
        collected.files += 1
        collected.bytes += self._size
        return True

    def _left_out(self, content: bytes) -> None:
        why, _, path = content.partition(b"\0")
        reason = why.decode(errors="replace")[:LONGEST_REASON]
        if reason == "large":
            reason = f"beyond the limit of {gib(self._limits.bytes)} for one student"
        elif reason.startswith("unreadable: "):
            reason = f"that can't be read ({reason.removeprefix('unreadable: ')[:100]})"
        self.collected.left_out.add(reason, shown(path))


def shown(path: bytes) -> str:
    text = path.decode(errors="replace")
    return text if len(text) <= LONGEST_SHOWN else f"{text[:LONGEST_SHOWN]}…"
