"""Makes a volume the same as a folder of the trainer's. Runs in a helper container, as root.

`folder`: the volume. The stream: eight bytes with a length, and as JSON the folders and files that are wanted, each
file as its path, size, time of its last change in nanoseconds, and mode. With the word `look`, prints as JSON the
numbers of the files that differ, how many entries are too many, and the bytes that there is room for. With `take`, the
JSON has these numbers too, and the contents of those files follow.

Students may read at the same time: a file gets into its place in one step, once it is complete. Another trainer's run
may want to write at the same time: a lock keeps it out, and what differs has to be what it was when it was looked at.
"""

import fcntl
import json
import os
import stat
import sys
from collections.abc import Iterable, Iterator

SPARE = 256 * 1024 * 1024  # bytes of the disk that are left free; of a small one, a twentieth
INCOMING = ".cloudscale-incoming"

Wanted = tuple[str, int, int, int]


class Stream:
    """Pieces, read as numbers of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""

    def read(self, size: int) -> Iterator[bytes]:
        while size:
            self._buffer = self._buffer or next(self._pieces, b"")
            if not self._buffer:
                sys.exit("the shared folder was cut off")
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece

    def whole(self, size: int) -> bytes:
        return b"".join(self.read(size))


class Mirror:
    """`differing`: the numbers of the files to take. `extra_files`, `extra_folders`: what is not wanted."""

    def __init__(self, root: str, folders: list[str], files: list[Wanted]) -> None:
        self.root, self.folders, self.files = root, folders, files
        self.there: dict[str, os.stat_result] = {}
        found: list[str] = []
        for parent, inner, names in os.walk(root):
            for name in [*inner, *names]:
                path = os.path.relpath(os.path.join(parent, name), root)
                about = os.lstat(f"{root}/{path}")
                if stat.S_ISDIR(about.st_mode):
                    found.append(path)
                else:
                    self.there[path] = about
        paths = {path for path, *_ in files}
        self.extra_files = [path for path in self.there if path not in paths]
        self.extra_folders = sorted(({*found} - {*folders}), key=len, reverse=True)  # inner ones first
        self.missing_folders = [path for path in folders if path not in {*found}]
        self.differing = [number for number, file in enumerate(files) if not self._has(*file)]

    def _has(self, path: str, size: int, time: int, mode: int) -> bool:
        about = self.there.get(path)
        return about is not None and (about.st_size, about.st_mtime_ns, about.st_mode) == (
            size,
            time,
            stat.S_IFREG | mode,
        )

    def look(self) -> dict[str, object]:
        disk = os.statvfs(self.root)
        free = disk.f_bavail * disk.f_frsize - min(SPARE, disk.f_blocks * disk.f_frsize // 20)
        room = free + sum(self.there[path].st_size for path in self.extra_files)
        extra = len(self.extra_files) + len(self.extra_folders) + len(self.missing_folders)
        return {"differing": self.differing, "extra": extra, "room": room}

    def take(self, stream: Stream) -> None:
        for path in self.extra_files:
            os.unlink(f"{self.root}/{path}")
        for path in self.extra_folders:
            os.rmdir(f"{self.root}/{path}")
        os.chmod(self.root, 0o755)
        for path in sorted(self.missing_folders, key=len):
            os.mkdir(f"{self.root}/{path}")
            os.chmod(f"{self.root}/{path}", 0o755)
        for number in self.differing:
            self._take(stream, *self.files[number])

    def _take(self, stream: Stream, path: str, size: int, time: int, mode: int) -> None:
        temporary = f"{self.root}/{INCOMING}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            for piece in stream.read(size):
                if piece.count(0) == len(piece):  # a hole takes no room
                    file.seek(len(piece), os.SEEK_CUR)
                else:
                    file.write(piece)
            file.truncate(size)
        os.chmod(temporary, mode)
        os.utime(temporary, ns=(time, time))
        os.rename(temporary, f"{self.root}/{path}")


def main(pieces: Iterable[bytes], folder: str, what: str) -> None:
    stream = Stream(pieces)
    wanted = json.loads(stream.whole(int.from_bytes(stream.whole(8), "big")))
    if what == "look":
        sys.stdout.write(json.dumps(Mirror(folder, wanted["folders"], wanted["files"]).look()))
        return
    root = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)  # open, and so locked, until the program ends
    try:
        fcntl.flock(root, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mirror = Mirror(folder, wanted["folders"], wanted["files"])
        if mirror.differing != wanted["take"]:
            sys.exit("another run has changed it meanwhile; run again")
        mirror.take(stream)
    except BlockingIOError:
        sys.exit("another run is writing to it; wait until that has ended, then run again")
    finally:
        os.close(root)
