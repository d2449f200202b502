"""Inputs from outside, as they should not be: valid ones that were changed; and what may come of them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cloudscale import errors
from cloudscale.errors import CloudscaleError
from cloudscale.terminal import CONTROL, visible
from tests.unit.fakes import FakeClock

EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "")  # of each test, set by script/fuzz; the ring tries a few, the same ones
FEW = 12
LONGEST_READING = 5.0  # seconds of CPU time for one input
LONGEST_MESSAGE = 2 * errors.LONGEST + 100  # characters: message and remedy

tried: Counter[str] = Counter()  # inputs, by the module of their tests
refused: Counter[str] = Counter()  # errors of the project, likewise
_now = [""]  # the module whose test runs


def fuzz(
    *given_: st.SearchStrategy[Any], slow: int = 1, **strategies: st.SearchStrategy[Any]
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """A test that is given such inputs: as many as script/fuzz asks for, or the `slow`th part of them."""
    many = settings(
        max_examples=max(FEW // slow, int(EXAMPLES or FEW) // slow),
        derandomize=not EXAMPLES,
        phases=[Phase.explicit, Phase.generate],  # three changes need not be made simpler
        suppress_health_check=[*HealthCheck],  # a fixture serves all inputs of a test: none of them changes anything
    )
    quiet = pytest.mark.filterwarnings("ignore:Generating overly large repr")

    def fuzzed(test: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(test)
        def one(*args: Any, **kwargs: Any) -> None:
            _now[0] = test.__module__
            tried[test.__module__] += 1
            test(*args, **kwargs)

        marked: Callable[..., None] = quiet(many(given(*given_, **strategies)(one)))
        return marked

    return fuzzed


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """What comes of an input: a value, or an error of the project that can be shown; and soon."""
    started = time.process_time()
    try:
        yield
    except CloudscaleError as error:
        refused[_now[0]] += 1
        shown = visible(str(error))
        assert len(shown) <= LONGEST_MESSAGE and not CONTROL.search(shown)
    assert time.process_time() - started < LONGEST_READING


# --- values, as they come in JSON and YAML ----------------------------------------------------

LONG = "x" * 40_000
ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 65536, 2**63, 10**30, 0.5, -0.0, 1e308, float("nan"), float("inf"), float("-inf")),
    *("", " ", "0", "-1", "nan", "9" * 5000, "\x00", "\x1b[2J\x07", "a\nb\rc", "\ud800", "\u202e\u200b", "Ä∂漢", LONG),
    *([], {}, [None], [[]], [{}], {"": None}, {"\x1b": {}}, [1, "a", None] * 3, {"message": LONG}),
)
HOW = ("replace", "replace", "replace", "remove", "repeat", "wrap", "unwrap", "cut", "text", "add")


Edit = tuple[int, str, Any]
EDITS = st.lists(st.tuples(st.integers(0, 4095), st.sampled_from(HOW), st.sampled_from(ODD)), max_size=3)


def changed(valid: Any) -> st.SearchStrategy[Any]:
    """A value that is like a valid one, but for three places at most."""
    return EDITS.map(lambda edits: edited(valid, edits))


def edited(valid: Any, edits: Iterable[Edit]) -> Any:
    """`edits`: in which place, how, and with what."""
    value = [deepcopy(valid)]
    for edit in edits:
        _change(value, *edit)
    return value[0]


def _change(value: list[Any], at: int, how: str, odd: Any) -> None:
    places = list(_places(value))
    holder, key = places[at % len(places)]
    if how == "remove" and holder is not value:
        del holder[key]
    elif how == "repeat" and isinstance(holder, list):
        holder.insert(key, deepcopy(holder[key]))
    elif how == "repeat":
        holder[f"{key}2"] = deepcopy(holder[key])
    else:
        holder[key] = _other(holder[key], at, how, deepcopy(odd))


def _other(present: Any, at: int, how: str, odd: Any) -> Any:
    """Another value in the place of the present one."""
    match how, present:
        case "wrap", _:
            odd = [present]
        case "unwrap", [first, *_]:
            odd = first
        case "unwrap", {**inner} if inner:
            odd = next(iter(inner.values()))
        case "cut", str() | list():
            odd = present[: at % (len(present) + 1)]
        case "text", _:
            odd = str(present)
        case "add", dict():
            odd = {**present, str(odd)[:20]: odd}
        case "add", list():
            odd = [*present, odd]
    return odd


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Each place in a value, as its holder and its key."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        yield value, key
        if isinstance(inner, (dict, list)):
            yield from _places(inner)


# --- bytes ------------------------------------------------------------------------------------

PIECES = (
    *(b"\0", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\x1b]0;x\x07", b"\r", b"\n", b"\n\n", b"\x0c", b"\xe2\x80\xa8"),
    *(b" ", b"\t", b'"', b"'", b"\\", b"=", b":", b";", b",", b"#", b"%", b"*", b"!", b"@", b"[", b"]", b"{", b"}"),
    *(b"0", b"-1", b"-", b"9" * 5000, b"1e999", b"NaN", b"null", b"true", b'{"a":1,"a":2}', b"[" * 20_000),
    *("é".encode("latin-1"), "漢\u202e".encode(), "Ä".encode("utf-16"), b"&a [*a]", b"!!python/none", b"<!-- ", b"%00"),
    b"x" * 140_000,
)
BYTE_EDITS = ("insert", "insert", "replace", "remove", "cut", "repeat a line", "lose a line", "turn the lines")


@st.composite
def changed_bytes(draw: st.DrawFn, *valid: bytes, most: int = 4) -> bytes:
    """Bytes that are like one of some valid ones, but for a few places."""
    data = draw(st.sampled_from(valid))
    places = st.tuples(st.integers(0, 65535), st.sampled_from(BYTE_EDITS), st.sampled_from(PIECES))
    for at, how, piece in draw(st.lists(places, max_size=most)):
        data = _change_bytes(data, at, how, piece)
    return data


def _change_bytes(data: bytes, at: int, how: str, piece: bytes) -> bytes:
    position, lines = at % (len(data) + 1), data.split(b"\n")
    number = at % len(lines)
    match how:
        case "insert" | "replace" | "remove":
            lost = {"insert": 0, "replace": len(piece), "remove": 1 + at % 7}[how]
            return data[:position] + (b"" if how == "remove" else piece) + data[position + lost :]
        case "cut":
            return data[:position]
        case "repeat a line":
            lines[number:number] = [lines[number], piece]
        case "lose a line":
            del lines[number]
        case "turn the lines":
            lines = [*lines[number:], *lines[:number]]
    return b"\n".join(lines)


def changed_text(*valid: str) -> st.SearchStrategy[str]:
    """The same as text, with a replacement for what is no UTF-8."""
    return changed_bytes(*(text.encode() for text in valid)).map(lambda data: data.decode(errors="replace"))


def changed_json(valid: Any) -> st.SearchStrategy[bytes]:
    """JSON that is another than it should be, or none."""
    encoded = changed(valid).map(lambda value: json.dumps(value).encode())
    return encoded | changed_bytes(json.dumps(valid).encode(), json.dumps(valid, indent=1).encode())


class HurriedClock(FakeClock):
    """A clock that passes the time of a wait at once."""

    def sleep(self, seconds: float) -> None:
        self._now += seconds
