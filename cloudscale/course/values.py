"""The types of the configuration's values, and how each is written as text, as in a flag or in the environment."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from cloudscale.course.header import OWN, parse_columns
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


Size = Annotated[int, BeforeValidator(_size), Field(ge=6 * MIB)]  # bytes; Docker's own lower limit
Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], BeforeValidator(_names)]
Listed = Annotated[tuple[str, ...], BeforeValidator(_listed)]
File = Annotated[Path, BeforeValidator(_path)]
FileOrUrl = Annotated[str, BeforeValidator(_image)]
Columns = Annotated[dict[str, Annotated[str, Field(min_length=1)]], BeforeValidator(_columns)]
Cidrs = Annotated[tuple[str, ...], BeforeValidator(_cidrs)]
Ipv4s = Annotated[tuple[str, ...], BeforeValidator(_ipv4s)]
