"""The course's own authority for browsers, which signs the gateway's certificates where no other one does.

It is another authority than that of the engines (engines/certificates.py): whoever trusts it in a browser must not
have to trust the engines' too. Its key stays in the course's folder. The gateway gets the key of an intermediate
authority, which can sign for the class's own address alone (name constraints, RFC 5280, 4.2.1.10).
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudscale.errors import RequestError
from cloudscale.files import make_once

DAY = datetime.timedelta(days=1)
ROOT = "web-ca.pem"  # in the course's folder
INTERMEDIATE = "cloudscale gateway"
LIFE = 3650 * DAY
INTERMEDIATE_LIFE = 397 * DAY
INTERMEDIATE_RENEWAL = 180 * DAY  # before it expires
SKEW = DAY  # valid from a day ago: a browser's clock may be behind


@dataclass(frozen=True)
class WebAuthority:
    """The course's own authority for browsers."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey = field(repr=False)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def fingerprint(self) -> str:
        """As browsers show it: SHA-256, in pairs of hexadecimal digits."""
        return self.certificate.fingerprint(hashes.SHA256()).hex(":").upper()

    def intermediate(self, hosts: Iterable[str]) -> tuple[bytes, bytes]:
        """The certificate and key, both PEM, of an authority for these names and addresses, and names below them."""
        key = ec.generate_private_key(ec.SECP256R1())
        permitted = [_constraint(host) for host in hosts]
        # without an entry of a kind, all names of that kind would be permitted
        kinds = {type(name) for name in permitted}
        excluded: list[x509.GeneralName] = []
        if x509.IPAddress not in kinds:
            excluded += [
                x509.IPAddress(ipaddress.ip_network("0.0.0.0/0")),
                x509.IPAddress(ipaddress.ip_network("::/0")),
            ]
        if x509.DNSName not in kinds:
            excluded.append(x509.DNSName(""))
        certificate = (
            _authority(INTERMEDIATE, INTERMEDIATE_LIFE, key, path_length=0)
            .issuer_name(self.certificate.subject)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), critical=False)
            .add_extension(x509.NameConstraints(permitted, excluded or None), critical=True)
            .sign(self.key, hashes.SHA256())
        )
        return certificate.public_bytes(serialization.Encoding.PEM), _key_pem(key)


def web_authority(folder: Path, course: str) -> WebAuthority:
    """The course's authority for browsers, made if there is none. Raises RequestError if its files are wrong."""
    try:
        key_pem = make_once(folder / "web-ca-key.pem", lambda: _key_pem(ec.generate_private_key(ec.SECP256R1())))
        key = serialization.load_pem_private_key(key_pem, password=None)
        if not isinstance(key, ec.EllipticCurvePrivateKey):
            raise ValueError("its key is not on an elliptic curve")
        pem = make_once(folder / ROOT, lambda: _new_root(course, key))
        return WebAuthority(x509.load_pem_x509_certificate(pem), key)
    except (OSError, ValueError, TypeError) as error:
        raise RequestError(
            f"The course's web-ca.pem and web-ca-key.pem in {folder} can't be used ({error}).",
            "Restore them; or remove both: a new authority is made, which students have to trust again.",
        ) from None


def _new_root(course: str, key: ec.EllipticCurvePrivateKey) -> bytes:
    name = f"cloudscale {course} ({_short(key)})"
    builder = _authority(name, LIFE, key, path_length=1).issuer_name(_subject(name))
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _short(key: ec.EllipticCurvePrivateKey) -> str:
    """Tells authorities of one name apart in a browser's list."""
    return x509.SubjectKeyIdentifier.from_public_key(key.public_key()).digest.hex()[:6]


def _authority(
    name: str, life: datetime.timedelta, key: ec.EllipticCurvePrivateKey, *, path_length: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    usage = dict.fromkeys(
        (
            "content_commitment",
            "key_encipherment",
            "data_encipherment",
            "key_agreement",
            "encipher_only",
            "decipher_only",
        ),
        False,
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SKEW)
        .not_valid_after(now + life)
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(digital_signature=False, key_cert_sign=True, crl_sign=True, **usage), critical=True
        )
    )


def _subject(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])  # 64: RFC 5280, ub-common-name


def _constraint(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_network(host))  # of one address
    except ValueError:
        return x509.DNSName(host)


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def is_ours(certificate: x509.Certificate) -> bool:
    """Whether a certificate is from a gateway's own intermediate authority. By its name only: for a message."""
    return certificate.issuer == _subject(INTERMEDIATE)


def is_valid(certificate: bytes, authority: WebAuthority, host: str) -> bool:
    """Whether an intermediate authority (PEM) is of this root, for this host, and valid for a while."""
    try:
        own = x509.load_pem_x509_certificate(certificate)
        own.verify_directly_issued_by(authority.certificate)
        permitted = own.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    left = own.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    return _constraint(host) in (permitted or ()) and left > INTERMEDIATE_RENEWAL
