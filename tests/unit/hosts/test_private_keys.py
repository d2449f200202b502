from __future__ import annotations

from pathlib import Path

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa

from cloudscale.errors import RequestError
from cloudscale.hosts.private_keys import Locked, load_private_key, public_part, with_certificate

ED25519 = ed25519.Ed25519PrivateKey.generate()
KEYS = {
    "ed25519": ED25519,
    "rsa": rsa.generate_private_key(65537, 2048),
    "ecdsa": ec.generate_private_key(ec.SECP256R1()),
}
FORMATS = {
    "OpenSSH": serialization.PrivateFormat.OpenSSH,
    "PKCS8": serialization.PrivateFormat.PKCS8,
    "traditional": serialization.PrivateFormat.TraditionalOpenSSL,
}


def pem(key: object, form: str = "OpenSSH", passphrase: str = "") -> bytes:
    lock = serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    text: bytes = key.private_bytes(serialization.Encoding.PEM, FORMATS[form], lock)  # type: ignore[attr-defined]
    return text


def public(key: object) -> bytes:
    text: bytes = key.public_key().public_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
    )
    return text


def write(tmp_path: Path, data: bytes, name: str = "key", mode: int = 0o600) -> Path:
    file = tmp_path / name
    file.write_bytes(data)
    file.chmod(mode)
    return file


def refusal(file: Path, passphrase: str | None = None) -> str:
    with pytest.raises(RequestError) as raised:
        load_private_key(file, passphrase)
    assert str(file) in raised.value.message
    return str(raised.value)


@pytest.mark.parametrize("kind", KEYS)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("passphrase", ["", "it's secret"])
def test_a_key_is_read_in_every_usual_format(tmp_path: Path, kind: str, form: str, passphrase: str) -> None:
    if kind == "ed25519" and form == "traditional":
        pytest.skip("there is no such format")
    file = write(tmp_path, pem(KEYS[kind], form, passphrase))
    key = load_private_key(file, passphrase or None)
    assert f"{key.get_name()} {key.get_base64()}".encode() == public(KEYS[kind])
    assert key.can_sign()
    if passphrase:
        with pytest.raises(Locked, match="has a passphrase"):
            load_private_key(file, None)
        assert "passphrase is wrong" in refusal(file, "wrong")


def test_a_passphrase_that_a_key_does_not_have_is_no_matter(tmp_path: Path) -> None:
    assert load_private_key(write(tmp_path, pem(ED25519)), "secret")


@pytest.mark.parametrize("change", [lambda data: data.replace(b"\n", b"\r\n"), lambda data: b"\xef\xbb\xbf" + data])
def test_a_key_that_windows_wrote_is_read(tmp_path: Path, change: object) -> None:
    assert load_private_key(write(tmp_path, change(pem(ED25519))), None)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("data", "cause", "remedy"),
    [
        (b"", "is empty", "private key"),
        (b" \n", "is empty", "private key"),
        (b"PuTTY-User-Key-File-2: ssh-rsa\r\nEncryption: none\r\n", "a key of PuTTY (.ppk)", "puttygen"),
        (b"PuTTY-User-Key-File-3: ssh-ed25519\n", "a key of PuTTY (.ppk)", "private-openssh"),
        (b"---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----\n", "ssh.com", "ssh-keygen -i"),
        (b"SSH PRIVATE KEY FILE FORMAT 1.1\n\0", "SSH version 1", "ssh-keygen"),
        (public(ED25519), "is a public key", "private key"),
        (b"ssh-ed25519-cert-v01@openssh.com AAAAIHNzaC1l x\n", "is a certificate", "private key"),
        (b"-----BEGIN CERTIFICATE-----\nMIIB\n", "an X.509 certificate", "private key"),
        (b"-----BEGIN PUBLIC KEY-----\nMCow\n", "a public key", "private key"),
        (b"-----BEGIN RSA PUBLIC KEY-----\nMCow\n", "a public key", "private key"),
        (b"---- BEGIN SSH2 PUBLIC KEY ----\n", "a public key", "private key"),
        (b"{}", "is not a private key", "private key"),
        (bytes(range(256)), "is not a private key", "private key"),
        (pem(ED25519)[:150], "it is damaged", "ssh-keygen -y"),
        (pem(ED25519, "PKCS8")[:50], "it is damaged", "ssh-keygen -y"),
        (pem(dsa.generate_private_key(1024), "PKCS8"), "type DSA", "ssh-keygen -t ed25519"),
        (pem(ed448.Ed448PrivateKey.generate(), "PKCS8"), "type Ed448", "ssh-keygen -t ed25519"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_private_key_is_named(tmp_path: Path, data: bytes, cause: str, remedy: str) -> None:
    message = refusal(write(tmp_path, data))
    assert cause in message
    assert remedy in message


def test_a_public_key_points_to_the_private_one_beside_it(tmp_path: Path) -> None:
    private = write(tmp_path, pem(ED25519))
    assert f"Name the private key: {private}" in refusal(write(tmp_path, public(ED25519), "key.pub"))


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert "is a folder" in refusal(tmp_path)
    assert "does not exist" in refusal(tmp_path / "key")


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o666])
def test_a_key_that_others_can_read_is_refused_as_ssh_does(tmp_path: Path, mode: int) -> None:
    message = refusal(write(tmp_path, pem(ED25519), mode=mode))
    assert f"mode {mode:04o}" in message
    assert "chmod 600" in message


def test_the_public_part_is_found_without_the_passphrase(tmp_path: Path) -> None:
    blob = load_private_key(write(tmp_path, pem(ED25519)), None).asbytes()
    assert public_part(write(tmp_path, pem(ED25519, passphrase="secret"), "locked")) == blob
    assert public_part(write(tmp_path, public(ED25519), "key.pub")) == blob
    assert public_part(write(tmp_path, pem(ED25519, "PKCS8", "secret"), "other")) is None
    write(tmp_path, public(ED25519), "other.pub")
    assert public_part(tmp_path / "other") == blob
    assert public_part(tmp_path / "none") is None


def test_a_certificate_beside_a_key_is_used_with_it(tmp_path: Path) -> None:
    file = write(tmp_path, pem(ED25519))
    key = load_private_key(file, None)
    assert with_certificate(key, file) is None
    builder = serialization.ssh.SSHCertificateBuilder().public_key(ED25519.public_key()).serial(1)
    signed = (
        builder.type(serialization.ssh.SSHCertificateType.USER)
        .key_id(b"ann")
        .valid_principals([b"ann"])
        .valid_after(0)
        .valid_before(2**40)
        .sign(ED25519)
    )
    write(tmp_path, signed.public_bytes(), "key-cert.pub")
    certified = with_certificate(key, file)
    assert certified
    assert isinstance(certified.public_blob, paramiko.pkey.PublicBlob)
    assert key.public_blob is None
    write(tmp_path, b"nonsense", "key-cert.pub")
    assert with_certificate(key, file) is None
