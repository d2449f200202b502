"""Keeps the material's files on a machine, each under its SHA-256. Runs in a helper container, as root.

`folder`: the volume that keeps them. The stream: for each file a line with its SHA-256 and size, and its content.
A file gets its name once it is complete: one that was cut off is sent again.
"""

import errno
import hashlib
import os
import sys
from collections.abc import Iterable, Iterator

SPARE = 256 * 1024 * 1024  # bytes of the disk that are left free; of a small one, a twentieth


class Stream:
    """Pieces, read as lines and as numbers of bytes."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._buffer = b""

    def line(self) -> bytes:
        """The next line without its end; empty at the end of all."""
        while b"\n" not in self._buffer and (piece := next(self._pieces, b"")):
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line

    def read(self, size: int) -> Iterator[bytes]:
        while size:
            self._buffer = self._buffer or next(self._pieces, b"")
            if not self._buffer:
                sys.exit("the material was cut off")
            piece, self._buffer = self._buffer[:size], self._buffer[size:]
            size -= len(piece)
            yield piece


def main(pieces: Iterable[bytes], folder: str) -> None:
    stream = Stream(pieces)
    temporary = f"{folder}/incoming"
    while line := stream.line():
        digest, size = line.decode().split()
        disk = os.statvfs(folder)
        if disk.f_bavail * disk.f_frsize < int(size) + min(SPARE, disk.f_blocks * disk.f_frsize // 20):
            sys.exit(os.strerror(errno.ENOSPC))
        found = hashlib.sha256()
        with open(temporary, "wb") as file:
            for piece in stream.read(int(size)):
                file.write(piece)
                found.update(piece)
        if found.hexdigest() != digest:
            sys.exit("a file changed while it was sent")
        os.chmod(temporary, 0o644)
        os.rename(temporary, f"{folder}/{digest}")
