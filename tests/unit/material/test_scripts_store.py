"""What a machine keeps of the material: the programs of the helper containers, on a real folder."""

from __future__ import annotations

import hashlib
import io
import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from cloudscale.material.scripts import missing, store

CONTENTS = [b"", b"one\ntwo\n", b"\n", b"x" * 200_000]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def sent(*contents: bytes) -> bytes:
    return b"".join(f"{digest(data)} {len(data)}\n".encode() + data for data in contents)


@pytest.mark.parametrize("size", [1, 7, 64_000, 10**6])
def test_what_is_sent_in_any_pieces_is_kept_under_its_digest(tmp_path: Path, size: int) -> None:
    stream = sent(*CONTENTS[:3] if size == 1 else CONTENTS)
    store.main((stream[at : at + size] for at in range(0, len(stream), size)), str(tmp_path))
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert kept == {digest(data): data for data in (CONTENTS[:3] if size == 1 else CONTENTS)}


def test_what_is_cut_off_is_missing_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit, match="cut off"):
        store.main([sent(b"first", b"second")[:-3]], str(tmp_path))
    monkeypatch.setattr(sys, "stdout", out := io.StringIO())
    wanted = f"{digest(b'first')}\n{digest(b'second')}".encode()
    missing.main([wanted[:10], wanted[10:]], str(tmp_path))
    assert out.getvalue() == f"{digest(b'second')}\n"


def test_what_does_not_have_its_digest_is_not_kept(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="changed while it was sent"):
        store.main([f"{digest(b'other')} 5\nfirst".encode()], str(tmp_path))
    assert digest(b"other") not in os.listdir(tmp_path)


def test_a_disk_that_is_nearly_full_is_not_filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda folder: SimpleNamespace(f_blocks=10**9, f_bavail=10**9 // 20, f_frsize=1))
    with pytest.raises(SystemExit, match="No space left on device"):
        store.main([sent(b"one")], str(tmp_path))
    assert not [*tmp_path.iterdir()]
