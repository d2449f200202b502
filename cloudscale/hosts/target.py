"""A host to log in to, as a value: nothing here connects."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from cloudscale.errors import RequestError

SSH_PORT = 22
# [user@]host[:port]; an IPv6 address needs brackets if a port follows
HOST = re.compile(
    r"(?:(?P<user>.+)@)?(?:\[(?P<bracketed>[^\]]+)\]|(?P<ipv6>[0-9A-Fa-f]*:[0-9A-Fa-f:.]*:.*)|(?P<host>[^@:\[\]]+))"
    r"(?::(?P<port>[0-9]{1,5}))?"
)


@dataclass(frozen=True)
class HostKeyRules:
    """What the user's own SSH configuration says about host keys. None: OpenSSH's default files.

    `strict`: unknown hosts are refused. `revoked`: a file with keys that no host may have.
    """

    user_files: tuple[str, ...] | None = None
    global_files: tuple[str, ...] | None = None
    strict: bool = False
    revoked: Path | None = None


@dataclass(frozen=True)
class Target:
    """A host to log in to. Without password and key file, `identities`, the agent's and the user's own keys are tried.

    `label`: its name in messages; `alias`: its name in known_hosts, for a host whose address others had before.
    `via`: the host through which it is reached; `proxy`: a command whose input and output are the connection to it.
    `identities` None: the usual keys in ~/.ssh; `only_identities`: no other key of the agent is offered.
    `agent`: the agent's socket, `none` for no agent, empty for the one in SSH_AUTH_SOCK.
    `patience`: seconds to wait for the connection, if the user's SSH configuration says so.
    """

    host: str
    port: int = SSH_PORT
    user: str = "root"
    password: str | None = field(default=None, repr=False)
    key_file: Path | None = None
    label: str = ""
    alias: str = ""
    via: Target | None = None
    proxy: str = ""
    identities: tuple[Path, ...] | None = None
    only_identities: bool = False
    agent: str = ""
    patience: float | None = None
    host_keys: HostKeyRules = HostKeyRules()

    @property
    def name(self) -> str:
        return self.label or (self.host if self.port == SSH_PORT else f"{self.host}:{self.port}")

    @property
    def sends_password(self) -> bool:
        """Whether the host gets the password; the passphrase of a key is not sent to it."""
        return self.password is not None and self.key_file is None

    @property
    def address(self) -> str:
        """The host in OpenSSH's notation."""
        return self.host if self.port == SSH_PORT else f"[{self.host}]:{self.port}"

    @property
    def entry(self) -> str:
        """The host as it is written in known_hosts."""
        return self.alias or self.address


@dataclass(frozen=True)
class Address:
    """What `[user@]host[:port]` says; None for what it leaves out."""

    host: str
    user: str | None = None
    port: int | None = None


def parse_address(text: str) -> Address:
    """`[user@]host[:port]`, an IPv6 address with a port in brackets. Raises RequestError."""
    match = HOST.fullmatch(text)
    if not match or not 0 < int(match["port"] or SSH_PORT) < 65536:
        raise RequestError(f"{text!r} is not a host.", "Write a host as [user@]host[:port].")
    host = match["bracketed"] or match["ipv6"] or match["host"]
    if not all(0 < len(part) < 64 for part in host.split(".")):
        raise RequestError(
            f"{host!r} is not a host name.", "Each part of a host name, between two dots, has 1 to 63 characters."
        )
    return Address(host, match["user"], int(match["port"]) if match["port"] else None)
