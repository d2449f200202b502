"""Configuration → Settings, read once for each task, never at import.

The values come from Invoke's configuration (invoke.yaml, -f FILE, INVOKE_CLOUDSCALE_…). A task's flags override them.
An unknown key or a wrong type is an error that names the key. docs/configuration.md is generated from the descriptions
of the fields.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cloudscale.course.values import Cidrs, Columns, File, FileOrUrl, Integer, Ipv4s, Names, Number, Reach, Size
from cloudscale.errors import SettingsError
from cloudscale.outside import home_path
from cloudscale.units import GIB, MIB

DEFAULT_IMAGE = "quay.io/jupyter/scipy-notebook:2025-03-14"  # not `latest`, which changes between classes

RESERVE = 512 * MIB  # bytes

HELP = "invoke --help TASK describes the flags."

Driver = Literal["openstack", "local", "generic", "virtualbox", "qemu"]
GatewayMode = Literal["none", "path", "subdomain", "auto"]

ANYWHERE = ("0.0.0.0/0", "::/0")
NO_FLOATING_IPS = "none"  # in the place of an external network


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
    disk: Size = Field(
        10 * GIB,
        ge=16 * MIB,  # less holds no quota that XFS keeps
        description="the disk that the files of one student can take, and again what the seat writes outside of the "
        "work folder; on machines that are made for the course and whose kernel has quotas",
    )
    reserve: Size = Field(
        None,  # the validator's default
        validate_default=True,
        description="the memory that a plan counts for each seat, and too little of it is an error; "
        "if empty, 512M, or `seat.memory` if that is less",
    )
    per_core: Number = Field(
        4, gt=0, description="the number of seats that a plan counts for each core; more than that is a warning"
    )
    reach: Reach = Field(
        (),
        description="what seats may reach in the networks of their machine, such as `[192.0.2.7:5432, 192.0.2.64/26]`; "
        "the internet they reach anyway",
    )
    shared: File | None = Field(
        None,
        description="a folder on your computer whose files all seats can read, in `shared` in the work folder; "
        "it is sent once to each machine",
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


USUAL_SEAT = SeatSettings()


class LocalSettings(Section):
    """The driver `local`: the Docker Engine of this computer."""

    address: str | None = Field(
        None, description="the address of this computer in the URLs of the seats; if empty, it is detected"
    )


class OpenStackSettings(Section):
    """The driver `openstack`: machines in a cloud."""

    @model_validator(mode="before")
    @classmethod
    def _empty(cls, values: Any) -> Any:
        """For what may be empty, a key without a value (`image:`) says so."""
        if not isinstance(values, Mapping):
            return values
        may_be_empty = ("image", "network", "external_network", "user")
        values = {key: "" if value is None and key in may_be_empty else value for key, value in values.items()}
        if str(values.get("external_network", "")).lower() == NO_FLOATING_IPS:  # None, NONE
            values["external_network"] = NO_FLOATING_IPS
        return values

    cloud: str | None = Field(
        None, description="the name of the cloud in clouds.yaml; if empty, `OS_CLOUD` or the only cloud there"
    )
    image: str = Field(
        "debian-13",
        description="the name or id of the machines' image: Debian 12, Ubuntu 22.04 or newer, with cloud-init; "
        "if empty, the newest public Debian image, or Ubuntu if there is none",
    )
    flavor: str = Field("m1.small", min_length=1, description="the name or id of the machines' flavor")
    network: Names = Field(
        ("course-net",),
        description="the name or id of the machines' network, which a router connects to the outside; of several, "
        "each machine is in all of them, and reached in the first one with a way out; if empty, the only network",
    )
    external_network: str = Field(
        "public",
        description="the name or id of the network for floating IPs; if empty, the only one; "
        f"`{NO_FLOATING_IPS}` if the machines' own addresses can be reached",
    )
    floating_ips: Ipv4s = Field(
        (), description="floating IPs that the project has already: used first, and kept after the course"
    )
    user: str = Field(
        "debian", description="the user of the image, who may use sudo; if empty, that of Debian or Ubuntu"
    )
    key_pair: str | None = Field(
        None, description="the name of your own key pair, which may log in to the machines too"
    )
    admin_cidr: Cidrs = Field(ANYWHERE, description="the address ranges that can reach SSH and the Docker Engines")
    student_cidr: Cidrs = Field(ANYWHERE, description="the address ranges that can reach the seats")
    availability_zone: str | None = Field(None, description="the zone for servers; if empty, the cloud chooses it")
    config_drive: bool = Field(False, description="use a config drive, for clouds without a metadata service")
    boot_volume: Size | None = Field(
        None,
        description="the size of a volume that each machine boots from, such as `20G`; "
        "if empty, machines boot from the flavor's disk",
    )
    work_volume: Size | None = Field(
        None,
        description="the size of a volume for the students' work on each machine, such as `50G`: it survives the "
        "machine, and the one in its place gets it; if empty, the work is on the machine's disk and goes with it",
    )
    volume_type: str | None = Field(None, description="the type of these volumes; if empty, the cloud chooses it")
    volume_zone: str | None = Field(
        None, description="the zone for these volumes, which has a name of its own in many clouds; if empty, any"
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

    hosts: Names = Field(
        (),
        description="the hosts: `[user@]host[:port]`, or names in ~/.ssh/config; the first one creates the swarm",
    )
    user: str | None = Field(
        None,
        min_length=1,
        description="the user for hosts that are given without a user; if empty, the one in ~/.ssh/config, else root",
    )
    kfile: File | None = Field(
        None,
        description="the file with the private key; if empty, the keys that ~/.ssh/config names, those of the SSH agent"
        " and those in ~/.ssh",
    )
    pwd: str | None = Field(
        None,
        repr=False,
        description="the password, or the passphrase of the key in `kfile`; with `-` you are asked for it; "
        "better set it in the environment than in a file",
    )


class GatewaySettings(Section):
    """One HTTPS address for the whole class."""

    mode: GatewayMode = Field(
        "none",
        description="`path` (https://ADDRESS/…), `subdomain` (https://LABEL.DOMAIN/, which keeps students apart best "
        "and needs a wildcard name), `auto` (`subdomain` if \\*.DOMAIN leads to the gateway, else `path`) or `none`",
    )
    domain: str = Field(
        "",
        pattern=r"^([A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?)+)?$",
        description="the domain name that leads to the first machine; if empty, its address is used",
    )
    port: Integer = Field(443, ge=1, le=65535, description="the port for HTTPS; with 443, port 80 leads to it")
    tls: str = Field(
        "auto",
        min_length=1,
        description="`acme` (a certificate that every browser trusts), `internal` (from the course's own authority), "
        "`auto` (`acme` for a domain or a public address, else `internal`), or the files of your own certificate: "
        "`CERT.pem,KEY.pem`",
    )
    email: str = Field("", description="the address that the certificate authority may write to")
    acme: str = Field(
        "https://acme-v02.api.letsencrypt.org/directory",
        pattern=r"^https://",
        description="the directory of the certificate authority (ACME)",
    )

    @field_validator("mode", mode="before")
    @classmethod
    def _word(cls, mode: object) -> object:
        if mode is False:
            raise ValueError('should be the word none; YAML reads "off" and "no" as something else')
        return mode

    @field_validator("tls")
    @classmethod
    def _known(cls, tls: str) -> str:
        if tls not in ("auto", "acme", "internal") and len(_names(tls)) != 2:
            raise ValueError("should be auto, acme, internal, or two files: CERT.pem,KEY.pem")
        return tls

    @model_validator(mode="after")
    def _has_domain(self) -> GatewaySettings:
        if self.mode == "subdomain" and not self.domain:
            raise ValueError("subdomain needs gateway.domain: a name for which *.DOMAIN leads to the first machine")
        return self

    @property
    def files(self) -> tuple[Path, Path] | None:
        """The trainer's own certificate and its key."""
        if self.tls in ("auto", "acme", "internal"):
            return None
        certificate, key = _names(self.tls)
        return home_path(certificate), home_path(key)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


TYPES = {  # pydantic's name of a problem → how it is said to those who write YAML
    "string_type": "should be text; YAML reads it as something else, unless it is in quotation marks",
    "path_type": "should be text; YAML reads it as something else, unless it is in quotation marks",
    "model_type": "should be keys and values",
    "dict_type": "should be keys and values",
    "tuple_type": "should be a list",
}


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
    gateway: GatewaySettings = Field(GatewaySettings(), description="one HTTPS address for the whole class")


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

    return validate(Settings, {**configuration, **given}, where, f"docs/configuration.md lists all keys. {HELP}")


def validate(model: type[M], values: Mapping[str, Any], where: Callable[[str], str], remedy: str) -> M:
    """The values as a model. `where` names the origin of a key in messages. Raises SettingsError with every problem."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        problems = [_problem(details, where) for details in error.errors(include_url=False)]
        raise SettingsError("\n".join(problems), remedy) from None


def _problem(details: Mapping[str, Any], where: Callable[[str], str]) -> str:
    """`seat.pids: should be …`, with the value unless that could be a password."""
    key, kind = ".".join(map(str, details["loc"])), details["type"]
    if kind == "extra_forbidden":
        return f"{where(key)}: unknown key.{_near(details['loc'])}"
    text = TYPES.get(kind) or details["msg"].removeprefix("Value error, ")
    # for a missing key, pydantic's input is the whole section, which may contain a password
    is_secret = kind == "missing" or key.endswith("pwd")
    given = details["input"]
    shown = str(given) if isinstance(given, date) else repr(given)
    return f"{where(key)}: {text}." if is_secret else f"{where(key)}: {text} (it is {shown})."


def _near(unknown: tuple[int | str, ...]) -> str:
    """The keys that may be meant: those that are written nearly so, or that are so called in another section."""
    *section, name = map(str, unknown)
    beside = {path[len(section)] for path in key_paths() if list(path[: len(section)]) == section}
    near = [".".join((*section, key)) for key in get_close_matches(name.lower(), sorted(beside), 1)]
    meant = near or [".".join(path) for path in key_paths() if path[-1] == name]
    return f" Is {' or '.join(meant[:3])} meant?" if meant else ""
