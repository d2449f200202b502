"""Copies the material into the work folders of students. Runs in a helper container, as the seats' user.

`material`: the folder with the files, each under its SHA-256. `work`: the students' folders. The stream: what to give,
in JSON: `into`, `folders`, `files` (path, SHA-256, size, whether it is a program), `force`. A line of JSON is printed
for each student.

All that is in a student's folder may be meant to do harm, and may change at any moment: no link is followed, nothing is
opened that could block, and only so much of a student's files is read that the others need not wait.

What a student was given is kept in her folder, with which it moves, in a file of lines `SHA-256 size path`. A file with
one of these contents was not changed since. If she changes the record, only her own files are concerned.
"""

import contextlib
import errno
import hashlib
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

RECORD = b".cloudscale-material"
LONGEST_RECORD = 16 * 1024 * 1024  # bytes that are read of it
LONGEST_LINE = 8192  # bytes, of a path above all
OLD = 1024 * 1024 * 1024  # bytes of a student's files that are read beside twice the size of the material
SPARE = 256 * 1024 * 1024  # bytes of the disk that are left free; of a small one, a twentieth
PIECE = 1024 * 1024  # bytes that are copied at once
LONGEST_NAME = 255  # bytes
COPIES = 9  # new versions beside a file
NAMED = 20  # conflicts that are named for each student
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
BARRED = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.EISDIR})

Versions = dict[str, int]  # SHA-256 → size


class File(NamedTuple):
    """A file of the material; `path` is the one in the work folder."""

    path: str
    digest: str
    size: int
    is_program: bool


class Found(NamedTuple):
    """What is in a file's place. `digest`: empty if it is none of the known versions. `state` shows a later change."""

    digest: str
    is_file: bool
    is_folder: bool
    state: tuple[int, ...]


class Kept(Exception):
    """A file is not given, for this reason."""


class Work:
    """One student's work folder. `most`: bytes to read of it. `count`: the files that were written."""

    def __init__(self, folder: str, material: str, force: bool, most: int) -> None:
        self._root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise OSError(errno.EIO, "the work folder can't be written to")
        self._material = material
        self._force = force
        self._left = most
        self._given = self._read_record()
        self.count = 0
        self.conflicts: list[str] = []

    def make_folder(self, path: str) -> None:
        with contextlib.suppress(Kept), self._opened(path):  # the files in it say so
            pass

    def give(self, file: File, others: frozenset[str]) -> None:
        """Gives one file, or keeps what the student made of it. `others`: the paths of all files."""
        above, _, name = file.path.rpartition("/")
        try:
            with self._opened(above) as folder, _kept_if_barred("its folder can't be written to"):
                if beside := self._give_in(folder, name, file, others):
                    self.conflicts.append(f"{file.path}: changed by the student; the new version is {beside}")
        except Kept as reason:
            self.conflicts.append(f"{file.path}: {reason}")

    def _give_in(self, folder: int, name: str, file: File, others: frozenset[str]) -> str:
        """Returns the name of the new version beside one that the student changed, if there is one."""
        again = file.digest in self._given.get(file.path, {})
        found = self._look(folder, name, {**self._given.get(file.path, {}), file.digest: file.size})
        if found and found.digest == file.digest:
            self._note(file.path, file)
            if file.is_program:
                self._make_program(folder, name)
            return ""
        if found is None or found.digest or (self._force and not found.is_folder):
            self._note(file.path, file)
            if self._put(folder, name, file, found):
                return ""
        beside = self._beside(folder, name, file, others, again)
        self._note(file.path, file)
        if found and not found.is_file and not beside:
            raise Kept("the student has a link or a folder in its place")
        return beside

    def _beside(self, folder: int, name: str, file: File, others: frozenset[str], again: bool) -> str:
        """Gives the new version beside the changed one. `again`: she has had it before, and may have dealt with it."""
        above = file.path.rpartition("/")[0]
        for number in range(1, COPIES + 1):
            other = _other_name(name, number)
            path = f"{above}/{other}".lstrip("/")
            if path in others:
                continue
            found = self._look(folder, other, {**self._given.get(path, {}), file.digest: file.size})
            if found and found.digest == file.digest:
                return other
            if not again and (found is None or found.digest):
                self._note(path, file)
                if self._put(folder, other, file, found):
                    return other
        if again:
            return ""
        raise Kept("changed by the student, and so is each new version beside it")

    # --- files and folders ---

    @contextlib.contextmanager
    def _opened(self, path: str) -> Iterator[int]:
        """A folder below the student's, which is made if there is none."""
        folder = os.dup(self._root)
        try:
            for part in filter(None, path.split("/")):
                with _kept_if_barred(f"{part!r} is not a folder, or a closed one"):
                    with contextlib.suppress(FileExistsError):
                        os.mkdir(part.encode(), 0o755, dir_fd=folder)
                    below = os.open(part.encode(), READ | os.O_DIRECTORY, dir_fd=folder)
                os.close(folder)
                folder = below
            yield folder
        finally:
            os.close(folder)

    def _look(self, folder: int, name: str, versions: Versions) -> "Found | None":
        """What is there, and which of the versions it is. None: nothing."""
        try:
            state = _state(folder, name)
        except FileNotFoundError:
            return None
        mode, size = state[1:3]
        digest = ""
        if stat.S_ISREG(mode) and size in versions.values() and size <= self._left:
            self._left -= size
            with contextlib.suppress(OSError):  # one that even its owner may not read was changed
                digest = _digest(os.open(name.encode(), READ, dir_fd=folder), size)
        return Found(digest if digest in versions else "", stat.S_ISREG(mode), stat.S_ISDIR(mode), state)

    def _put(self, folder: int, name: str, file: File, found: "Found | None") -> bool:
        """Writes the file in one step. Returns False if what was found there has changed meanwhile: that stays."""
        temporary = b".cloudscale-" + hashlib.sha256(name.encode()).hexdigest()[:16].encode()
        target = name.encode()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=folder)  # of a run that was cut off
        try:
            self._copy(file, folder, temporary)
            if found is None:
                os.link(temporary, target, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
            elif _is_unchanged(folder, name, found):
                os.rename(temporary, target, src_dir_fd=folder, dst_dir_fd=folder)
            else:
                return False
        except FileExistsError:
            return False
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
        self.count += 1
        return True

    def _copy(self, file: File, folder: int, name: bytes) -> None:
        disk = os.fstatvfs(folder)
        if disk.f_bavail * disk.f_frsize < file.size + min(SPARE, disk.f_blocks * disk.f_frsize // 20):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        to = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        with open(to, "wb") as target, open(f"{self._material}/{file.digest}", "rb") as source:
            while piece := source.read(PIECE):
                target.write(piece)
            os.fchmod(target.fileno(), 0o755 if file.is_program else 0o644)

    def _make_program(self, folder: int, name: str) -> None:
        """Lets a file be run that can't be yet."""
        with open(os.open(name.encode(), READ, dir_fd=folder), "rb") as file:
            if not os.fstat(file.fileno()).st_mode & stat.S_IXUSR:
                os.fchmod(file.fileno(), 0o755)
                self.count += 1

    # --- the record ---

    def _open_record(self, flags: int) -> int:
        try:
            opened = os.open(RECORD, flags | READ, 0o644, dir_fd=self._root)
        except FileNotFoundError:
            raise
        except OSError as error:
            problem = error.strerror
        else:
            if stat.S_ISREG(os.fstat(opened).st_mode):
                return opened
            os.close(opened)
            problem = "it is not a file"
        raise OSError(errno.EIO, f"{RECORD.decode()} in the work folder can't be used ({problem})")

    def _read_record(self) -> dict[str, Versions]:
        given: dict[str, Versions] = {}
        try:
            opened = self._open_record(0)
        except FileNotFoundError:
            return given
        with open(opened, "rb") as file:
            for _ in range(LONGEST_RECORD // 68):  # no line is shorter
                if not (line := file.readline(LONGEST_LINE)) or file.tell() > LONGEST_RECORD:
                    break
                digest, _, rest = line.decode(errors="replace").rstrip("\n").partition(" ")
                size, _, path = rest.partition(" ")
                if path and len(digest) == 64 and size.isascii() and size.isdigit() and len(size) < 20:
                    given.setdefault(path, {})[digest] = int(size)
        return given

    def _note(self, path: str, file: File) -> None:
        """Remembers that the student is given this version. Done before: else it could later pass for her own."""
        versions = self._given.setdefault(path, {})
        if file.digest not in versions:
            with open(self._open_record(os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab") as record:
                record.write(f"{file.digest} {file.size} {path}\n".encode())
            versions[file.digest] = file.size


@contextlib.contextmanager
def _kept_if_barred(reason: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in BARRED:
            raise
        raise Kept(reason) from None


def _other_name(name: str, number: int) -> str:
    """`lesson (new).ipynb`, `lesson (new 2).ipynb`, …"""
    stem, dot, kind = name.rpartition(".")
    if not stem:  # it has no dot, or is a hidden file
        stem, dot, kind = name, "", ""
    end = f" (new{f' {number}' if number > 1 else ''}){dot}{kind}"
    return stem.encode()[: LONGEST_NAME - len(end.encode())].decode(errors="ignore") + end


def _state(folder: int, name: str) -> tuple[int, ...]:
    found = os.stat(name.encode(), dir_fd=folder, follow_symlinks=False)
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _is_unchanged(folder: int, name: str, found: Found) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return _state(folder, name) == found.state
    return False


def _digest(opened: int, size: int) -> str:
    digest = hashlib.sha256()
    with open(opened, "rb") as file:
        while size and (piece := file.read(min(PIECE, size))):
            digest.update(piece)
            size -= len(piece)
    return digest.hexdigest()


def give_all(folder: str, material: str, plan: Any) -> dict[str, Any]:
    """Gives one student everything, and returns what came of it."""
    into = plan["into"]
    files = [File(f"{into}/{path}".lstrip("/"), *rest) for path, *rest in plan["files"]]
    paths = frozenset(file.path for file in files)
    work, error = None, ""
    try:
        work = Work(folder, material, plan["force"], 2 * sum(file.size for file in files) + OLD)
        for path in plan["folders"]:
            work.make_folder(f"{into}/{path}")
        for file in files:
            work.give(file, paths)
    except OSError as problem:
        error = problem.strerror or str(problem)
    conflicts = work.conflicts if work else []
    return {
        "files": work.count if work else 0,
        "conflicts": len(conflicts),
        "named": conflicts[:NAMED],
        "error": error,
    }


def main(stream: Iterable[bytes], material: str, *work: str) -> None:
    os.umask(0o022)
    plan = json.loads(b"".join(stream))
    for folder in work:
        sys.stdout.write(json.dumps(give_all(folder, material, plan)) + "\n")
        sys.stdout.flush()
