"""Runs in a helper container: compares a student's files with those that were collected, and puts those back.

What it prints are records, as those of collect.py:

    N  there is no such file          S  it is the same
    C  there is another one           B  it can't be put there: why; a zero byte; its path
    W  it was written                 M  its content is not what the manifest says
    Z  the end

The rest of a record is the file's path. A server that runs may change the files at any time: a file is put into its
place in one step, never through a link, and over another one only if that is asked for.
"""

import contextlib
import hashlib
import json
import os
import secrets
import stat
import sys

PARTS = ".cloudscale-restoring-"
PIECE = 64 * 1024


def record(kind, *parts):
    data = b"\0".join(parts)
    sys.stdout.buffer.write(kind + len(data).to_bytes(4, "big") + data)
    sys.stdout.buffer.flush()


class Blocked(Exception):
    """Something is in the way."""


def parent_of(root, path, make):
    """The folder of a path, open; None if there is none. Raises Blocked, OSError."""
    folder = os.dup(root)
    for name in path.split(b"/")[:-1]:
        if make:
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, 0o755, dir_fd=folder)
        try:
            inner = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=folder)
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            raise Blocked(f"{os.fsdecode(name)} is no folder there") from None
        finally:
            os.close(folder)
        folder = inner
    return folder


def sum_of(folder, name):
    """The sum of a file; empty if there is something else, None if there is nothing."""
    try:
        file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY, dir_fd=folder)
    except FileNotFoundError:
        return None
    except OSError:  # a link, or a file that may not be read
        return ""
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        return ""
    with os.fdopen(file, "rb") as opened:
        digest = hashlib.sha256()
        while piece := opened.read(PIECE):
            digest.update(piece)
        return digest.hexdigest()


def compare(pieces, root):
    """`pieces`: each file as its SHA-256, its path, and a zero byte."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for entry in b"".join(pieces).split(b"\0"):
        if not entry:
            continue
        wanted, path = entry[:64].decode(), entry[64:]
        try:
            folder = parent_of(top, path, make=False)
            present = None
            if folder is not None:
                present = sum_of(folder, path.split(b"/")[-1])
                os.close(folder)
        except (Blocked, OSError) as error:
            record(b"B", why(error), path)
        else:
            record(b"N" if present is None else b"S" if present == wanted else b"C", path)
    record(b"Z")


def why(error):
    return str(getattr(error, "strerror", None) or error).encode("utf-8", "replace")


class Stream:
    """What is sent, by lengths."""

    def __init__(self, pieces):
        self.pieces = pieces
        self.left = b""

    def some(self, most):
        """The next bytes, at least one; none at the end."""
        if not self.left:
            self.left = next(self.pieces, b"")
        taken, self.left = self.left[:most], self.left[most:]
        return taken

    def exactly(self, size):
        data = b""
        while len(data) < size:
            piece = self.some(size - len(data))
            if not piece:
                raise EOFError("the end came too early")
            data += piece
        return data


def put(root, stream, about, path):
    """Writes a file beside its place, and then into it. Raises Blocked, OSError."""
    part = PARTS + secrets.token_hex(8)
    left = about["size"]
    try:
        file = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755 if about["runs"] else 0o644, dir_fd=root)
        try:
            digest = hashlib.sha256()
            with os.fdopen(file, "wb") as opened:
                while left:
                    piece = stream.some(min(PIECE, left))
                    if not piece:
                        raise EOFError("the end came too early")
                    left -= len(piece)
                    digest.update(piece)
                    opened.write(piece)
                opened.flush()
                os.utime(opened.fileno(), ns=(about["time"], about["time"]))
            return place(root, part, path, about["force"]) if digest.hexdigest() == about["sum"] else b"M"
        finally:
            with contextlib.suppress(FileNotFoundError):  # it is in its place
                os.unlink(part, dir_fd=root)
    finally:
        while left:  # the next file is behind it
            piece = stream.some(min(PIECE, left))
            if not piece:
                break
            left -= len(piece)


def place(root, part, path, force):
    name = path.split(b"/")[-1]
    folder = parent_of(root, path, make=True)
    try:
        if not force:
            os.link(part, name, src_dir_fd=root, dst_dir_fd=folder, follow_symlinks=False)
        else:
            os.rename(part, name, src_dir_fd=root, dst_dir_fd=folder)
    except FileExistsError:
        return b"C"
    except IsADirectoryError:
        raise Blocked("a folder has its name there") from None
    finally:
        os.close(folder)
    return b"W"


def write(pieces, root):
    """`pieces`: for each file, the length of a description in four bytes, the description, and the content."""
    top = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in os.listdir(top):
        if name.startswith(PARTS):  # of a run that was killed
            os.unlink(name, dir_fd=top)
    stream = Stream(pieces)
    while size := int.from_bytes(stream.exactly(4), "big"):
        about = json.loads(stream.exactly(size))
        path = bytes.fromhex(about["path"])
        try:
            record(put(top, stream, about, path), path)
        except (Blocked, OSError) as error:
            record(b"B", why(error), path)
    record(b"Z")


def main(pieces, root, what):
    {"compare": compare, "write": write}[what](pieces, root)
