"""The user's own SSH configuration, ~/.ssh/config and /etc/ssh/ssh_config, read as OpenSSH reads it (ssh_config(5))."""

from __future__ import annotations

import fnmatch
import getpass
import glob
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cloudscale.errors import SettingsError
from cloudscale.hosts.this_computer import run_shell
from cloudscale.model import Say
from cloudscale.outside import home_path

SYSTEM = Path("/etc/ssh/ssh_config")
DEEPEST = 16  # files that include one another, as in OpenSSH
LONGEST_PATH = 4096  # characters (limits.h, PATH_MAX)
EXEC = 10.0  # seconds for the command of a `Match exec`
WORDS = {"host", "match", "include"}
LISTS = {"identityfile"}  # every value counts; of all other keys, the first
SEVERAL = WORDS | {"userknownhostsfile", "globalknownhostsfile"}  # keys with any number of arguments
KEYS = {
    *("hostname", "port", "user", "connecttimeout", "hostkeyalias"),
    *("identityfile", "identitiesonly", "identityagent", "proxyjump", "proxycommand"),
    *("userknownhostsfile", "globalknownhostsfile", "stricthostkeychecking", "revokedhostkeys"),
}


@dataclass(frozen=True)
class Line:
    """A line of a configuration file: `rest` is what follows the key, `words` the same in words."""

    file: Path
    number: int
    key: str
    rest: str
    words: tuple[str, ...]

    def wrong(self, cause: str) -> SettingsError:
        return SettingsError(
            f"{self.file}, line {self.number}: {cause}.",
            "Correct the line; ssh -G HOST shows what OpenSSH makes of it.",
        )


@dataclass
class Lookup:
    """What the configuration says about one host. `values`: what has been found so far, by key in lower case."""

    typed: str
    host: str
    user: str
    values: dict[str, list[Line]] = field(default_factory=dict)
    is_final: bool = False
    wants_final: bool = False

    def first(self, key: str) -> str:
        lines = self.values.get(key)
        return lines[0].words[0] if lines else ""

    @property
    def host_name(self) -> str:
        if self.is_final:  # no line changes it any more
            return self.host
        line = next(iter(self.values.get("hostname", [])), None)
        return expand(line.words[0], {"h": self.typed}, line) if line else self.host

    def take(self, line: Line) -> None:
        key = "proxyjump" if line.key == "proxycommand" else line.key  # whichever comes first counts
        if key in LISTS:
            self.values.setdefault(key, []).append(line)
        else:
            self.values.setdefault(key, [line])


class SshConfig:
    """Both files, read when they are needed first. `say` shows what is left out."""

    def __init__(self, say: Say, user_file: Path | None = None, system_file: Path | None = None) -> None:
        self._say = say
        self._user_file = user_file or home_path("~/.ssh/config")
        self._system_file = system_file or SYSTEM
        self._lines: dict[Path, list[Line]] = {}
        self._said: set[str] = set()

    def lookup(self, host: str, user: str) -> Lookup:
        """The lines that count for a host as the user types it. Raises SettingsError if a file is unreadable or wrong.

        `user`: who logs in, if the configuration does not say it.
        """
        found = Lookup(host, host, user)
        self._apply(found)
        if found.wants_final:  # ssh reads its files again then, with the name that it found
            found.host, found.is_final = found.host_name, True
            self._apply(found)
        return found

    def _apply(self, found: Lookup) -> None:
        for file in (self._user_file, self._system_file):
            self._apply_file(file, found, active=True, depth=0)

    def _apply_file(self, file: Path, found: Lookup, *, active: bool, depth: int) -> None:
        outer = active
        for line in self._read(file):
            if line.key == "host":
                active = outer and is_listed(found.host, line.words)
            elif line.key == "match":
                active = self._matches(line, found, outer)
            elif line.key == "include":
                if depth == DEEPEST:
                    raise line.wrong(f"more than {DEEPEST} files include one another")
                for included in self._included(line):
                    self._apply_file(included, found, active=active, depth=depth + 1)
            elif active:
                found.take(line)

    def _included(self, line: Line) -> Iterator[Path]:
        base = self._system_file.parent if self._is_of_system(line.file) else home_path("~/.ssh")
        for word in line.words:
            if len(word) > LONGEST_PATH:
                raise line.wrong("a path is too long")
            yield from map(Path, sorted(glob.glob(str(base / home_path(word)))))  # for it, ** is no more than *

    def _is_of_system(self, file: Path) -> bool:
        return self._system_file.parent in file.parents

    def _read(self, file: Path) -> list[Line]:
        if file not in self._lines:
            self._lines[file] = [*_lines(file, self._text(file))]
        return self._lines[file]

    def _text(self, file: Path) -> str:
        try:
            with file.open("rb") as opened:
                mode = os.fstat(opened.fileno())
                if not self._is_of_system(file) and (mode.st_uid not in (0, os.getuid()) or mode.st_mode & 0o022):
                    raise SettingsError(
                        f"{file} belongs to someone else, or others may write to it, so ssh refuses it.",
                        f"Make it yours alone: chmod 600 {file}",
                    )
                return opened.read().decode(errors="surrogateescape")
        except (FileNotFoundError, NotADirectoryError):
            return ""
        except OSError as error:
            raise SettingsError(
                f"{file} can't be read ({error.strerror}).", "Make it readable for you, or remove it."
            ) from None

    def _matches(self, line: Line, found: Lookup, outer: bool) -> bool:
        words = [*line.words]
        matches = outer
        while words:
            word = words.pop(0)
            negated, word = word.startswith("!"), word.removeprefix("!")
            name, equals, value = word.partition("=")
            name = name.lower()
            if name == "all":
                one = True
            elif name in ("final", "canonical"):  # names are not made canonical here
                found.wants_final |= name == "final" and not found.is_final
                one = name == "final" and found.is_final
            else:
                if not equals and not words:
                    raise line.wrong(f"Match {name} lacks its argument")
                one = self._criterion(line, name, value if equals else words.pop(0), found, matches)
            matches = matches and one != negated
        return matches

    def _criterion(self, line: Line, name: str, value: str, found: Lookup, still: bool) -> bool:
        texts: dict[str, Callable[[], str]] = {
            "host": lambda: found.host_name,
            "originalhost": lambda: found.typed,
            "user": lambda: found.first("user") or found.user,
            "localuser": getpass.getuser,
        }
        if name in texts:
            return is_listed(texts[name](), value.split(","))
        if name == "exec":
            names = {"h": found.host_name, "n": found.typed, "r": found.first("user") or found.user}
            return still and run_shell(expand(value, names, line), EXEC).exit_code == 0
        text = f"{line.file}, line {line.number}: Match {name} is not supported: what follows it is left out"
        if text not in self._said:
            self._said.add(text)
            self._say(text)
        return False


def _lines(file: Path, text: str) -> Iterator[Line]:
    for number, raw in enumerate(text.split("\n"), 1):
        stripped = raw.strip(" \t\f\r")
        if not stripped or stripped.startswith("#"):
            continue
        match = re.match(r'"?([^\s="]+)"?\s*=?\s*(.*)', stripped, re.DOTALL)
        if not match:
            raise Line(file, number, "", "", ()).wrong(f"{stripped!r} is not of the form KEY VALUE")
        line = Line(file, number, match[1].lower(), match[2], ())
        if line.key not in KEYS | WORDS:
            continue
        if "\0" in line.rest:
            raise line.wrong("there is a zero byte in it")
        # the whole line is the command
        words = (line.rest,) if line.key == "proxycommand" and line.rest else tuple(_words(line))
        if not words or not words[0]:
            raise line.wrong(f"{match[1]} lacks its argument")
        if len(words) > 1 and line.key not in SEVERAL:
            raise line.wrong(f"{match[1]} has more than one argument; put it in quotation marks if it is one")
        checked = Line(file, number, line.key, line.rest, words)
        if checked.key in CHECKS:
            CHECKS[checked.key](checked)
        yield checked


def _words(line: Line) -> Iterator[str]:
    """As argv_split of OpenSSH: quotes of both kinds, a backslash before a quote, a comment at the end."""
    at, text = 0, line.rest
    while True:
        while at < len(text) and text[at] in " \t":
            at += 1
        if at == len(text) or text[at] == "#":
            return
        word, quote = "", ""
        while at < len(text) and (quote or text[at] not in " \t"):
            sign, following = text[at], text[at + 1 : at + 2]
            if sign == "\\" and following and following in ("\"'\\" if quote else "\"'\\ "):
                word += following
                at += 1
            elif sign in "\"'" and quote in ("", sign):
                quote = "" if quote else sign
            else:
                word += sign
            at += 1
        if quote:
            raise line.wrong("a quotation mark is missing")
        yield word


def is_listed(text: str, patterns: Sequence[str]) -> bool:
    """Whether a list of patterns names the text; one with `!` excludes it."""
    if any(matches(text, pattern[1:]) for pattern in patterns if pattern.startswith("!")):
        return False
    return any(matches(text, pattern) for pattern in patterns if not pattern.startswith("!"))


def matches(text: str, pattern: str) -> bool:
    """OpenSSH's wildcards: `*` and `?` only."""
    return fnmatch.fnmatchcase(text, pattern.replace("[", "[[]"))


def expand(text: str, names: Mapping[str, str], line: Line) -> str:
    """Replaces tokens such as %h. Raises SettingsError for one that is not known here."""

    known = {"%": "%", **names}

    def value(match: re.Match[str]) -> str:
        if match[1] not in known:
            raise line.wrong(f"%{match[1]} is not supported here")
        return known[match[1]]

    return re.sub(r"%(.?)", value, text)


def _port(line: Line) -> None:
    if not re.fullmatch("[0-9]{1,5}", line.words[0]) or not 0 < int(line.words[0]) < 65536:
        raise line.wrong(f"{line.words[0]!r} is not a port")


def _seconds(line: Line) -> None:
    if seconds(line.words[0]) is None and line.words[0].lower() != "none":
        raise line.wrong(f"{line.words[0]!r} is not a time, such as 10 or 1m")


def seconds(text: str) -> float | None:
    """`90`, `1m30s` → seconds; None if it is no time."""
    if not re.fullmatch(r"([0-9]{1,6}[smhdwSMHDW])*([0-9]{1,6})?", text) or not text:
        return None
    units = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
    return float(sum(int(n) * units[unit.lower()] for n, unit in re.findall("([0-9]+)([a-zA-Z]?)", text)))


def _choice(*values: str) -> Callable[[Line], None]:
    def check(line: Line) -> None:
        if line.words[0].lower() not in values:
            raise line.wrong(f"{line.words[0]!r} is not one of {', '.join(values)}")

    return check


CHECKS: dict[str, Callable[[Line], None]] = {
    "port": _port,
    "connecttimeout": _seconds,
    "identitiesonly": _choice("yes", "no", "true", "false"),
    "stricthostkeychecking": _choice("ask", "yes", "no", "true", "false", "off", "accept-new"),
}
