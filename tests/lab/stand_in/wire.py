"""What goes over the wire: a request, an answer to it, and a refusal."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

Json = dict[str, Any]


class Recorded(NamedTuple):
    """A request that was made. `path` has its query; `status` is 0 where the connection was dropped instead."""

    method: str
    path: str
    status: int


@dataclass(slots=True)
class Request:
    """`target` is what the client asked for, `path` the same without its query."""

    method: str
    target: str
    headers: Mapping[str, str]
    """Their names in lower case."""
    raw: bytes = b""
    path: str = ""
    query: dict[str, list[str]] = field(default_factory=dict)
    version: tuple[int, int] = (0, 0)
    """The microversion, where the service has them."""

    def __post_init__(self) -> None:
        self.path, _, query = self.target.partition("?")
        if query:
            for name, value in parse_qsl(query, keep_blank_values=True):
                self.query.setdefault(name, []).append(value)

    def one(self, name: str, otherwise: str = "") -> str:
        """The last value of a parameter."""
        values = self.query.get(name)
        return values[-1] if values else otherwise

    def json(self) -> Any:
        """ValueError where the body is none."""
        return json.loads(self.raw)


@dataclass(slots=True)
class Answer:
    """A dictionary goes out as JSON, a text as it is."""

    status: int
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)


class Refused(Exception):
    """Ends the handling of a request. A violation is a request that no client should make of any cloud."""

    def __init__(self, answer: Answer, violation: str = "") -> None:
        super().__init__(violation or answer.body)
        self.answer = answer
        self.violation = violation


def new_id() -> str:
    return str(uuid.uuid4())


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def html(status: int, title: str, text: str) -> Answer:
    """As the services answer where they have no JSON for it."""
    page = f"<html>\n <head>\n  <title>{status} {title}</title>\n </head>\n <body>\n  <h1>{status} {title}</h1>\n"
    page += f"  {text}<br /><br />\n\n\n\n </body>\n</html>"
    return Answer(status, page, {"Content-Type": "text/html; charset=UTF-8"})
