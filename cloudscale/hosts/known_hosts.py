"""The host keys that identify SSH hosts: read as OpenSSH reads them, stored, and checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
import sys
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import paramiko

from cloudscale.errors import ConnectionFailed, HostKeyChanged
from cloudscale.hosts.ssh_config import is_listed
from cloudscale.hosts.target import Target
from cloudscale.hosts.this_computer import on_terminal
from cloudscale.model import Say
from cloudscale.outside import home_path

GLOBAL_FILES = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
USER_FILES = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
REVOKED, AUTHORITY = "@revoked", "@cert-authority"


LONGEST_KEY = 8192  # characters; RSA with 16384 bits, the most that OpenSSH takes, has 2,800


@dataclass(frozen=True)
class Entry:
    """A line of a known_hosts file (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT"). `marker` is empty, or one of the above."""

    file: Path
    number: int
    marker: str
    hosts: str
    key: paramiko.PKey

    @property
    def place(self) -> str:
        return f"{self.file}, line {self.number}"

    def names(self, host: str) -> bool:
        if not self.hosts.startswith("|1|"):
            return is_listed(host, self.hosts.lower().split(","))
        try:
            salt, digest = (base64.b64decode(part, validate=True) for part in self.hosts[3:].split("|"))
        except ValueError:
            return False
        return hmac.compare_digest(hmac.digest(salt, host.encode(), hashlib.sha1), digest)


class KnownHosts:
    """The host keys in OpenSSH's own files and in the course's file, read once for many logins.

    OpenSSH's files come first: what ssh would refuse is refused. A key that no file has is shown with `say` and written
    to the course's file. If a password is to be sent to the host, the user is asked before, unless `yes`.

    With `keeps` false, nothing is written, and such a password is never sent.
    """

    def __init__(self, path: Path, say: Say, *, yes: bool = False, keeps: bool = True) -> None:
        self.path = path
        self._say = say
        self._yes = yes
        self._keeps = keeps
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._files: dict[Path, list[Entry]] = {}

    def kinds(self, target: Target) -> list[str]:
        """The types of the keys that are known of a host: the host is to show one of these."""
        with self._lock:
            entries = [*self._ssh(target), *self._own(target.entry)]
        return [*dict.fromkeys(entry.key.get_name() for entry in entries if not entry.marker)]

    def check(self, target: Target, key: paramiko.PKey) -> bool:
        """Whether a host's key is known. Raises HostKeyChanged if it is not the known one, or is revoked."""
        with self._lock:
            theirs, own = self._ssh(target), self._own(target.entry)
            self._check_revoked(target, key, theirs)
        for entries in ([entry for entry in theirs if not entry.marker], own):
            if any(entry.key == key for entry in entries):
                return True
            if entries:
                same = [entry for entry in entries if entry.key.get_name() == key.get_name()]
                raise _changed(target, key, (same or entries)[0])
        return False

    def accept(self, target: Target, key: paramiko.PKey) -> None:
        """Trust on first use: the key is stored and reported. Raises HostKeyChanged if it must not be trusted."""
        if target.host_keys.strict:
            raise HostKeyChanged(
                f"{target.name}: its host key is not known ({fingerprint(key)}), and StrictHostKeyChecking is set.",
                f"Compare it with the host's own, then add it to known_hosts:"
                f" ssh-keyscan -p {target.port} {target.host}",
            )
        if target.sends_password and not self._yes:
            with self._asking:  # one question at a time
                self._confirm(target, key)
        with self._lock:
            self._add(target.entry, [key])
        stored = f"stored in {self.path}" if self._keeps else "which a launch stores"
        self._say(f"{target.name}: new host key {fingerprint(key)}, {stored}")

    def trust(self, entry: str, lines: Iterable[str]) -> bool:
        """Stores keys from a trusted source, in the format of .pub files; returns whether any was valid."""
        keys = [key for key in map(parse_key, lines) if key]
        with self._lock:
            known = [known.key for known in self._own(entry)]
            self._add(entry, [key for key in keys if key not in known])
        return bool(keys)

    def knows(self, entry: str) -> bool:
        """Whether a key of the host is known. (For a host with an alias, which only the course's file has.)"""
        with self._lock:
            found = [*self._ssh(Target(entry, alias=entry)), *self._own(entry)]
        return any(not known.marker for known in found)

    def _ssh(self, target: Target) -> list[Entry]:
        """What OpenSSH's files say of a host, without authorities: they sign certificates, which are not asked for."""
        rules = target.host_keys
        users = USER_FILES if rules.user_files is None else rules.user_files
        others = GLOBAL_FILES if rules.global_files is None else rules.global_files
        entries = (entry for name in (*users, *others) for entry in self._read(home_path(name)))
        host = target.entry.lower()
        return [entry for entry in entries if entry.marker != AUTHORITY and entry.names(host)]

    def _own(self, name: str) -> list[Entry]:
        """What the course's file says. The last key of a type counts: it is the one from the machine's console."""
        entries = (entry for entry in self._read(self.path) if not entry.marker and entry.names(name.lower()))
        return [*{entry.key.get_name(): entry for entry in entries}.values()]

    def _read(self, file: Path) -> list[Entry]:
        if file not in self._files:
            try:
                data = file.read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                data = b""
            except OSError as error:
                raise ConnectionFailed(
                    f"{file} can't be read, so no host key can be checked ({error.strerror}).",
                    "Make the file readable for you.",
                ) from None
            self._files[file] = [*_entries(file, data)]
        return self._files[file]

    def _check_revoked(self, target: Target, key: paramiko.PKey, entries: Iterable[Entry]) -> None:
        places = [entry.place for entry in entries if entry.marker == REVOKED and entry.key == key]
        if target.host_keys.revoked:
            places += _revoked(target, target.host_keys.revoked, key)
        if places:
            raise HostKeyChanged(
                f"{target.name}: its host key {fingerprint(key)} is revoked ({places[0]}). It may be an attacker's.",
                "Ask who revoked it. If the host has another key by now, the host has to show that one.",
            )

    def _confirm(self, target: Target, key: paramiko.PKey) -> None:
        unknown = f"{target.name}: its host key is not known ({fingerprint(key)})"
        if not self._keeps or not on_terminal():
            raise ConnectionFailed(
                f"{unknown}, so the password is not sent.",
                f"Log in once with ssh and compare the key: ssh {_destination(target)}. Or use a key.",
            )
        self._say(f"{unknown}. Send the password to it? [y/N]")
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise ConnectionFailed(f"{unknown}, and the password was not sent.", "Compare the key with the host's own.")

    def _add(self, entry: str, keys: Iterable[paramiko.PKey]) -> None:
        keys = [*keys]
        self._read(self.path)
        if self._keeps:
            self._write(entry, keys)
        self._files[self.path] += [Entry(self.path, 0, "", entry, key) for key in keys]

    def _write(self, entry: str, keys: Iterable[paramiko.PKey]) -> None:
        text = "".join(f"{entry} {key.get_name()} {key.get_base64()}\n" for key in keys)
        try:
            for folder in reversed([folder for folder in self.path.parents if not folder.exists()]):
                folder.mkdir(mode=0o700, exist_ok=True)
            with self.path.open("a") as file:
                file.write(text)
        except OSError as error:
            raise ConnectionFailed(
                f"{self.path} can't be written ({error.strerror}).",
                "Host keys are stored in this file: make it writable for you.",
            ) from None


def _entries(file: Path, data: bytes) -> Iterator[Entry]:
    """The lines that can be understood. OpenSSH too skips any other: one of SSH 1, of an unknown type, garbage."""
    for number, line in enumerate(data.split(b"\n"), 1):
        marker, text = "", line.decode(errors="replace").strip()
        if text.startswith("@"):
            marker, _, text = text.replace("\t", " ").partition(" ")
        hosts, _, key_text = text.strip().replace("\t", " ").partition(" ")
        if hosts.startswith("#") or marker not in ("", REVOKED, AUTHORITY):
            continue
        if key := parse_key(key_text):
            yield Entry(file, number, marker, hosts, key)


def _revoked(target: Target, file: Path, key: paramiko.PKey) -> list[str]:
    """The lines of RevokedHostKeys that have the key. As in OpenSSH, no host is trusted if the file can't be read."""
    try:
        data = file.read_bytes()
    except OSError as error:
        cause = error.strerror
    else:
        if not data.startswith(b"SSHKRL\n"):
            lines = enumerate(data.decode(errors="replace").split("\n"), 1)
            return [f"{file}, line {number}" for number, line in lines if parse_key(line) == key]
        cause = "it is a binary revocation list"
    raise ConnectionFailed(
        f"{target.name}: {file} (RevokedHostKeys) can't be read, so no host key can be trusted ({cause}).",
        "Name a readable file there, with a public key on each line.",
    )


def _changed(target: Target, key: paramiko.PKey, known: Entry) -> HostKeyChanged:
    return HostKeyChanged(
        f"{target.name}: its host key has changed ({fingerprint(key)} now, {fingerprint(known.key)} before, in"
        f" {known.file}). This may be another machine, or an attacker in between.",
        f"If the machine was reinstalled, remove the old key: ssh-keygen -R '{target.entry}' -f {known.file}"
        " and run again.",
    )


def _destination(target: Target) -> str:
    return f"-p {target.port} {target.user}@{target.host}"


def parse_key(line: str) -> paramiko.PKey | None:
    """The key in a line such as `ssh-ed25519 AAAA… root@host`; None if it is not a key or not complete."""
    words = line[:LONGEST_KEY].split()
    try:
        data = base64.b64decode(words[1], validate=True)
        if not _is_whole(data):
            return None
        key = paramiko.PKey.from_type_string(words[0], data)
        return key if key.asbytes() == data else None
    except (IndexError, ValueError, OverflowError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
        return None


def _is_whole(data: bytes) -> bool:
    """Whether a key is as long as its lengths say (RFC 4251, 5). paramiko fills it up, and calculates for a minute."""
    at = 0
    while at < len(data):
        at += 4 + int.from_bytes(data[at : at + 4], "big")
    return at == len(data)


def fingerprint(key: paramiko.PKey) -> str:
    """The type and the SHA-256 fingerprint of a key, as `ssh-keygen -l` prints it."""
    return f"{key.get_name()} {key.fingerprint}"
