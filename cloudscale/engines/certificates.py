"""A course's own certificate authority. Its certificates identify the course's engines, and those who may use them.

The authority's key stays in the course's folder. All keys are on the curve P-256, which every engine supports.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from cloudscale.errors import RequestError
from cloudscale.files import make_once, replace_file

DAY = datetime.timedelta(days=1)
AUTHORITY_LIFE = 3650 * DAY
LIFE = 397 * DAY  # of a server's or client's certificate; some TLS stacks refuse a longer one
RENEWAL = 30 * DAY  # before it expires
SKEW = DAY  # valid from a day ago, so that a host whose clock is behind accepts a new certificate
LONGEST_NAME = 64  # characters of a common name (RFC 5280, ub-common-name)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key, both PEM."""

    certificate: bytes
    key: bytes = field(repr=False)


@dataclass(frozen=True)
class Authority:
    """Signs for one course. `folder` has ca.pem, ca-key.pem, and client.pem: the trainer's certificate and key."""

    folder: Path
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def ca_file(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def client_files(self) -> tuple[Path, Path]:
        """The trainer's certificate and key, for docker-py: one file, so that both are renewed in one step."""
        return self.folder / "client.pem", self.folder / "client.pem"

    def prepare_docker(self) -> Path:
        """A folder for docker's command line (DOCKER_CERT_PATH). Raises OSError."""
        for name in ("cert.pem", "key.pem"):  # docker reads its part of a file that has both
            with contextlib.suppress(FileExistsError):
                (self.folder / name).symlink_to(self.client_files[0].name)
        return self.folder

    @property
    def pem(self) -> bytes:
        return _pem(self.certificate)

    @property
    def fingerprint(self) -> str:
        """Identifies the authority: SHA-256 of its certificate, in hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()

    def server(self, name: str, addresses: Iterable[str]) -> Pair:
        """A certificate for an engine with these addresses and names."""
        return self._issue(name, [ExtendedKeyUsageOID.SERVER_AUTH], LIFE, addresses)

    def client(self, name: str, life: datetime.timedelta = LIFE) -> Pair:
        """A certificate for someone who may use the course's engines."""
        return self._issue(name, [ExtendedKeyUsageOID.CLIENT_AUTH], life, [])

    def _issue(
        self, name: str, usage: list[x509.ObjectIdentifier], life: datetime.timedelta, addresses: Iterable[str]
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = (
            _builder(name, min(_now() + life, self.certificate.not_valid_after_utc))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usage), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                critical=False,
            )
        )
        if names := [_general_name(address) for address in sorted(set(addresses))]:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        return Pair(_pem(builder.sign(self.key, hashes.SHA256())), _key_pem(key))

    def fault(self, certificate: bytes, addresses: Iterable[str] = ()) -> str:
        """Why a certificate has to be renewed, as a predicate; empty if it is valid for all these addresses."""
        own = self._signed(certificate)
        if own is None:
            return "is not signed by this course"
        now = _now()
        if own.not_valid_after_utc - now < RENEWAL:
            return f"expires on {own.not_valid_after_utc:%Y-%m-%d}"
        if own.not_valid_before_utc > now:
            return f"is not valid before {own.not_valid_before_utc:%Y-%m-%d}"
        with contextlib.suppress(x509.ExtensionNotFound):
            held = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            addresses = [address for address in addresses if _general_name(address) not in held]
        missing = sorted(addresses)
        return f"does not name {', '.join(missing)}" if missing else ""

    def client_fault(self) -> str:
        """The same of the trainer's own certificate. Raises OSError."""
        client = self.client_files[0]
        return self.fault(client.read_bytes()) if client.exists() else "is missing"

    def names(self, certificate: bytes) -> frozenset[str]:
        """The addresses and names that a certificate of this authority is for; of another's, none count."""
        own = self._signed(certificate)
        with contextlib.suppress(x509.ExtensionNotFound):
            if own:
                held = own.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
                of_type = held.get_values_for_type
                return frozenset([*of_type(x509.DNSName), *map(str, of_type(x509.IPAddress))])
        return frozenset()

    def _signed(self, certificate: bytes) -> x509.Certificate | None:
        with contextlib.suppress(ValueError, TypeError, InvalidSignature):
            own = x509.load_pem_x509_certificate(certificate)
            own.verify_directly_issued_by(self.certificate)
            return own
        return None


def authority(folder: Path, course: str, *, create: bool = True, renew: bool = True) -> Authority | None:
    """The course's authority, with the trainer's certificate. Without one, it is made (`create`) or the result is None.

    With `renew` false, the trainer's certificate stays as it is. If several runs make the authority at the same time,
    all of them get the same one. Raises RequestError if the files in the folder can't be used.
    """
    try:
        if not create and not (folder / "ca.pem").exists():
            return None
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if (folder / "ca.pem").exists() and not (folder / "ca-key.pem").exists():
            raise ValueError("ca-key.pem is missing")
        key_pem = make_once(folder / "ca-key.pem", lambda: _key_pem(ec.generate_private_key(ec.SECP256R1())))
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("the key in ca-key.pem is not on an elliptic curve")
        pem = make_once(folder / "ca.pem", lambda: _pem(_new_authority(course, key)))
        signer = Authority(folder, x509.load_pem_x509_certificate(pem), key)
        if key.public_key() != signer.certificate.public_key():
            raise ValueError("ca.pem and ca-key.pem do not belong together")
        if renew and signer.client_fault():
            pair = signer.client("cloudscale trainer")
            replace_file(signer.client_files[0], pair.certificate + pair.key)
        return signer
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(
            f"The course's certificates in {folder} can't be used ({error}).",
            "Restore the files that the course was made with. Without them the course's engines can't be used.",
        ) from None


def _new_authority(course: str, key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = f"cloudscale {course}"
    return (
        _builder(name, _now() + AUTHORITY_LIFE)
        .issuer_name(_subject(name))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .sign(key, hashes.SHA256())
    )


def _builder(name: str, end: datetime.datetime) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .serial_number(x509.random_serial_number())
        .not_valid_before(_now() - SKEW)
        .not_valid_after(end)
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:LONGEST_NAME])])


def _general_name(address: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(address.partition("%")[0]))  # a zone (fe80::1%eth0) is local
    except ValueError:
        return x509.DNSName(address.encode("idna").decode())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
