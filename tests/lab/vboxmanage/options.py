"""Parses command lines as VBoxManage does: tables of options, each with the kind of its value."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lab.vboxmanage.errors import Misused

Kind = Callable[[str, Callable[[], str]], Any]
"""Of an option's first word, and of those that follow it where the first one says so."""


def text(word: str, more: Callable[[], str]) -> str:
    return word


def number(word: str, more: Callable[[], str]) -> int:
    if not re.fullmatch(r"0x[0-9a-f]+|[0-9]+", word, re.IGNORECASE):
        raise ValueError(word)
    return int(word, 0 if word.lower().startswith("0x") else 10)


def on_off(word: str, more: Callable[[], str]) -> bool:
    return {"on": True, "off": False}[word.lower()]


def identity(word: str, more: Callable[[], str]) -> str:
    return str(uuid.UUID(word))


def choice(*known: str) -> Kind:
    names = {name.lower(): name for name in known}
    return lambda word, more: names[word.lower()]


def rule(word: str, more: Callable[[], str]) -> list[str]:
    """A port forwarding, `name,tcp|udp,[host ip],host port,[guest ip],guest port`, or `delete` and a name."""
    if word == "delete":
        return [word, more()]
    parts = [part.strip() for part in word.split(",")]
    if len(parts) != 6 or parts[1].lower() not in ("tcp", "udp") or not (parts[3].isdigit() and parts[5].isdigit()):
        raise ValueError(word)
    return [parts[0] or f"{parts[1].lower()}_{parts[3]}_{parts[5]}", parts[1].lower(), *parts[2:]]


def uart(word: str, more: Callable[[], str]) -> list[int]:
    return [] if word.lower() in ("off", "disable") else [number(word, more), number(more(), more)]


def uart_mode(word: str, more: Callable[[], str]) -> list[str]:
    known = ("server", "client", "tcpserver", "tcpclient", "file")
    return [word.lower(), more()] if word.lower() in known else [word]


FLAG: Kind | None = None


@dataclass(frozen=True)
class Command:
    """`options`: names (the stand-in uses the first one; # is a number) → the kind of the value.

    `leading`: the first word is the machine, whatever it looks like. `words`: how many others are allowed; `kinds`:
    those of them that are options without dashes. `raw`: nothing is an option. `unknown` and `option_error`: how
    it reports a wrong option.
    """

    options: Mapping[str, Kind | None] = field(default_factory=dict)
    words: int = 0
    leading: bool = False
    raw: bool = False
    kinds: tuple[str, ...] = ()
    unknown: str = "Unknown option"
    option_error: int = 2

    def parse(self, arguments: list[str]) -> Given:
        given, rest = Given(), list(arguments)
        if self.raw:
            if len(arguments) > self.words:
                raise Misused("Too many parameters")
            return Given(rest)
        if self.leading and rest:
            given.words.append(rest.pop(0))
        while rest:
            word = rest.pop(0)
            if word.startswith("-"):
                self._option(word, rest, given)
            elif word in self.kinds:
                given.kinds.append(word)
            elif len(given.words) < self.words:
                given.words.append(word)
            else:
                raise Misused(f"Invalid parameter '{word}'", exit_code=self.option_error)
        if len(given.kinds) > 1:
            raise Misused(f"Only one command can be specified: '{given.kinds[-1]}'")
        return given

    def _option(self, word: str, rest: list[str], given: Given) -> None:
        written, separator, value = re.fullmatch(r"([^=:]*)([=:]?)(.*)", word, re.DOTALL).groups()  # type: ignore[union-attr]
        stem, digits = re.fullmatch(r"(.*?)([0-9]*)", written).groups()  # type: ignore[union-attr]
        known = {alias: names.split()[0] for names in self.options for alias in names.split()}
        alias = written if written in known else f"{stem}#" if digits else ""
        if alias not in known or (digits and alias.endswith("#") and not 1 <= int(digits) <= 8):
            raise Misused(f"{self.unknown}: {word}", exit_code=self.option_error)
        name = known[alias]
        kind = next(kind for names, kind in self.options.items() if names.split()[0] == name)
        index = int(digits) if alias.endswith("#") else 0

        def more() -> str:
            if not rest:
                line = f"{written}: RTGetOpt: Command line option needs argument."
                raise Misused(line, exit_code=self.option_error)
            return rest.pop(0)

        if kind is None:
            if separator:
                raise Misused(f"{self.unknown}: {word}", exit_code=self.option_error)
            given.options.append((name, index, True))
            return
        first = value if separator else more()
        try:
            given.options.append((name, index, kind(first, more)))
        except (ValueError, KeyError):
            raise Misused(f"Invalid argument format: {first}", exit_code=self.option_error) from None


@dataclass
class Given:
    """A parsed command line: words, and options as (name, number, value), in order."""

    words: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    options: list[tuple[str, int, Any]] = field(default_factory=list)

    def get(self, name: str, otherwise: Any = None) -> Any:
        return next((value for known, _, value in reversed(self.options) if known == name), otherwise)

    def word(self, at: int, missing: str) -> str:
        if len(self.words) <= at:
            raise Misused(missing)
        return self.words[at]
