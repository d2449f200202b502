"""The host keys that identify SSH hosts: read, stored, and checked."""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import paramiko

from cloudscale.errors import ConnectionFailed


class KnownHosts:
    """The host keys in the user's own known_hosts and in the course's file, read once for many logins.

    An unknown key is reported to `new_key` and written to the course's file; a changed key is refused.
    """

    def __init__(self, path: Path, new_key: Callable[[str], None]) -> None:
        self.path = path
        self._new_key = new_key
        self._lock = threading.Lock()
        self._keys: paramiko.HostKeys | None = None

    def prepare(self, client: paramiko.SSHClient, address: str, *, entry: str, name: str) -> None:
        """Makes the client check a host's key. Raises ConnectionFailed if a file can't be read.

        The host is called `address` by the client, `entry` in the files, and `name` in messages.
        """
        with self._lock:
            known: Mapping[str, paramiko.PKey] = self._known().lookup(entry) or {}
        for kind, key in known.items():
            client.get_host_keys().add(address, kind, key)
        client.set_missing_host_key_policy(_Remember(self, entry, name))

    def _read(self) -> paramiko.HostKeys:
        keys = paramiko.HostKeys()
        for path in (Path("~/.ssh/known_hosts").expanduser(), self.path):
            try:
                keys.load(str(path))
                if path == self.path:  # the last key of a type counts: it is the one from the machine's console
                    for line in path.read_text().splitlines():
                        entry = paramiko.hostkeys.HostKeyEntry.from_line(line)
                        if entry and entry.hostnames:
                            keys.add(entry.hostnames[0], entry.key.get_name(), entry.key)
            except FileNotFoundError:
                continue
            except (OSError, ValueError, paramiko.hostkeys.InvalidHostKey) as error:
                raise ConnectionFailed(
                    f"{path} can't be read, so no host key can be checked ({error}).",
                    "Correct or remove the invalid line, or make the file readable for you.",
                ) from None
        return keys

    def remember(self, entry: str, name: str, key: paramiko.PKey) -> None:
        """Trust on first use: the key is stored and reported."""
        with self._lock:
            self._add(entry, [key])
        self._new_key(f"{name}: new host key {fingerprint(key)}, stored in {self.path}")

    def trust(self, entry: str, lines: Iterable[str]) -> bool:
        """Stores keys from a trusted source, in the format of .pub files; returns whether any was valid."""
        keys = [key for key in map(parse_key, lines) if key]
        with self._lock:
            known: Mapping[str, paramiko.PKey] = self._known().lookup(entry) or {}
            self._add(entry, [key for key in keys if known.get(key.get_name()) != key])
        return bool(keys)

    def knows(self, entry: str) -> bool:
        with self._lock:
            return bool(self._known().lookup(entry))

    def _known(self) -> paramiko.HostKeys:
        if self._keys is None:
            self._keys = self._read()
        return self._keys

    def _add(self, entry: str, keys: Iterable[paramiko.PKey]) -> None:
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
        for key in keys:
            self._known().add(entry, key.get_name(), key)


def parse_key(line: str) -> paramiko.PKey | None:
    """The key in a line such as `ssh-ed25519 AAAA… root@host`; None if it is not a key or not complete."""
    words = line.split()
    try:
        data = base64.b64decode(words[1], validate=True)
        key = paramiko.PKey.from_type_string(words[0], data)
        return key if key.asbytes() == data else None
    except (IndexError, ValueError, OverflowError, paramiko.SSHException, paramiko.pkey.UnknownKeyType):
        return None


class _Remember(paramiko.MissingHostKeyPolicy):
    def __init__(self, known: KnownHosts, entry: str, name: str) -> None:
        self._known = known
        self._entry = entry
        self._name = name

    def missing_host_key(self, client: paramiko.SSHClient, hostname: str, key: paramiko.PKey) -> None:
        self._known.remember(self._entry, self._name, key)


def fingerprint(key: paramiko.PKey) -> str:
    """The type and the SHA-256 fingerprint of a key, as `ssh-keygen -l` prints it."""
    return f"{key.get_name()} {key.fingerprint}"
