"""The types of the configuration's values, and how each is written as text, as in a flag or in the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainValidator

from cloudscale.course import deadline
from cloudscale.course.header import OWN, parse_columns
from cloudscale.terminal import CONTROL
from cloudscale.units import MIB, parse_size


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
    if isinstance(value, str) and "\0" in value:
        raise ValueError("should be a path, and has a zero byte in it")
    return os.path.expanduser(value) if isinstance(value, str) else value


def _image(value: object) -> object:
    return value if isinstance(value, str) and "://" in value else _path(value)


def _columns(value: object) -> object:
    """`id=Matrikel,name=Vorname` → {"id": "Matrikel", "name": "Vorname"}."""
    if isinstance(value, Mapping) and not set(value) <= set(OWN):
        raise ValueError(f"should have no other keys than {', '.join(OWN)}")
    return parse_columns(value) if isinstance(value, str) else value


def _cidrs(value: object) -> object:
    """Address ranges such as 192.0.2.0/24, in a list or with commas between. A single address is a range of one."""
    ranges = _names(value)
    ranges = ranges if isinstance(ranges, (list, tuple)) else (ranges,)
    if not ranges:
        raise ValueError("should be an address range such as 192.0.2.0/24, or several")
    found = []
    for one in ranges:
        try:
            found.append(str(ipaddress.ip_network(str(one).strip(), strict=False)))
        except ValueError:
            which = f"{str(one)!r} " if len(ranges) > 1 else ""
            raise ValueError(f"{which}should be an address range such as 192.0.2.0/24 or 2001:db8::/32") from None
    return tuple(dict.fromkeys(found))


def _ipv4s(value: object) -> object:
    """IPv4 addresses, in a list or with commas between."""
    addresses = _names(value)
    for one in addresses if isinstance(addresses, (list, tuple)) else (addresses,):
        try:
            ipaddress.IPv4Address(str(one))
        except ValueError:
            raise ValueError(f"{str(one)!r} should be an IPv4 address such as 192.0.2.7") from None
    return addresses


def _reach(value: object) -> object:
    """Places in IPv4, each an address or a range, with a port or for all of them (0): 192.0.2.0/24:5432."""
    found = []
    places = _names(value)
    for one in places if isinstance(places, (list, tuple)) else (places,):
        network, _, port = str(one).partition(":")
        try:
            if not 0 <= int(port or 0) <= 65535:
                raise ValueError
            found.append(f"{ipaddress.IPv4Network(network.strip(), strict=False)}:{int(port or 0)}")
        except ValueError:
            raise ValueError(
                f"{str(one)!r} should be an address or a range, such as 192.0.2.7:5432 or 192.0.2.0/24"
            ) from None
    return tuple(dict.fromkeys(found))


def _inside(value: object) -> object:
    """A path below some folder, without `.` and `..` in it."""
    if not isinstance(value, str):
        return value
    parts = [part for part in value.split("/") if part not in ("", ".")]
    if value.startswith(("/", "~")) or ".." in parts or not parts or CONTROL.search(value) or "\n" in value:
        raise ValueError("should be a path inside the folder, such as data/day1")
    return "/".join(parts)


def _when(value: object) -> object:
    """`18:00` → the time that it means now, on the trainer's clock."""
    return deadline.read_when(str(value), deadline.now())


Size = Annotated[int, BeforeValidator(_size), Field(ge=6 * MIB)]  # bytes; Docker's own lower limit
Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
Inside = Annotated[str, BeforeValidator(_inside)]
File = Annotated[Path, BeforeValidator(_path)]
ShortText = Annotated[str, Field(max_length=200)]
FileOrUrl = Annotated[str, BeforeValidator(_image)]
Columns = Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(_columns)]
Cidrs = Annotated[tuple[str, ...], BeforeValidator(_cidrs)]
Reach = Annotated[tuple[str, ...], BeforeValidator(_reach)]
Ipv4s = Annotated[tuple[str, ...], BeforeValidator(_ipv4s)]
When = Annotated[datetime | Literal["none"], PlainValidator(_when)]
