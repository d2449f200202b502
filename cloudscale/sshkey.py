"""The course's own SSH key: what the machines that are made for it let in."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cloudscale.errors import RequestError

KEY_FILE = "id_ed25519"


@dataclass(frozen=True)
class SshKey:
    """`file` holds the private key, `public` is the line for authorized_keys."""

    file: Path
    public: str

    @property
    def fingerprint(self) -> str:
        """As ssh-keygen -l shows it."""
        digest = hashlib.sha256(base64.b64decode(self.public.split()[1])).digest()
        return f"SHA256:{base64.b64encode(digest).decode().rstrip('=')}"


def ssh_key(folder: Path, *, create: bool) -> SshKey | None:
    """The key in the course's folder, made on first use (`create`), else None where there is none.

    Raises RequestError where the file is not that.
    """
    file = folder / KEY_FILE
    try:
        if not file.exists():
            if not create:
                return None
            _write(file, ed25519.Ed25519PrivateKey.generate())
        private = serialization.load_ssh_private_key(file.read_bytes(), password=None)
    except OSError as error:
        raise RequestError(f"The course's SSH key {file} can't be used: {error.strerror}.") from None
    except (ValueError, TypeError) as error:
        raise RequestError(
            f"{file} is not the course's SSH key ({error}).", "Put back the file that the course was made with."
        ) from None
    public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return SshKey(file, f"{public.decode()} cloudscale")


def _write(file: Path, key: ed25519.Ed25519PrivateKey) -> None:
    """Linked into place whole, so that of two runs at once both read the same key."""
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    temporary = file.with_name(f"{file.name}.{secrets.token_hex(8)}")
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(text)
    try:
        with contextlib.suppress(FileExistsError):
            os.link(temporary, file)
    finally:
        temporary.unlink()
