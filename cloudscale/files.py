"""Files for their owner alone (mode 0600), written whole: nobody ever reads half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path


def replace_file(path: Path, data: bytes) -> None:
    """Writes the file, whatever was there before. Raises OSError."""
    with _written_beside(path, data) as temporary:
        os.replace(temporary, path)


def make_once(path: Path, make: Callable[[], bytes]) -> bytes:
    """What the file holds; where there is none, it is made, by the first of all runs that try. Raises OSError."""
    if not path.exists():
        with _written_beside(path, make()) as temporary, contextlib.suppress(FileExistsError):
            os.link(temporary, path)
    return path.read_bytes()


@contextlib.contextmanager
def _written_beside(path: Path, data: bytes) -> Iterator[Path]:
    """The data in a file of its own in the same folder, to be put in place in one step."""
    temporary = path.with_name(f".cloudscale-{secrets.token_hex(8)}")
    try:
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)
