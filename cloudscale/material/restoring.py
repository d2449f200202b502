"""One student's collected work, from the trainer's folder back into a volume."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from cloudscale.material.collecting import LeftOut, shown
from cloudscale.material.programs import program, records, unexpected
from cloudscale.material.volumes import Helper
from cloudscale.material.work_folder import PIECE, WorkFolder
from cloudscale.material.work_manifest import Row
from cloudscale.material.work_names import BadName, own_path

DAMAGED = "damaged here (its sum is not that of the manifest)"
MISSING = "that can't be read here"
CONFLICT = "different there"


@dataclass
class Restored:
    """What came of one student's work: files that were written, and bytes of them; and files that were there."""

    files: int = 0
    bytes: int = 0
    same: int = 0
    conflicts: int = 0
    left_out: LeftOut = field(default_factory=LeftOut)

    @property
    def state(self) -> str:
        if self.conflicts:
            return "conflicts"
        if self.left_out:
            return "incomplete"
        return "restored" if self.files else "unchanged"


def restore_work(
    helper: Helper, root: str, folder: WorkFolder, rows: Iterable[Row], *, force: bool, timeout: float
) -> Restored:
    """Puts files back, in the volume that the helper has at `root`. One that is different there stays, unless `force`.

    A file here whose sum is not that of the manifest is left out. Raises EngineError.
    """
    restored = Restored()
    files = dict(_own(rows, restored))
    to_write = _compared(helper, root, files, restored, force=force, timeout=timeout)
    if to_write:
        _write(helper, root, _Sender(folder, files, to_write, restored, force=force), timeout)
    return restored


def _own(rows: Iterable[Row], restored: Restored) -> Iterator[tuple[bytes, Row]]:
    """The student's path of each file."""
    for row in rows:
        try:
            yield own_path(row.inner), row
        except BadName as error:
            restored.left_out.add(error.message, row.path)


def _compared(
    helper: Helper, root: str, files: dict[bytes, Row], restored: Restored, *, force: bool, timeout: float
) -> list[bytes]:
    """The paths of the files that are to be written."""
    to_write = []
    sums = (row.sha256.encode() + path + b"\0" for path, row in files.items())
    printed = helper.run(program("restore"), [root, "compare"], feed=sums, timeout=timeout)
    for kind, content in records(printed, helper.engine.name):
        if kind == b"S":
            restored.same += 1
        elif kind == b"N" or (kind == b"C" and force):
            to_write.append(content)
        else:
            _not_written(restored, kind, content, helper.engine.name)
        if to_write and to_write[-1] not in files:
            raise unexpected(helper.engine.name)
    return to_write


class _Sender:
    """What scripts/restore.py reads: each file with its description."""

    def __init__(
        self, folder: WorkFolder, files: dict[bytes, Row], to_write: list[bytes], restored: Restored, *, force: bool
    ) -> None:
        self.files = files
        self.restored = restored
        self._folder = folder
        self._to_write = to_write
        self._force = force

    def __iter__(self) -> Iterator[bytes]:
        for path in self._to_write:
            row = self.files[path]
            try:
                with self._folder.open(row.path) as file:
                    info = os.fstat(file.fileno())
                    if info.st_size != row.bytes:  # it is damaged, and that is known before all of it is sent
                        self.restored.left_out.add(DAMAGED, row.path)
                        continue
                    about = {"path": path.hex(), "size": row.bytes, "sum": row.sha256, "time": info.st_mtime_ns}
                    described = json.dumps({**about, "runs": bool(info.st_mode & 0o100), "force": self._force}).encode()
                    yield len(described).to_bytes(4, "big") + described
                    yield from _exactly(file.read, row.bytes)
            except OSError:
                self.restored.left_out.add(MISSING, row.path)
        yield bytes(4)


def _exactly(read: Callable[[int], bytes], size: int) -> Iterator[bytes]:
    while size > 0:
        with contextlib.suppress(OSError):
            if piece := read(min(PIECE, size)):
                size -= len(piece)
                yield piece
                continue
        # shorter than it was: what is sent in its place has another sum
        piece = bytes(min(PIECE, size))
        size -= len(piece)
        yield piece


def _write(helper: Helper, root: str, sender: _Sender, timeout: float) -> None:
    restored = sender.restored
    printed = helper.run(program("restore"), [root, "write"], feed=sender, timeout=timeout)
    for kind, content in records(printed, helper.engine.name):
        if kind == b"W" and content in sender.files:
            restored.files += 1
            restored.bytes += sender.files[content].bytes
        elif kind == b"M":
            restored.left_out.add(DAMAGED, shown(content))
        else:
            _not_written(restored, kind, content, helper.engine.name)


def _not_written(restored: Restored, kind: bytes, content: bytes, machine: str) -> None:
    if kind == b"C":
        restored.conflicts += 1
        restored.left_out.add(CONFLICT, shown(content))
    elif kind == b"B":
        why, _, path = content.partition(b"\0")
        restored.left_out.add(f"that can't be written ({why.decode(errors='replace')[:200]})", shown(path))
    else:
        raise unexpected(machine)
