"""SSH keys: the course's own, which logs in to the machines that are made for it, and those for a single use."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

from cloudscale.errors import RequestError
from cloudscale.files import make_once
from cloudscale.hosts.known_hosts import parse_key

KEY_FILE = "id_ed25519"


@dataclass(frozen=True)
class SshKey:
    """`file` holds the private key, `public` is the line for authorized_keys."""

    file: Path
    public: str

    @property
    def fingerprint(self) -> str:
        """As `ssh-keygen -l` prints it."""
        key = parse_key(self.public)
        assert key
        return str(key.fingerprint)


def ssh_key(folder: Path, *, create: bool) -> SshKey | None:
    """The key in the course's folder. Without one, it is made (`create`) or the result is None.

    Raises RequestError if the file can't be used as the key.
    """
    file = folder / KEY_FILE
    try:
        if not create and not file.exists():
            return None
        private = serialization.load_ssh_private_key(make_once(file, _new_key), password=None)
    except OSError as error:
        raise RequestError(
            f"The course's SSH key {file} can't be used: {error.strerror}.",
            "Check that you may read and write this file and its folder.",
        ) from None
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RequestError(
            f"{file} can't be used as the course's SSH key ({error}).",
            "Restore the file that the course was made with.",
        ) from None
    return SshKey(file, f"{_public(private)} cloudscale")


def passing_key() -> tuple[bytes, str]:
    """A key for a single use: the private one in OpenSSH's format, and the line for authorized_keys."""
    pem = _new_key()
    private = serialization.load_ssh_private_key(pem, password=None)
    return pem, f"{_public(private)} cloudscale-{secrets.token_hex(4)}"


def _public(private: SSHPrivateKeyTypes) -> str:
    encoded = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return encoded.decode()


def _new_key() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
