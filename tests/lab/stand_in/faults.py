"""Faults on demand: rules that say which request goes wrong, how, and how often."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from tests.lab.stand_in.wire import Answer, Request


@dataclass
class Fault:
    """What becomes of requests: `times` of them (None: all), after the first `after`.

    `status`: this answer, and nothing is carried out; `retry_after` goes with it. `drop`: the connection ends
    without an answer, `before` the request is carried out or `after`. `seconds`: so long nothing is answered; the
    request itself is carried out first, unless one of the others says that it is not.
    """

    method: str = ""
    """Empty: any."""
    path: str = ""
    """A regular expression, searched for in the path with its query."""
    status: int = 0
    retry_after: int | None = None
    body: object = None
    drop: str = ""
    seconds: float = 0
    times: int | None = 1
    after: int = 0
    seen: int = field(default=0, init=False)
    """Requests that it was about."""
    used: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        assert self.status or self.drop or self.seconds, "a fault without an effect"
        assert self.drop in ("", "before", "after")
        assert not (self.status and self.drop)
        self._path = re.compile(self.path)

    def applies(self, request: Request) -> bool:
        """Whether it is this request's turn; counts it."""
        if (self.method and self.method != request.method) or not self._path.search(request.target):
            return False
        self.seen += 1
        if self.seen <= self.after or (self.times is not None and self.used >= self.times):
            return False
        self.used += 1
        return True

    @property
    def answer(self) -> Answer:
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        if self.body is not None:
            return Answer(self.status, self.body, headers)
        headers["Content-Type"] = "text/html; charset=iso-8859-1"
        return Answer(self.status, f"<html><body><h1>{self.status}</h1>A fault on demand</body></html>", headers)
