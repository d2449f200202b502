"""Whatever others wrote arrives, in any encoding, and controls nothing."""

from __future__ import annotations

import io
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.errors import CloudscaleError
from cloudscale.terminal import CONTROL, json_safe, visible, write


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x1b[2J\x9b2J", r"\x1b[2J\x9b2J"),
        ("50%\r100%\r\ndone", "50%\\r100%\ndone"),
        ("a\tb\nc", "a\tb\nc"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("a\u2028b\x85c\x0cd", r"a\u2028b\x85c\x0cd"),
        ("王 小明 é שלום\u200f", "王 小明 é שלום\u200f"),
        ("\udc80", r"\udc80"),
        ("\x00\x7f", r"\x00\x7f"),
    ],
)
def test_control_characters_are_written_out_and_any_script_stays(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_what_is_shown_controls_nothing_and_has_the_lines_of_the_text(text: str) -> None:
    assert not CONTROL.search(visible(text))
    assert visible(text).count("\n") == text.count("\n")


@given(st.text())
def test_json_stays_what_it_was(text: str) -> None:
    safe = json_safe(json.dumps([text], ensure_ascii=False))
    assert not CONTROL.search(safe)
    assert json.loads(safe) == [text]


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="\n")


def written(out: io.TextIOWrapper) -> bytes:
    assert isinstance(out.buffer, io.BytesIO)
    return out.buffer.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437", "utf-8", "utf-16", "shift_jis", "koi8-r"])
def test_a_text_arrives_in_every_encoding(encoding: str) -> None:
    out = stream(encoding)
    write(out, "王 小明 Müller Dvořák \U0001f600 kw4h-7txe-cdrp")
    text = written(out).decode(encoding)
    assert text.endswith(" kw4h-7txe-cdrp\n")
    assert json.loads(f'"{text.rstrip()}"') == "王 小明 Müller Dvořák \U0001f600 kw4h-7txe-cdrp"


def test_what_an_encoding_lacks_is_written_out() -> None:
    out = stream("latin-1")
    write(out, "Müller 王 \U0001f600")
    assert written(out).decode("latin-1") == "Müller \\u738b \\ud83d\\ude00\n"


def test_a_reader_that_has_ended_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as out:
        write(out, "one")
        write(out, "two")


def test_a_full_disk_is_reported() -> None:
    with open("/dev/full", "w") as out, pytest.raises(CloudscaleError, match="No space left"):
        write(out, "one")
