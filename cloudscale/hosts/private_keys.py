"""Files with private keys: which kind each is, and why one can't be used."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import io
import os
import re
from pathlib import Path

import paramiko
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from cloudscale.errors import RequestError
from cloudscale.hosts.known_hosts import parse_key

LARGEST = 2**20  # bytes: no private key is larger
PRIVATE = re.compile(rb"-----BEGIN ([A-Z0-9 ]*)PRIVATE KEY-----")
PUBLIC = re.compile(rb"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+ AAAA")
CERTIFICATE = re.compile(rb"\S+-cert-v0[01]@openssh\.com AAAA")
MAGIC = b"openssh-key-v1\0"  # OpenSSH, PROTOCOL.key
# what else a file may be, by how it begins → the remedy
OTHERS = {
    rb"PuTTY-User-Key-File-": (
        "a key of PuTTY (.ppk)",
        "Convert it with puttygen: puttygen {file} -O private-openssh -o {stem}",
    ),
    rb"---- BEGIN SSH2 (ENCRYPTED )?PRIVATE KEY": (
        "a key of ssh.com's SSH",
        "Convert it: ssh-keygen -i -f {file} > {stem}",
    ),
    rb"SSH PRIVATE KEY FILE FORMAT 1": ("a key of SSH version 1, which no server takes", "Make another: ssh-keygen"),
    rb"-----BEGIN CERTIFICATE-----": (
        "an X.509 certificate, not a private key",
        "Name the file with the private key.",
    ),
    rb"-----BEGIN ([A-Z]+ )?PUBLIC KEY-----|---- BEGIN SSH2 PUBLIC KEY": (
        "a public key",
        "Name the file with the private key.",
    ),
}


class Locked(RequestError):
    """A key has a passphrase, and none was given."""


class NotPrivate(RequestError):
    """A file has a public key, or does not exist: the agent may have the private one."""


def load_private_key(file: Path, passphrase: str | None) -> paramiko.PKey:
    """The key in a file, in OpenSSH's or any PEM format. Raises RequestError, which says what the file is instead."""
    return _load(file, passphrase)


@functools.lru_cache(maxsize=64)  # a passphrase is slow to check, and a class has many hosts
def _load(file: Path, passphrase: str | None) -> paramiko.PKey:
    data = _read(file)
    kind = PRIVATE.search(data)
    if not kind:
        raise _no_private_key(file, data)
    load = serialization.load_ssh_private_key if kind[1] == b"OPENSSH " else serialization.load_pem_private_key
    start = data[kind.start() :].replace(b"\r\n", b"\n")
    password = passphrase.encode() if passphrase else None
    try:
        try:
            loaded = load(start, password)
        except TypeError:
            if password is None:
                raise Locked(
                    f"The key file {file} has a passphrase, and the SSH agent does not have the key.",
                    f"Load it into your agent: ssh-add {file}. Or give the passphrase as the password.",
                ) from None
            loaded = load(start, None)  # the key has none
    except UnsupportedAlgorithm as error:
        raise RequestError(
            f"The key file {file} can't be used ({error}).", "Use a key of the type ed25519, ECDSA or RSA."
        ) from None
    except ValueError:
        cause = "the passphrase is wrong, or it is damaged" if password else "it is damaged"
        raise RequestError(
            f"The key file {file} can't be read ({cause}).", f"Check it and its passphrase: ssh-keygen -y -f {file}"
        ) from None
    return _converted(file, loaded)


def _converted(file: Path, loaded: object) -> paramiko.PKey:
    """paramiko reads OpenSSH's own format only, for some types of keys."""
    kinds: dict[type, type[paramiko.PKey]] = {
        rsa.RSAPrivateKey: paramiko.RSAKey,
        ed25519.Ed25519PrivateKey: paramiko.Ed25519Key,
        ec.EllipticCurvePrivateKey: paramiko.ECDSAKey,
    }
    kind = next((ours for theirs, ours in kinds.items() if isinstance(loaded, theirs)), None)
    if kind is None:
        name = type(loaded).__name__.removesuffix("PrivateKey").lstrip("_")
        raise RequestError(
            f"The key file {file} has a key of the type {name}, which SSH servers do not take.",
            "Use a key of the type ed25519, ECDSA or RSA: ssh-keygen -t ed25519",
        )
    text = loaded.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return kind.from_private_key(io.StringIO(text.decode()))


def with_certificate(key: paramiko.PKey, file: Path) -> paramiko.PKey | None:
    """The key with the certificate that lies beside its file; None if there is none."""
    certificate = Path(f"{file}-cert.pub")
    certified = copy.copy(key)
    with contextlib.suppress(paramiko.SSHException, ValueError, OSError):
        if certificate.is_file():
            certified.load_certificate(str(certificate))
            return certified
    return None


def public_part(file: Path) -> bytes | None:
    """The public key of a file with a locked private key or with a public key alone, for the agent; None if unknown."""
    for candidate in (file, Path(f"{file}.pub")):
        with contextlib.suppress(OSError, ValueError):
            if key := parse_key(candidate.read_text(errors="replace").partition("\n")[0]):
                return key.asbytes()
    with contextlib.suppress(OSError, ValueError):
        text = re.sub(rb"-----[^-]+-----|\s", b"", file.read_bytes())
        data = base64.b64decode(text)
        if data.startswith(MAGIC):
            message = paramiko.Message(data[len(MAGIC) :])
            for _ in ("cipher", "kdf", "its options"):
                message.get_string()
            return message.get_string() if message.get_int() == 1 else None
    return None


def _read(file: Path) -> bytes:
    """The file's content. Raises RequestError if it can't be read, or if others can."""
    try:
        if file.is_dir():
            raise RequestError(f"The key file {file} is a folder.", "Name the file with the private key.")
        if not file.exists():
            raise NotPrivate(f"The key file {file} does not exist.", "Check its path.")
        if not file.is_file():
            raise RequestError(f"The key file {file} is not a file.", "Name the file with the private key.")
        with file.open("rb") as opened:
            status = os.fstat(opened.fileno())
            data = opened.read(LARGEST).removeprefix(b"\xef\xbb\xbf")
    except OSError as error:
        raise RequestError(
            f"The key file {file} can't be read ({error.strerror}).", "Make it readable for you alone: chmod 600"
        ) from None
    if not data.strip():
        raise RequestError(f"The key file {file} is empty.", "Name the file with the private key.")
    if PRIVATE.search(data) and status.st_uid == os.getuid() and status.st_mode & 0o077:
        raise RequestError(
            f"The key file {file} can be read by others (mode {status.st_mode & 0o777:04o}), so ssh refuses it.",
            f"Make it readable for you alone: chmod 600 {file}",
        )
    return data


def _no_private_key(file: Path, data: bytes) -> RequestError:
    start = data.lstrip()
    if CERTIFICATE.match(start):
        return RequestError(
            f"The key file {file} is a certificate, not a private key.",
            "Name the file with the private key; a certificate beside it, named …-cert.pub, is used with it.",
        )
    if PUBLIC.match(start):
        private = file.with_suffix("") if file.suffix == ".pub" else None
        has_private = private is not None and private.is_file()
        return NotPrivate(
            f"The key file {file} is a public key, and the SSH agent does not have its private key.",
            f"Name the private key: {private}" if has_private else "Name the file with the private key.",
        )
    for pattern, (kind, remedy) in OTHERS.items():
        if re.match(pattern, start):
            stem = file.with_suffix(".key") if file.suffix != ".key" else Path(f"{file}.openssh")
            return RequestError(f"The key file {file} is {kind}.", remedy.format(file=file, stem=stem))
    return RequestError(
        f"The key file {file} is not a private key: it has no line BEGIN … PRIVATE KEY.",
        "Name the file with the private key.",
    )
