"""The reference pages: tables of the configuration's keys and of the tasks' flags, written from the code.

In each page they stand between two marks; what is outside of the marks is written by hand and stays as it is.
"""

from __future__ import annotations

import argparse
import inspect
import re
import runpy
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from invoke.parser.argument import Argument
from invoke.tasks import Task

from cloudscale.cli.invocation import COMMON_FLAGS
from cloudscale.course import flags, settings, values
from cloudscale.course.settings import Section, Settings
from cloudscale.units import GIB, MIB

PROJECT = Path(__file__).parents[1]
DOCS = PROJECT / "docs"
MARKS = re.compile(r"(.*<!-- script/docs writes [^>]*-->\n).*(<!-- end -->.*)", re.DOTALL)
STATED = re.compile(r" \(default: ([^ ,)]+)\)$")  # at the end of a flag's help
FLAGS_OF: Mapping[str, type[Section]] = {
    "themachine": flags.Launch,
    "remote_com": flags.Remote,
    "collect": flags.Collect,
    "distribute": flags.Distribution,
}
TYPES: Sequence[tuple[Any, str]] = (
    (values.Size, "size"),
    (values.Cidrs, "address ranges"),
    (values.Ipv4s, "addresses"),
    (values.Reach, "addresses"),
    (values.Columns, "`COLUMN: HEADING`"),
    (values.When, "time"),
    (values.Integer, "whole number"),
    (values.Number, "number"),
    (bool, "`true` or `false`"),
    (Path, "path"),
    (tuple[str, ...], "list"),
    (dict[str, str], "`NAME=VALUE`"),
    (str, "text"),
)


def configuration() -> str:
    """A section for each part of the configuration, with a table of its keys."""
    sections = {name: kind for name, kind in get_type_hints(Settings).items() if _is_section(kind)}
    parts = ["## General\n", _keys(Settings(), "", leave_out=sections)]
    for name, kind in sections.items():
        parts += [f"## `{name}`\n", f"{inspect.cleandoc(kind.__doc__ or '')}\n", _keys(kind(), f"{name}.")]
    return "\n".join(parts)


def _is_section(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Section)


def _keys(section: Section, prefix: str, leave_out: Iterable[str] = ()) -> str:
    hints = get_type_hints(type(section), include_extras=True)
    rows = []
    for name, field in type(section).model_fields.items():
        if name not in leave_out:
            value = getattr(section, name)
            default = "" if value in (None, (), {}) else f"`{_text(value, hints[name])}`"
            rows.append((f"`{prefix}{name}`", _kind(hints[name]), default, field.description or ""))
    return _table(("key", "type", "default", "meaning"), rows)


def _kind(hint: Any) -> str:
    """What a value may be, in words."""
    if get_origin(hint) in (Union, UnionType):
        hint = next(part for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(hint))
    known = [hint, *(get_args(hint)[:1] if get_origin(hint) is Annotated else ())]  # as such, or what it is a kind of
    return next(word for kind, word in TYPES if kind in known)


def _text(value: Any, hint: Any) -> str:
    """A value as it stands in invoke.yaml."""
    if _kind(hint) == "size":
        return f"{value // GIB}G" if value % GIB == 0 else f"{value // MIB}M"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else f"{value}" or '""'


@dataclass(frozen=True)
class TaskHelp:
    """A task as its page shows it. `arguments`: the positional ones and the flags."""

    name: str
    description: str
    arguments: Sequence[Argument]

    @property
    def usage(self) -> str:
        return " ".join(
            [self.name, *(str(argument.name).upper() for argument in self.arguments if argument.positional)]
        )

    @property
    def own(self) -> list[Argument]:
        return [argument for argument in self.arguments if argument.name not in COMMON_FLAGS]


@cache
def all_tasks() -> Mapping[str, TaskHelp]:
    """The tasks by name, in the order of tasks.py."""
    helps = {}
    # tasks.py is run again, since a task of Invoke's gives the help of its flags away once
    for name, value in runpy.run_path(str(PROJECT / "tasks.py")).items():
        if isinstance(value, Task):
            helps[name] = TaskHelp(name, inspect.cleandoc(value.__doc__ or ""), value.get_arguments())
    return helps


def reference() -> str:
    """A table of all tasks, the flags that they share, and a section for each task."""
    tasks = all_tasks()
    overview = [
        (f"[`{task.usage}`](#{name})", task.description.partition("\n\n")[0].replace("\n", " "))
        for name, task in tasks.items()
    ]
    shared = [argument for argument in tasks["themachine"].arguments if argument.name in COMMON_FLAGS]
    parts = [_table(("task", "does"), overview), "## Flags of all tasks\n", _flag_table("", shared)]
    for name, task in tasks.items():
        parts += [f"## {name}\n", f"`invoke {task.usage}`\n", f"{task.description}\n"]
        parts += [_flag_table(name, task.own)] if task.own else []
    return "\n".join(parts)


def _flag_table(task: str, arguments: Sequence[Argument]) -> str:
    rows = []
    for argument in arguments:
        meaning = argument.help or ""
        default = _default(task, argument)
        if stated := STATED.search(meaning):  # the column says it
            meaning, default = meaning.removesuffix(stated[0]), default or f"`{stated[1]}`"
        rows.append((f"`{as_typed(argument)}`", default, meaning))
    return _table(("argument", "default", "meaning"), rows)


def as_typed(argument: Argument) -> str:
    if argument.positional:
        return str(argument.name).upper()
    return f"--{str(argument.name).strip('_').replace('_', '-')}"


def _default(task: str, argument: Argument) -> str:
    """A flag's default: that of the task, or else that of the settings which it goes before."""
    if argument.positional:
        return ""
    if argument.kind is bool:
        return "off"
    if argument.default not in (None, "", []):
        return f"`{argument.default}`"
    key = str(argument.name).replace("-", "_")
    for kind in (FLAGS_OF.get(task), flags.Common, settings.VmSettings, Settings):
        if kind and (field := kind.model_fields.get(key)):
            default = field.get_default(call_default_factory=True)
            hint = get_type_hints(kind, include_extras=True)[key]
            return "" if default in (None, (), {}) or field.is_required() else f"`{_text(default, hint)}`"
    return ""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [
        head,
        ["---"] * len(head),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


PAGES: Mapping[str, Callable[[], str]] = {"configuration.md": configuration, "tasks.md": reference}


def stale() -> dict[Path, str]:
    """The pages that do not say what the code does, each with the text that it should have."""
    pages = {}
    for name, generate in PAGES.items():
        page = DOCS / name
        text = page.read_text(encoding="utf-8")
        parts = MARKS.fullmatch(text)
        if parts is None:
            raise SystemExit(f"{page} has lost its marks: <!-- script/docs writes … --> and <!-- end -->.")
        should = f"{parts[1]}\n{generate()}\n{parts[2]}"
        if should != text:
            pages[page] = should
    return pages


def main() -> None:
    parser = argparse.ArgumentParser(prog="script/docs", description=__doc__, allow_abbrev=False)
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 where a page is stale")
    check = parser.parse_args().check
    pages = stale()
    for page, text in pages.items():
        print(f"{page.name}: {'stale, run script/docs' if check else 'written'}", file=sys.stderr)
        if not check:
            page.write_text(text, encoding="utf-8")
    raise SystemExit(check and len(pages) > 0)


if __name__ == "__main__":
    main()
