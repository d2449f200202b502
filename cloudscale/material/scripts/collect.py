"""Runs in a helper container and sends a student's files: those that the trainer does not have yet.

What it prints are records: a letter, the length of the rest in four bytes, and the rest.

    T  the time here in nanoseconds, before anything was read
    F  a file follows: size, time of its last change in nanoseconds, 1 if it can be run; a zero byte; its path
    D  the next piece of the file
    A  the file changed while it was read: what was sent of it does not count
    E  the end of the file: its SHA-256, and `changed` if it changed each time it was read
    S  the trainer has this file: the same as F, with the SHA-256 before the zero byte
    X  something is left out: why; a zero byte; its path
    Z  the end

A server that runs may change the files at any time, so everything is opened by its name in a folder that is open, and
no link is followed.
"""

import hashlib
import json
import os
import stat
import sys
import time
from itertools import islice

SKIPPED = (b".cache", b".ipynb_checkpoints", b"__pycache__", b"lost+found")  # folders
TRASH = b".Trash"
PARTS = b".cloudscale-restoring-"  # what restore.py writes at the moment
PIECE = 64 * 1024
ATTEMPTS = 3
PAUSE = 0.2  # seconds


class Enough(Exception):
    """There are more entries than are looked at."""


class Sender:
    def __init__(self, known, limits):
        self.known = known
        self.limits = limits
        self.files = self.entries = 0
        self.room = limits["bytes"]
        self.names = limits["names"]

    def record(self, kind, *parts):
        data = b"\0".join(part if isinstance(part, bytes) else str(part).encode() for part in parts)
        sys.stdout.buffer.write(kind + len(data).to_bytes(4, "big") + data)

    def leave_out(self, why, path):
        self.record(b"X", why, path)

    def folder(self, folder, path, depth):
        """All that is in an open folder, in the order of the names."""
        most = self.limits["entries"] - self.entries
        with os.scandir(folder) as entries:
            names = sorted(os.fsencode(entry.name) for entry in islice(entries, most + 1))
        for name in names:
            self.entries += 1
            self.names -= len(path) + len(name)
            if self.entries > self.limits["entries"] or self.names < 0:
                raise Enough
            inner = path + b"/" + name if path else name
            try:
                self.entry(folder, name, inner, depth)
            except OSError as error:
                self.leave_out(f"unreadable: {error.strerror}", inner)

    def entry(self, folder, name, path, depth):
        mode = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
        if len(path) > self.limits["path"]:
            self.leave_out("long", path[: self.limits["path"]])
        elif stat.S_ISDIR(mode):
            if name in SKIPPED or name.startswith(TRASH):
                return
            if depth >= self.limits["depth"]:
                self.leave_out("deep", path)
                return
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
            try:
                self.folder(inner, path, depth + 1)
            finally:
                os.close(inner)
        elif stat.S_ISLNK(mode):
            self.leave_out("link", path)
        elif not stat.S_ISREG(mode):
            self.leave_out("special", path)
        elif not name.startswith(PARTS):
            self.file(folder, name, path)

    def file(self, folder, name, path):
        if self.files >= self.limits["files"]:
            self.leave_out("many", path)
            return
        # not blocking: it may have become a pipe since
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
        try:
            for attempt in range(1, ATTEMPTS + 1):
                before = os.fstat(file)
                if not stat.S_ISREG(before.st_mode):
                    self.leave_out("special", path)
                    return
                if before.st_size > self.room:
                    self.leave_out("large", path)
                    return
                if self.attempt(file, path, before, last=attempt == ATTEMPTS):
                    return
                time.sleep(PAUSE)
        finally:
            os.close(file)

    def attempt(self, file, path, before, last):
        """Sends the file, unless the trainer has it. Returns whether that was all."""
        about = [before.st_size, before.st_mtime_ns, int(bool(before.st_mode & stat.S_IXUSR))]
        known = self.known.get(path)
        if known and known == self.read(file, before.st_size, lambda piece: None) and same(before, file):
            self.record(b"S", json.dumps([*about, known]), path)
            self.count(before.st_size)
            return True
        self.record(b"F", json.dumps(about), path)
        digest = self.read(file, self.room, lambda piece: self.record(b"D", piece))
        is_same = same(before, file)
        if is_same or last:
            self.record(b"E", digest, b"" if is_same else b"changed")
            self.count(os.lseek(file, 0, os.SEEK_CUR))
            return True
        self.record(b"A")
        return False

    def read(self, file, most, take):
        """The sum of a file, of which at most so many bytes are read."""
        digest = hashlib.sha256()
        os.lseek(file, 0, os.SEEK_SET)
        while most > 0:
            piece = os.read(file, min(PIECE, most))
            if not piece:
                break
            digest.update(piece)
            take(piece)
            most -= len(piece)
        return digest.hexdigest()

    def count(self, size):
        self.files += 1
        self.room -= size


def same(before, file):
    now = os.fstat(file)
    return (before.st_size, before.st_mtime_ns, before.st_ctime_ns) == (now.st_size, now.st_mtime_ns, now.st_ctime_ns)


def main(pieces, root, limits):
    """`pieces`: what the trainer has, each as its SHA-256, its path, and a zero byte."""
    known = {entry[64:]: entry[:64].decode() for entry in b"".join(pieces).split(b"\0") if entry}
    sender = Sender(known, json.loads(limits))
    sender.record(b"T", time.time_ns())
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sender.folder(folder, b"", 0)
    except Enough:
        sender.leave_out("more", b"")
    sender.record(b"Z")
    sys.stdout.buffer.flush()
