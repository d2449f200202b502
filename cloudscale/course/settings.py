"""Configuration → Settings, read once for each task, never at import.

The values come from Invoke's configuration (invoke.yaml, -f FILE, INVOKE_CLOUDSCALE_…). A task's flags override them.
An unknown key or a wrong type is an error that names the key. docs/configuration.md is generated from the descriptions
of the fields.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloudscale.course.header import OWN, parse_columns
from cloudscale.errors import SettingsError
from cloudscale.units import GIB, MIB, parse_size

DEFAULT_IMAGE = "quay.io/jupyter/scipy-notebook:2025-03-14"  # not `latest`, which changes between classes

RESERVE = 512 * MIB  # bytes

HELP = "invoke --help TASK describes the flags."

Driver = Literal["openstack", "local", "generic", "virtualbox", "qemu"]


def _size(value: object) -> object:
    """`2G` → bytes."""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError("should be a size such as 2G or 512M")
    return parse_size(str(value))


def _number(value: object) -> object:
    if isinstance(value, bool):  # pydantic takes true for 1
        raise ValueError("should be a number")
    return value


def _names(value: object) -> object:
    """`a,b` → ("a", "b")."""
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    return value


def _listed(value: object) -> object:
    """The same for a flag, where no name at all (a shell's variable that is not set) could be taken for all names."""
    names = _names(value)
    if names == ():
        raise ValueError("should be one or more names, separated by commas")
    return names


def _path(value: object) -> object:
    """A path, with the `~` and `~user` that a shell leaves in --flag=~/file."""
    if value == "":
        raise ValueError("should not be empty")
    return os.path.expanduser(value) if isinstance(value, str) else value


def _image(value: object) -> object:
    return value if isinstance(value, str) and "://" in value else _path(value)


def _columns(value: object) -> object:
    """`id=Matrikel,name=Vorname` → {"id": "Matrikel", "name": "Vorname"}."""
    return parse_columns(value) if isinstance(value, str) else value


def _cidr(value: object) -> object:
    """An address range such as 192.0.2.0/24. A single address is a range of one."""
    try:
        return str(ipaddress.ip_network(str(value), strict=False))
    except ValueError:
        raise ValueError("should be an address range such as 192.0.2.0/24") from None


Size = Annotated[int, BeforeValidator(_size), Field(ge=6 * MIB)]  # bytes; Docker's own lower limit
Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
File = Annotated[Path, BeforeValidator(_path)]
FileOrUrl = Annotated[str, BeforeValidator(_image)]
Column = Annotated[str, Field(pattern=f"^({'|'.join(OWN)})$")]
Columns = Annotated[dict[Column, Annotated[str, Field(min_length=1)]], BeforeValidator(_columns)]
Cidr = Annotated[str, BeforeValidator(_cidr)]


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
    """The limits of each seat, and what a plan counts for it."""

    cpus: Number = Field(1.0, ge=0.01, description="the CPU cores that one seat can use")  # Docker's own lower limit
    memory: Size = Field(2 * GIB, description="the memory that one seat can use")
    pids: Integer = Field(512, ge=16, description="the number of processes and threads that one seat can have")
    reserve: Size = Field(
        None,  # the validator's default
        validate_default=True,
        description="the memory that a plan counts for each seat, and too little of it is an error; "
        "if empty, 512M, or `seat.memory` if that is less",
    )
    per_core: Number = Field(
        4, gt=0, description="the number of seats that a plan counts for each core; more than that is a warning"
    )

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
    """The driver `local`: the Docker Engine of this computer."""

    address: str | None = Field(
        None, description="the address of this computer in the URLs of the seats; if empty, it is detected"
    )


class OpenStackSettings(Section):
    """The driver `openstack`: machines in a cloud."""

    cloud: str | None = Field(
        None, description="the name of the cloud in clouds.yaml; if empty, `OS_CLOUD` or the only cloud there"
    )
    image: str = Field(
        "debian-12",
        min_length=1,
        description="the name or id of the machines' image: Debian 12, Ubuntu 22.04 or newer, with cloud-init",
    )
    flavor: str = Field("m1.small", min_length=1, description="the name or id of the machines' flavor")
    network: str = Field(
        "course-net",
        min_length=1,
        description="the name or id of the machines' network, which a router connects to the outside",
    )
    external_network: str = Field(
        "public",
        description="the name or id of the network for floating IPs; "
        '`""` if the machines can be reached without floating IPs',
    )
    user: str = Field("debian", min_length=1, description="the user of the image; this user may use sudo")
    key_pair: str | None = Field(
        None, description="the name of your own key pair, which may log in to the machines too"
    )
    admin_cidr: Cidr = Field("0.0.0.0/0", description="the address range that can reach SSH and the Docker Engines")
    student_cidr: Cidr = Field("0.0.0.0/0", description="the address range that can reach the seats")
    availability_zone: str | None = Field(
        None, description="the zone for servers and volumes; if empty, the cloud chooses it"
    )
    config_drive: bool = Field(False, description="use a config drive, for clouds without a metadata service")
    boot_volume: Size | None = Field(
        None,
        description="the size of a volume that each machine boots from, such as `20G`; "
        "if empty, machines boot from the flavor's disk",
    )
    server_prefix: str = Field(
        "",
        pattern=r"^([a-z0-9][a-z0-9-]{0,19})?$",
        description="the text before the names of servers and ports, such as `uni-`",
    )
    boot_timeout: Number = Field(
        600, gt=0, description="seconds until a machine that is ACTIVE and does not answer counts as failed"
    )


class VmSettings(Section):
    """The drivers `qemu` and `virtualbox`: VMs on this computer."""

    cpus: Integer = Field(2, ge=1, le=64, description="the cores of each VM")
    memory: Size = Field(2 * GIB, ge=256 * MIB, description="the memory of each VM")
    disk: Size = Field(20 * GIB, ge=GIB, description="the disk of each VM")
    base_image: FileOrUrl | None = Field(
        None,
        description="the cloud image for the VMs' disks: a file or an https:// address; if empty, Debian 13",
    )
    user: str = Field("debian", min_length=1, description="the user of the image; this user may use sudo")
    address: str = Field(
        "127.0.0.1",
        pattern=r"^\d+\.\d+\.\d+\.\d+$",
        description="the IPv4 address of this computer where the seats can be reached; "
        "with 127.0.0.1, only from this computer",
    )
    boot_timeout: Number = Field(
        900, gt=0, description="seconds until a VM that runs and does not answer counts as failed"
    )
    kvm: bool = Field(True, description="use KVM where it works; without it, a VM is many times slower")


class GenericSettings(Section):
    """The driver `generic`: hosts over SSH."""

    hosts: Names = Field((), description="the hosts: `[user@]host[:port]`; the first one creates the swarm")
    user: str = Field("root", min_length=1, description="the user for hosts that are given without a user")
    kfile: File | None = Field(
        None, description="the file with the private key; if empty, the SSH agent and the keys in ~/.ssh"
    )
    pwd: str | None = Field(
        None,
        repr=False,
        description="the password, or the passphrase of the key in `kfile`; with `-` you are asked for it; "
        "better set it in the environment than in a file",
    )


class Settings(Section):
    """The whole configuration."""

    driver: Driver = Field("openstack", description="where the machines come from")
    course: str = Field(
        "course",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,39}$",
        description="the name of the class; everything that is made for the class carries it",
    )
    students: File = Field(Path("students.csv"), description="the CSV file with the students")
    columns: Columns = Field(
        {}, description="the columns of that file whose headings are not known, such as `{id: Matrikel, name: Vorname}`"
    )
    image: str = Field(
        DEFAULT_IMAGE,
        min_length=1,
        description="the notebook image: REGISTRY/REPOSITORY:TAG, or the short name of an image that is built here",
    )
    seat: SeatSettings = Field(SeatSettings(), description="the limits of each seat, and what a plan counts for it")
    local: LocalSettings = Field(LocalSettings(), description="the Docker Engine of this computer")
    openstack: OpenStackSettings = Field(OpenStackSettings(), description="machines in an OpenStack cloud")
    generic: GenericSettings = Field(GenericSettings(), description="hosts over SSH")
    vm: VmSettings = Field(VmSettings(), description="VMs on this computer: the drivers `qemu` and `virtualbox`")


class Launch(Section):
    """The flags of `themachine` that are not keys of the configuration. tasks.py has their help texts."""

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


class Remote(Section):
    """The flags of `remote_com`."""

    hosts: Listed
    com: str = Field(min_length=1)
    port: Integer = Field(22, ge=1, le=65535)
    user: str = Field("root", min_length=1)
    pwd: str | None = Field(None, repr=False)
    kfile: File | None = None
    path: str | None = None


class Common(Section):
    """The flags that all tasks share and that are not keys of the configuration."""

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


def key_paths(model: type[Section] | None = None) -> Iterator[tuple[str, ...]]:
    """The path to each key of the configuration, such as ("seat", "memory")."""
    for name, field in (model or Settings).model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from ((name, *path) for path in key_paths(field.annotation))
        else:
            yield (name,)


def read_settings(
    configuration: Mapping[str, Any], origins: Mapping[str, str] | None = None, **flags: object
) -> Settings:
    """The `cloudscale` part of the configuration, overridden by flags that are not None. Raises SettingsError.

    `origins` names the variable or flag of keys that do not come from a file.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    sources = {**(origins or {}), **{name: f"flag --{name}" for name in given}}

    def where(key: str) -> str:
        origin = next((sources[name] for name in sources if f"{key}.".startswith(f"{name}.")), None)
        return origin or f"the configuration, key cloudscale.{key}"

    return _validate(Settings, {**configuration, **given}, where, f"docs/configuration.md lists all keys. {HELP}")


def read_flags(model: type[M], **flags: object) -> M:
    """A task's flags as Launch, Remote or Common; those that are None keep their default. Raises SettingsError."""
    return _validate(model, flags, lambda key: f"flag --{key.replace('_', '-')}", HELP)


def _validate(model: type[M], values: Mapping[str, Any], where: Callable[[str], str], remedy: str) -> M:
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(details, where) for details in error.errors(include_url=False)]
        raise SettingsError("\n".join(problems), remedy) from None


def _problem(details: Mapping[str, Any], where: Callable[[str], str]) -> str:
    """`seat.pids: should be …`, with the value unless that could be a password."""
    key, kind = ".".join(map(str, details["loc"])), details["type"]
    if kind == "extra_forbidden":
        return f"{where(key)}: unknown key."
    text = details["msg"].removeprefix("Value error, ")
    # for a missing key, pydantic's input is the whole section, which may contain a password
    is_secret = kind == "missing" or key.endswith("pwd")
    return f"{where(key)}: {text}." if is_secret else f"{where(key)}: {text} (it is {details['input']!r})."
