from __future__ import annotations

from collections.abc import Iterator

import pytest

from cloudscale.errors import EngineError
from cloudscale.material.programs import LARGEST, program, records


def record(kind: bytes, data: bytes = b"") -> bytes:
    return kind + len(data).to_bytes(4, "big") + data


WHOLE = record(b"F", b"name") + record(b"D", b"x" * 1000) + record(b"Z")


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_records_are_read_from_pieces_of_any_size(size: int) -> None:
    pieces = [WHOLE[at : at + size] for at in range(0, len(WHOLE), size)]
    assert list(records(pieces, "m1")) == [(b"F", b"name"), (b"D", b"x" * 1000)]


@pytest.mark.parametrize(
    "printed",
    [b"", WHOLE[:-1], WHOLE[:20], record(b"F", b"name"), WHOLE + b"more", b"F" + b"\xff" * 4, b"garbage of it"],
)
def test_what_is_not_whole_is_an_error(printed: bytes) -> None:
    with pytest.raises(EngineError, match="m1: "):
        list(records([printed], "m1"))


def test_a_record_without_end_is_not_kept() -> None:
    def endless() -> Iterator[bytes]:
        yield b"D" + (LARGEST + 1).to_bytes(4, "big")
        pytest.fail("it is read on")

    with pytest.raises(EngineError):
        list(records(endless(), "m1"))


@pytest.mark.parametrize("name", ["collect", "restore", "changed"])
def test_a_program_fits_into_an_argument(name: str) -> None:
    compile(program(name), name, "exec")
    assert len(program(name)) < 100_000  # bytes; the kernel takes 128 KiB (MAX_ARG_STRLEN)
