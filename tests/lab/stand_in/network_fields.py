"""What the network API takes as the value of a field, and how it words what it does not take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.lab.stand_in.schema import is_uuid
from tests.lab.stand_in.wire import Answer, Refused

Check = Callable[[Any], str]  # what is wrong with a value; empty: nothing
TRUE, FALSE = {"true", "t", "yes", "y", "1", "on"}, {"false", "f", "no", "n", "0", "off"}


@dataclass(frozen=True)
class Field:
    """A field of a body: how it is checked, and when it may be given. One that only others may give is `foreign`."""

    check: Check
    post: bool = True
    put: bool = True
    required: bool = False
    foreign: bool = False


def text(longest: int = 255) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, str):
            return f"'{value}' is not a valid string."
        return f"'{value}' exceeds maximum length of {longest}." if len(value) > longest else ""

    return check


def uuid(value: Any) -> str:
    return "" if isinstance(value, str) and is_uuid(value) else f"'{value}' is not a valid UUID."


def uuid_or_none(value: Any) -> str:
    return "" if value is None else uuid(value)


def uuids(value: Any) -> str:
    if not isinstance(value, list):
        return f"'{value}' is not a list."
    return next(filter(None, map(uuid, value)), "")


def boolean(value: Any) -> str:
    if not isinstance(value, bool) and str(value).lower() not in TRUE | FALSE:
        message = f"Invalid input for operation: '{value}' cannot be converted to boolean."
        raise refusal(400, "InvalidInput", message, True)
    return ""


def one_of(*choices: Any) -> Check:
    return lambda value: "" if value in choices else f"{value} is not in valid_values."


def anything(value: Any) -> str:
    return ""


def refusal(status: int, kind: str, message: str, violation: bool = False) -> Refused:
    """As the network API words it."""
    body = {"NeutronError": {"type": kind, "message": message, "detail": ""}}
    return Refused(Answer(status, body), message if violation else "")


NAMED = {"name": Field(text()), "description": Field(text())}
