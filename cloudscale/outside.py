"""What comes from outside: engines, clouds, seats and files may say anything. Here it is checked before it is used."""

from __future__ import annotations

import json
import math
import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar

T = TypeVar("T")

# What code runs into that takes out of an answer what is not in it, or is something else.
UNEXPECTED = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
LONGEST_CAUSE = 200  # characters
PIECE = 64 * 1024  # bytes


def in_words(error: Exception) -> str:
    """Such an error in a message: `KeyError: 'NCPU'`."""
    return f"{type(error).__name__}: {' '.join(str(error)[:LONGEST_CAUSE].split())}"


def is_of_library(error: BaseException) -> bool:
    """Whether it was raised in the code of a library: over an answer that this does not understand."""
    where = error.__traceback__
    while where and where.tb_next:
        where = where.tb_next
    return where is not None and not str(where.tb_frame.f_globals.get("__name__")).startswith(("cloudscale.", "tests."))


def parse_json(data: str | bytes) -> Any:
    """The value. Raises ValueError, also where it nests too deeply."""
    try:
        return json.loads(data)
    except RecursionError:
        raise ValueError("it nests too deeply") from None


def parse_object(data: str | bytes) -> dict[str, Any]:
    """The same for an object. Raises ValueError for any other value."""
    value = parse_json(data)
    if not isinstance(value, dict):
        raise ValueError(f"should be keys and values, and is a {type(value).__name__}")
    return value


def pieces(answer: Any, most: float = math.inf, seconds: float = math.inf) -> Iterator[bytes]:
    """The body of an answer of requests that is a stream, piece by piece as it comes.

    Raises OtherForm if it is longer than `most` bytes, TimeoutError if it lasts longer than `seconds`.
    """
    size, deadline = 0, time.monotonic() + seconds
    try:
        # not iter_content: that reads a chunk's header without limit, and waits for pieces of a given size
        while piece := answer.raw.read1(PIECE, decode_content=True):
            size += len(piece)
            if size > most:
                raise OtherForm(f"it is longer than {most} bytes")
            if time.monotonic() > deadline:
                raise TimeoutError(f"it lasts longer than {seconds:g} s")
            yield piece
    finally:
        answer.close()


def read_body(answer: Any, most: float, seconds: float) -> bytes:
    """The same as a whole."""
    return b"".join(pieces(answer, most, seconds))


def home_path(text: str | Path) -> Path:
    """The path, with `~` and `~user` replaced; a user who does not exist stays as it is, as in a shell."""
    try:
        return Path(os.path.expanduser(text))
    except ValueError:  # a zero byte in the name of the user
        return Path(text)


class OtherForm(Exception):
    """A value from outside does not have the form that is needed. The text says where."""


PORT = range(65536)  # the form of a port


def formed(value: Any, form: Any, where: str = "") -> Any:
    """A value of JSON, if it has this form. Raises OtherForm.

    A form is a type; a range of numbers; a function that raises an error for what it can't read; a list with the form
    of all items; or keys with the forms of their values. A key that ends in `?` may be missing or null, the key `*`
    stands for all, and others are not looked at.
    """
    if isinstance(form, FunctionType):
        try:
            form(value)
        except UNEXPECTED as error:
            raise OtherForm(f"{where}: {in_words(error)}") from None
        return value
    kind: Any = int if isinstance(form, range) else form if isinstance(form, type) else type(form)
    if value.__class__ is not kind or (isinstance(form, range) and value not in form):
        raise OtherForm(f"{where or 'it'} is no {'port' if form is PORT else kind.__name__}")
    if isinstance(form, list):
        for item in value:
            formed(item, form[0], f"{where}[]")
    for key, inner in form.items() if isinstance(form, dict) else ():
        for name in value if key == "*" else [key.removesuffix("?")]:
            if value.get(name) is None and key.endswith("?"):
                continue
            if name not in value:
                raise OtherForm(f"{where or 'it'} has no {name}")
            formed(value[name], inner, f"{where}.{name}".removeprefix("."))
    return value


def given(value: Any, form: Any) -> Any:
    """The same where null stands for an empty list or no keys."""
    return type(form)() if value is None else formed(value, form)


def shaped(items: Iterable[T], form: dict[str, Any]) -> list[T]:
    """Objects of a library whose attributes have these forms. Raises OtherForm."""
    found = list(items)
    for item in found:
        formed({key: getattr(item, key, None) for key in (name.removesuffix("?") for name in form)}, form)
    return found


def date_text(text: str) -> datetime:
    """A date as engines write it; one without a zone is of UTC."""
    date = datetime.fromisoformat(text)
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def port_text(text: str) -> int:
    """A port as a label has it."""
    if (port := int(text)) not in PORT:
        raise ValueError("should be a port")
    return port


PLAIN = {"str": str, "int": int, "bool": bool}


def typed(value: T) -> T:
    """A frozen value, if what it says of its fields is so. Raises OtherForm."""
    for field in fields(value):  # type: ignore[arg-type]
        inner = getattr(value, field.name)
        several = re.fullmatch(r"(?:tuple|frozenset)\[(\w+).*\]", str(field.type))
        kind = PLAIN.get(several[1] if several else str(field.type))
        for one in inner if several else (inner,):
            if kind and type(one) is not kind:
                raise OtherForm(f"{field.name} is no {kind.__name__}")
    return value
