"""The part of JSON Schema that compute and volume describe their requests with, with its own words for problems."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tests.lab.stand_in.wire import Json

TYPES: Mapping[str, type | tuple[type, ...]] = {
    "string": str,
    "object": dict,
    "array": list,
    "integer": int,
    "boolean": bool,
    "null": type(None),
}
UUID = re.compile(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", re.IGNORECASE)


NAME = re.compile(r"(?!\s)[^\x00-\x1f\x7f]*(?<!\s)")
BAD_NAME = (
    "An invalid 'name' value was provided. The name must be: printable characters."
    " Can not start or end with whitespace."
)


class Problem(NamedTuple):
    """`field` is the last step of the way to it, empty at the root."""

    field: str
    value: Any
    reason: str


def problem(value: Any, schema: Json, field: str = "") -> Problem | None:
    """The first thing that is wrong with a value."""
    if reason := _own_problem(value, schema):
        return Problem("" if reason == BAD_NAME else field, value, reason)
    if isinstance(value, dict):
        return _problem_of_object(value, schema, field)
    if isinstance(value, list) and "items" in schema:
        problems = (problem(item, schema["items"], str(at)) for at, item in enumerate(value))
        return next((found for found in problems if found), None)
    return None


def _own_problem(value: Any, schema: Json) -> str:
    if "oneOf" in schema:
        fits = any(problem(value, choice) is None for choice in schema["oneOf"])
        return "" if fits else f"{value!r} is not valid under any of the given schemas"
    return _problem_of_kind(value, schema) or _problem_of_size(value, schema)


def _problem_of_kind(value: Any, schema: Json) -> str:
    if "type" in schema:
        names = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        if not any(_is(value, name) for name in names):
            return f"{value!r} is not of type {', '.join(map(repr, names))}"
    if "enum" in schema and not any(
        value is known or (value == known and _same(value, known)) for known in schema["enum"]
    ):
        return f"{value!r} is not one of {schema['enum']!r}"
    return ""


def _problem_of_size(value: Any, schema: Json) -> str:
    if isinstance(value, str):
        return _problem_of_text(value, schema)
    if isinstance(value, list):
        return _problem_of_length(value, schema)
    if isinstance(value, int) and value < schema.get("minimum", value):
        return f"{value!r} is less than the minimum of {schema['minimum']}"
    return ""


def _is(value: Any, name: str) -> bool:
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _same(value: Any, known: Any) -> bool:
    return isinstance(value, bool) == isinstance(known, bool)


def _problem_of_length(value: str | list[Any], schema: Json) -> str:
    kind = "Length" if isinstance(value, str) else "Items"
    if len(value) < schema.get(f"min{kind}", 0):
        return f"{value!r} is too short"
    return f"{value!r} is too long" if len(value) > schema.get(f"max{kind}", len(value)) else ""


def _problem_of_text(value: str, schema: Json) -> str:
    if reason := _problem_of_length(value, schema):
        return reason
    if "pattern" in schema and not re.search(schema["pattern"], value):
        return f"{value!r} does not match {schema['pattern']!r}"
    if schema.get("format") == "name" and not NAME.fullmatch(value):
        return BAD_NAME
    if "format" in schema and not FORMATS[schema["format"]](value):
        return f"{value!r} is not a {schema['format']!r}"
    return ""


def _problem_of_object(value: Json, schema: Json, field: str) -> Problem | None:
    known = schema.get("properties", {})
    patterns = schema.get("patternProperties", {})
    for name in schema.get("required", ()):
        if name not in value:
            return Problem(field, value, f"{name!r} is a required property")
    for name, part in value.items():
        inner = known.get(name, next((s for pattern, s in patterns.items() if re.search(pattern, name)), None))
        if inner is not None:
            if found := problem(part, inner, name):
                return found
        elif not schema.get("additionalProperties", True):
            if patterns:
                expected = ", ".join(map(repr, patterns))
                return Problem(field, value, f"{name!r} does not match any of the regexes: {expected}")
            return Problem(field, value, f"Additional properties are not allowed ({name!r} was unexpected)")
    return None


def is_uuid(value: str) -> bool:
    return UUID.fullmatch(value) is not None


def _is_base64(value: str) -> bool:
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def is_address(value: str) -> bool:
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return False
    return True


FORMATS = {"name": lambda value: True, "uuid": is_uuid, "base64": _is_base64, "ip": is_address}
