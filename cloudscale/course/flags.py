"""The flags of tasks that are not keys of the configuration. tasks.py has their help texts."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from cloudscale.course.settings import HELP, GatewayMode, M, Section, validate
from cloudscale.course.values import File, Inside, Integer, Listed, Number, ShortText, Size, When
from cloudscale.units import GIB

CARDS = Path("cards.html")  # where the cards go


class Launch(Section):
    """The flags of `themachine`."""

    nodes: Integer = Field(0, ge=0)
    port: Integer = Field(8888, ge=1, le=65535)
    start: Integer = Field(4321, ge=1, le=65535)
    end: Integer = Field(0, ge=0, le=65535)
    env: dict[str, str] = Field(default_factory=dict)
    onlycreate: bool = False
    plan: bool = False
    prune: bool = False
    replace_lost: bool = False
    output: File | None = None
    gateway: GatewayMode | None = None
    check: bool = False
    material: str | None = None
    until: When | None = None

    @field_validator("env", mode="before")
    @classmethod
    def _pairs(cls, value: object) -> object:
        if not isinstance(value, (list, tuple)):
            return value
        for pair in value:
            if not re.match(r"[A-Za-z_][A-Za-z0-9_]*=", str(pair)):
                raise ValueError(f"{pair!r} is not of the form NAME=VALUE")
        return dict(str(pair).split("=", 1) for pair in value)

    @field_validator("end")
    @classmethod
    def _after_start(cls, end: int, info: Any) -> int:
        if end and end < info.data.get("start", 0):
            raise ValueError("should not be less than --start")
        return end

    @field_validator("check")
    @classmethod
    def _with_seats(cls, check: bool, info: Any) -> bool:
        if check and info.data.get("onlycreate"):
            raise ValueError("is for seats, and --onlycreate starts none")
        return check


class CardFlags(Section):
    """The flags of `cards`."""

    output: File | None = None
    per_student: File | None = None
    title: ShortText | None = None
    note: ShortText | None = None
    logo: File | None = None

    @property
    def file(self) -> Path | None:
        """The file with all cards; none if only a file for each student was asked for."""
        return self.output or (None if self.per_student else CARDS)


class Remote(Section):
    """The flags of `remote_com`."""

    hosts: Listed
    com: str = Field(min_length=1)
    port: Integer | None = Field(None, ge=1, le=65535)
    user: str | None = Field(None, min_length=1)
    pwd: str | None = Field(None, repr=False)
    kfile: File | None = None
    path: str | None = None


class Collect(Section):
    """The flags of `collect`."""

    output: File | None = None
    limit: Size = 10 * GIB


class Distribution(Section):
    """The flags of `distribute`: what is given to the students, and where in their work folders.

    `branch`, `path`: of a git repository.
    """

    source: str
    branch: str | None = None
    path: Inside | None = None
    into: Inside | None = None
    force: bool = False


class Common(Section):
    """The flags that all tasks share."""

    only: Listed = ()
    skip: Listed = ()
    timeout: Number | None = Field(None, gt=0)
    format: str = "table"
    yes: bool = False

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        from tabulate import tabulate_formats

        known = ["table", "csv", "json", *(name for name in tabulate_formats if name not in ("csv", "json"))]
        if value not in known:
            raise ValueError(f"should be one of {', '.join(known)}")
        return value


def read_flags(model: type[M], **flags: object) -> M:
    """A task's flags as Launch, Remote or Common; those that are None keep their default. Raises SettingsError."""
    return validate(model, flags, lambda key: f"flag --{key.replace('_', '-')}", HELP)
