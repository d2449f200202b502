"""Configuration → Settings, read once for each task, never at import.

The values come from Invoke's own configuration (invoke.yaml, -f FILE, INVOKE_CLOUDSCALE_…), with a
task's flags on top. Every unknown key and wrong type is an error that names the key.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloudscale.errors import SettingsError
from cloudscale.units import GIB, MIB, parse_size

# A tag that does not move: `latest` would give each class another image.
DEFAULT_IMAGE = "quay.io/jupyter/scipy-notebook:2025-03-14"

RESERVE = 512 * MIB  # bytes that a plan counts for a seat, unless its limit is lower

Driver = Literal["openstack", "local", "generic", "virtualbox", "qemu"]


def _size(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("should be a size such as 2G or 512M")
    return parse_size(str(value))


def _number(value: object) -> object:
    if isinstance(value, bool):  # pydantic takes true for 1
        raise ValueError("should be a number")
    return value


Size = Annotated[int, BeforeValidator(_size), Field(ge=6 * MIB)]  # Docker's own lower limit
Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]


def _names(value: object) -> object:
    """`a,b` as names."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


class Section(BaseModel):
    """A part of the configuration. A key without a value counts as not given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        if not isinstance(values, Mapping):
            return values
        return {key: value for key, value in values.items() if value is not None or key not in cls.model_fields}


M = TypeVar("M", bound=Section)


class SeatSettings(Section):
    """Limits of one seat (`cpus`, `memory`, `pids`), and what a plan counts (`reserve`, `per_core`)."""

    cpus: Number = Field(1.0, ge=0.01)  # Docker's own lower limit
    memory: Size = 2 * GIB
    pids: Integer = Field(512, ge=16)
    reserve: Size = Field(None, validate_default=True)  # the validator's default
    per_core: Number = Field(4, gt=0)

    @field_validator("reserve", mode="before")
    @classmethod
    def _half_a_gigabyte(cls, reserve: object, info: Any) -> object:
        return min(RESERVE, info.data.get("memory", RESERVE)) if reserve is None else reserve

    @field_validator("reserve")
    @classmethod
    def _within_the_limit(cls, reserve: int, info: Any) -> int:
        if reserve > info.data.get("memory", reserve):
            raise ValueError("should not be more than seat.memory")
        return reserve


class LocalSettings(Section):
    """`address`: what students type to reach this computer; found by itself where it is not given."""

    address: str | None = None


def _cidr(value: object) -> object:
    """A network's address range, such as 192.0.2.0/24; one address counts as a range of itself."""
    try:
        return str(ipaddress.ip_network(str(value), strict=False))
    except ValueError:
        raise ValueError("should be a range of addresses such as 192.0.2.0/24") from None


Cidr = Annotated[str, BeforeValidator(_cidr)]


class OpenStackSettings(Section):
    """Names or ids of what the cloud has. `external_network`: empty where fixed addresses can be reached.

    `key_pair`: one of the user's own, let in beside the course's key; `boot_volume`: the size of a volume to boot
    from, in place of the flavor's disk; `boot_timeout`: seconds for a machine to answer.
    """

    cloud: str | None = None
    image: str = Field("debian-12", min_length=1)
    flavor: str = Field("m1.small", min_length=1)
    network: str = Field("course-net", min_length=1)
    external_network: str = "public"
    user: str = Field("debian", min_length=1)
    key_pair: str | None = None
    admin_cidr: Cidr = "0.0.0.0/0"
    student_cidr: Cidr = "0.0.0.0/0"
    availability_zone: str | None = None
    config_drive: bool = False
    boot_volume: Size | None = None
    server_prefix: str = Field("", pattern=r"^([a-z0-9][a-z0-9-]{0,19})?$")
    boot_timeout: Number = Field(600, gt=0)


class VmSettings(Section):
    """VMs on this computer: each one's `cpus`, `memory` and `disk`, and the image that its disk is made from.

    `base_image`: a file, or an address of the web; `address`: where the seats' ports are opened on this computer,
    loopback being for its user alone; `boot_timeout`: seconds for a VM to answer; `kvm`: use it
    where it works.
    """

    cpus: Integer = Field(2, ge=1, le=64)
    memory: Size = Field(2 * GIB, ge=256 * MIB)
    disk: Size = Field(20 * GIB, ge=GIB)
    base_image: str | None = Field(None, min_length=1)
    user: str = Field("debian", min_length=1)
    address: str = Field("127.0.0.1", pattern=r"^\d+\.\d+\.\d+\.\d+$")
    boot_timeout: Number = Field(900, gt=0)
    kvm: bool = True


class GenericSettings(Section):
    """Hosts: `[user@]host[:port]`, with `user` where none is named. `pwd`: a password, or the passphrase of `kfile`."""

    hosts: tuple[str, ...] = ()
    user: str = Field("root", min_length=1)
    kfile: Path | None = None
    pwd: str | None = Field(None, repr=False)

    @field_validator("hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return _names(value)


class Settings(Section):
    driver: Driver = "openstack"
    course: str = Field("course", pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$")
    students: Path = Path("students.csv")
    image: str = Field(DEFAULT_IMAGE, min_length=1)
    seat: SeatSettings = SeatSettings()
    local: LocalSettings = LocalSettings()
    openstack: OpenStackSettings = OpenStackSettings()
    generic: GenericSettings = GenericSettings()
    vm: VmSettings = VmSettings()


class Launch(Section):
    """The flags of `themachine` that are not in the configuration too."""

    nodes: Integer = Field(0, ge=0)
    port: Integer = Field(8888, ge=1, le=65535)
    start: Integer = Field(4321, ge=1, le=65535)
    end: Integer = Field(0, ge=0, le=65535)
    env: dict[str, str] = Field(default_factory=dict)
    onlycreate: bool = False
    plan: bool = False
    prune: bool = False
    replace_lost: bool = False
    output: Path | None = None

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
            raise ValueError("should not be before --start")
        return end


class Remote(Section):
    """The flags of `remote_com`."""

    hosts: tuple[str, ...] = Field(min_length=1)
    com: str = Field(min_length=1)
    port: Integer = Field(22, ge=1, le=65535)
    user: str = Field("root", min_length=1)
    pwd: str | None = Field(None, repr=False)
    kfile: Path | None = None
    path: str | None = None

    @field_validator("hosts", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return _names(value)


class Common(Section):
    """The flags that every task understands."""

    only: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    timeout: Number | None = Field(None, gt=0)
    format: str = "table"
    yes: bool = False

    @field_validator("only", "skip", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return _names(value)

    @field_validator("format")
    @classmethod
    def _known(cls, value: str) -> str:
        from tabulate import tabulate_formats

        known = ["table", "csv", "json", *(name for name in tabulate_formats if name not in ("csv", "json"))]
        if value not in known:
            raise ValueError(f"should be one of {', '.join(known)}")
        return value


def env_skeleton() -> dict[str, Any]:
    """Every key of the configuration with no value, so that Invoke knows them and reads them from the environment."""

    def keys(model: type[Section]) -> dict[str, Any]:
        return {
            name: keys(field.annotation)
            if isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            else None
            for name, field in model.model_fields.items()
        }

    return keys(Settings)


def read_settings(configuration: Mapping[str, Any], **flags: object) -> Settings:
    """The `cloudscale` part of the configuration, with the flags that were given. Raises SettingsError."""
    values = {**configuration, **{name: value for name, value in flags.items() if value is not None}}
    return _validate(
        Settings, values, "the configuration, key cloudscale.", "The README's chapter on configuration lists the keys."
    )


def read_flags(model: type[M], **flags: object) -> M:
    """Flags of a task → Launch or Common; those that are None keep their default. Raises SettingsError."""
    return _validate(model, flags, "flag --", "invoke --help TASK tells what each flag takes.")


def _validate(model: type[M], values: Mapping[str, Any], where: str, remedy: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = []
        for problem in error.errors(include_url=False):
            key = ".".join(str(part) for part in problem["loc"])
            text = "there is no such key" if problem["type"] == "extra_forbidden" else problem["msg"]
            # of a missing key, pydantic's input is everything else, a password among it
            silent = problem["type"] in ("extra_forbidden", "missing") or key.endswith("pwd")
            given = "" if silent else f" (it is {problem['input']!r})"
            problems.append(f"{where}{key}: {text.removeprefix('Value error, ')}{given}.")
        raise SettingsError("\n".join(problems), remedy) from None
