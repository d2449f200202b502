"""What the services have in common: a table of what they serve, and nothing besides it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from urllib.parse import unquote

from tests.lab.stand_in.wire import Answer, Refused, Request


@dataclass(frozen=True)
class Route:
    """`path` has names in braces, which the handler gets as its further arguments."""

    method: str
    path: str
    handler: Callable[..., Answer]
    query: Collection[str] = ()
    """The parameters that it knows."""
    public: bool = False
    """Whether it is for clients without a token, too."""

    def arguments(self, parts: Sequence[str]) -> list[str] | None:
        """What stands in the place of the names; None where the path is another one."""
        found = []
        for name, part in zip(self.path.split("/"), parts, strict=True):
            if name.startswith("{"):
                found.append(unquote(part))
            elif name != part:
                return None
        return found


class Service(ABC):
    """One API, below `prefix` of `url`. `known` tells whether a token is one."""

    def __init__(self, url: str, prefix: str, known: Callable[[str], bool]) -> None:
        self.root, self.url, self.prefix = url, url + prefix, prefix
        self._known = known
        self._routes: dict[tuple[str, int], list[Route]] = {}
        for route in self.routes():
            self._routes.setdefault((route.method, route.path.count("/")), []).append(route)

    @abstractmethod
    def routes(self) -> list[Route]: ...

    @abstractmethod
    def unknown_path(self, request: Request) -> Answer: ...

    @abstractmethod
    def unknown_query(self, request: Request, names: list[str]) -> Answer: ...

    def unauthorized(self) -> Answer:
        message = "The request you have made requires authentication."
        challenge = {"WWW-Authenticate": f'Keystone uri="{self.root}/identity/v3"'}
        return Answer(401, {"error": {"code": 401, "title": "Unauthorized", "message": message}}, challenge)

    def answer(self, request: Request) -> Answer:
        path = request.path[len(self.prefix) :]
        parts = path.split("/")
        for route in self._routes.get((request.method, len(parts) - 1), ()):
            arguments = route.arguments(parts)
            if arguments is not None:
                return self._call(route, request, arguments)
        raise Refused(self.unknown_path(request), "unknown path")

    def _call(self, route: Route, request: Request, arguments: list[str]) -> Answer:
        if not route.public and not self._known(request.headers.get("x-auth-token", "")):
            raise Refused(self.unauthorized())
        if unknown := [name for name in request.query if name not in route.query]:
            raise Refused(self.unknown_query(request, unknown), f"unknown query parameters {unknown}")
        return route.handler(request, *arguments)
