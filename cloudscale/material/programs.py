"""The programs of scripts/, which run in helper containers, and the records that they print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cloudscale.errors import EngineError
from cloudscale.scripts import script

LARGEST = 1024 * 1024  # bytes of a record


def program(name: str) -> str:
    """A program's text; its function `main` gets the pieces that are sent, and its words."""
    return f"{script('material', f'{name}.py')}\nmain(feed(), *sys.argv[1:])\n"


def records(printed: Iterable[bytes], machine: str) -> Iterator[tuple[bytes, bytes]]:
    """Letter and content of each record, until the one that says that it is the end. Raises EngineError without it."""
    buffer, has_ended = bytearray(), False
    for piece in printed:
        buffer += piece
        while len(buffer) >= 5:
            size = int.from_bytes(buffer[1:5], "big")
            if has_ended or size > LARGEST:
                raise unexpected(machine)
            if len(buffer) < 5 + size:
                break
            kind, content = bytes(buffer[:1]), bytes(buffer[5 : 5 + size])
            del buffer[: 5 + size]
            if kind == b"Z":
                has_ended = True
            else:
                yield kind, content
    if buffer or not has_ended:
        raise unexpected(machine)


def unexpected(machine: str) -> EngineError:
    return EngineError(f"{machine}: the answer about a student's files is not what was asked for.", "Run again.")
