"""`[user@]host[:port]` → Target: what the flags say, then what ~/.ssh/config says, then OpenSSH's defaults."""

from __future__ import annotations

import getpass
import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cloudscale.errors import RequestError
from cloudscale.hosts.ssh_config import Line, Lookup, SshConfig, expand, seconds
from cloudscale.hosts.target import SSH_PORT, Address, HostKeyRules, Target, parse_address
from cloudscale.outside import home_path

YES = ("yes", "true")
UNSAFE = re.compile(r"[\s'\"`$\\;&<>|(){}*?!~]|^-")  # in what a shell command gets from outside


@dataclass(frozen=True)
class Flags:
    """What the user gives for all hosts; None: not given. It goes before the configuration of SSH."""

    port: int | None = None
    user: str | None = None
    key_file: Path | None = None
    timeout: float | None = None


class Destinations:
    """Finds the targets of hosts as the user writes them, among them those through which others are reached."""

    def __init__(self, config: SshConfig, flags: Flags) -> None:
        self._config = config
        self._flags = flags

    def find(self, text: str) -> Target:
        """Raises RequestError if the text is not a host, or the configuration of SSH is wrong."""
        written, flags = parse_address(text), self._flags
        return self._target(written, Address("", flags.user or "root", flags.port), (), flags)

    def _target(
        self, written: Address, otherwise: Address, chain: tuple[str, ...], flags: Flags, via: Target | None = None
    ) -> Target:
        """`otherwise`: the user and port where neither the text nor the configuration says them.

        `chain`: the hosts that are reached through this one. `via`: the host before it, if that is known already.
        """
        given_user = written.user or flags.user
        found = self._config.lookup(written.host, given_user or otherwise.user or "root")
        port = written.port or flags.port or int(found.first("port") or otherwise.port or SSH_PORT)
        user = given_user or found.first("user") or otherwise.user or "root"
        names = _names(found, port, user)
        host = names["h"]
        jumps = "" if via or found.first("proxyjump").lower() == "none" else found.first("proxyjump")
        is_command = bool(jumps) and found.values["proxyjump"][0].key == "proxycommand"
        return Target(
            host=host,
            port=port,
            user=user,
            key_file=home_path(flags.key_file) if flags.key_file else None,
            label=_label(written.host, written.port or flags.port or SSH_PORT, host, port, is_jump=bool(chain)),
            alias=found.first("hostkeyalias"),
            via=via or (self._chain(found, jumps, written, chain) if jumps and not is_command else None),
            proxy=_safe(found.values["proxyjump"][0], names) if is_command else "",
            identities=_identities(found, names),
            only_identities=found.first("identitiesonly").lower() in YES,
            agent=_agent(found, names),
            patience=None if flags.timeout else seconds(found.first("connecttimeout")),
            host_keys=_host_keys(found, names),
        )

    def _chain(self, found: Lookup, jumps: str, written: Address, chain: tuple[str, ...]) -> Target:
        """The last host of a ProxyJump; the hosts before it are those through which it is reached."""
        line = found.values["proxyjump"][0]
        via: Target | None = None
        for text in jumps.split(","):
            try:
                jump = parse_address(text.strip().removeprefix("ssh://").rstrip("/"))
            except RequestError as error:
                raise line.wrong(f"ProxyJump: {error.message.rstrip('.')}") from None
            hosts = (*chain, written.host)
            if jump.host in hosts:
                raise line.wrong(f"the jump hosts lead in a circle: {' -> '.join([*hosts, jump.host])}")
            via = self._target(jump, Address("", getpass.getuser()), hosts, Flags(), via)
        assert via
        return via


def _label(given_host: str, given_port: int, host: str, port: int, *, is_jump: bool) -> str:
    """The name in messages: what the user gave, unless host and port make that."""
    given = Target(given_host, given_port).name
    if is_jump:
        return f"jump host {given}"
    return "" if (host, port) == (given_host, given_port) else given


def _names(found: Lookup, port: int, user: str) -> dict[str, str]:
    """The tokens of ssh_config(5)."""
    this = socket.gethostname()
    host = found.host_name
    alias = found.first("hostkeyalias") or host
    of_host = {"h": host, "n": found.typed, "p": str(port), "r": user, "k": alias}
    of_user = {"u": getpass.getuser(), "i": str(os.getuid()), "d": str(home_path("~"))}
    return {**of_host, **of_user, "l": this, "L": this.partition(".")[0]}


def _path(text: str, names: Mapping[str, str], line: Line) -> Path:
    """A path in the configuration, with ~, tokens such as %d and variables such as ${HOME} replaced."""

    def variable(match: re.Match[str]) -> str:
        if match[1] not in os.environ:
            raise line.wrong(f"the environment has no {match[1]}")
        return os.environ[match[1]]

    return home_path(re.sub(r"\$\{(\w+)\}", variable, expand(text, names, line)))


def _identities(found: Lookup, names: Mapping[str, str]) -> tuple[Path, ...] | None:
    lines = found.values.get("identityfile")
    if lines is None:
        return None
    paths = [_path(line.words[0], names, line) for line in lines if line.words[0].lower() != "none"]
    return tuple(dict.fromkeys(paths))


def _agent(found: Lookup, names: Mapping[str, str]) -> str:
    if not (value := found.first("identityagent")) or value == "SSH_AUTH_SOCK":
        return ""
    if value.lower() == "none":
        return "none"
    line = found.values["identityagent"][0]
    if value.startswith("$") and not value.startswith("${"):
        return os.environ.get(value[1:], "none")
    return str(_path(value, names, line))


def _host_keys(found: Lookup, names: Mapping[str, str]) -> HostKeyRules:
    def files(key: str) -> tuple[str, ...] | None:
        lines = found.values.get(key)
        if lines is None:
            return None
        return tuple(str(_path(word, names, lines[0])) for word in lines[0].words if word.lower() != "none")

    revoked = found.values.get("revokedhostkeys")
    return HostKeyRules(
        user_files=files("userknownhostsfile"),
        global_files=files("globalknownhostsfile"),
        strict=found.first("stricthostkeychecking").lower() in YES,
        revoked=_path(revoked[0].words[0], names, revoked[0]) if revoked else None,
    )


def _safe(line: Line, names: Mapping[str, str]) -> str:
    """A ProxyCommand, with its tokens replaced. Raises SettingsError if one has a meaning for the shell."""
    for token in ("h", "n", "r"):
        if f"%{token}" in line.words[0] and UNSAFE.search(names[token]):
            raise line.wrong(f"{names[token]!r} can't be part of a command")
    return expand(line.words[0], names, line)
