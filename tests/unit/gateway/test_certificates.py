"""Where the gateway's certificates come from."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cloudscale.course.settings import GatewaySettings
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.gateway import certificates
from cloudscale.gateway.authority import web_authority
from cloudscale.gateway.certificates import browsers_trust, choose, own_stands_in, read_files
from cloudscale.seats.address import Entrance

NAME, PUBLIC, PRIVATE = "class.example.org", "86.50.1.2", "10.0.0.7"


@pytest.mark.parametrize(
    ("tls", "host", "port", "source", "short"),
    [
        ("auto", NAME, 443, "acme", False),
        ("auto", PUBLIC, 443, "acme", True),
        ("auto", "2001:4860::8", 443, "acme", True),
        ("auto", PRIVATE, 443, "internal", False),
        ("auto", "127.0.0.1", 443, "internal", False),
        ("auto", NAME, 8443, "internal", False),  # no authority comes to such a port
        ("acme", NAME, 8443, "acme", False),
        ("internal", NAME, 443, "internal", False),
        ("a.pem,b.pem", PRIVATE, 443, "files", False),
    ],
)
def test_who_signs_follows_from_the_address(tls: str, host: str, port: int, source: str, short: bool) -> None:
    chosen = choose(GatewaySettings(tls=tls, email="t@example.org"), Entrance(host, port))
    assert (chosen.source, chosen.short) == (source, short)
    assert (chosen.email == "t@example.org") == (source == "acme")


def test_nobody_signs_for_an_address_inside_a_site() -> None:
    with pytest.raises(RequestError, match="no address of the internet"):
        choose(GatewaySettings(tls="acme"), Entrance(PRIVATE))


class Pair:
    """A certificate and its key in two files."""

    def __init__(self, folder: Path, names: Sequence[str], days: float = 90) -> None:
        self.certificate, self.key = folder / "own.pem", folder / "own.key"
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "somebody")])
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(key.public_key())
            .serial_number(1)
            .not_valid_before(now - datetime.timedelta(days=100))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
            .sign(key, hashes.SHA256())
        )
        self.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        self.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))

    def read(self, *names: str) -> Any:
        return read_files(self.certificate, self.key, names)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def test_files_that_are_for_the_address_are_taken(tmp_path: Path) -> None:
    pair = Pair(tmp_path, [NAME, f"*.{NAME}", PUBLIC])
    for names in ([NAME], [NAME.upper()], [NAME, f"x.{NAME}"], [PUBLIC]):
        assert pair.read(*names).chain == pair.certificate.read_bytes()
    assert pair.read(NAME).warning == ""


@pytest.mark.parametrize("name", ["other.example.org", f"x.y.{NAME}", PRIVATE])
def test_files_for_another_address_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RequestError, match=name):
        Pair(tmp_path, [NAME, f"*.{NAME}"]).read(name)


def test_files_that_expire_soon_are_said_and_those_that_have_are_refused(tmp_path: Path) -> None:
    assert "expires on" in Pair(tmp_path, [NAME], days=5).read(NAME).warning
    with pytest.raises(RequestError, match="expired on"):
        Pair(tmp_path, [NAME], days=-1).read(NAME)


def test_files_that_are_no_pair_are_refused(tmp_path: Path) -> None:
    pair = Pair(tmp_path, [NAME])
    (tmp_path / "other").mkdir()
    other = Pair(tmp_path / "other", [NAME])
    with pytest.raises(RequestError, match="not the key of"):
        read_files(pair.certificate, other.key, [NAME])
    with pytest.raises(RequestError, match="not a certificate and its key"):
        read_files(pair.key, pair.certificate, [NAME])
    with pytest.raises(RequestError, match="No such file"):
        read_files(tmp_path / "none", pair.key, [NAME])


# --- what browsers trust ---------------------------------------------------------------------


def trusted(context: ssl.SSLContext) -> tuple[int, int]:
    """How many authorities, and how many certificates of servers."""
    counts = context.cert_store_stats()
    return counts["x509_ca"], counts["x509"] - counts["x509_ca"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A course's, on a computer that trusts one other server."""
    web_authority(tmp_path, "bio")
    (tmp_path / "system").mkdir()
    monkeypatch.setenv("SSL_CERT_FILE", str(Pair(tmp_path / "system", ["x"]).certificate))
    monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)
    return tmp_path


def test_where_the_courses_own_authority_signs_it_alone_is_trusted(folder: Path) -> None:
    context = browsers_trust(GatewaySettings(tls="internal"), Entrance(PRIVATE), folder)
    assert trusted(context) == (1, 0)
    assert context.check_hostname and context.verify_mode == ssl.CERT_REQUIRED


def test_where_another_authority_signs_the_courses_own_may_stand_in(folder: Path) -> None:
    assert trusted(browsers_trust(GatewaySettings(tls="acme"), Entrance(NAME), folder)) == (1, 1)
    (folder / "web-ca.pem").unlink()
    assert trusted(browsers_trust(GatewaySettings(tls="acme"), Entrance(NAME), folder)) == (0, 1)


def test_the_trainers_own_certificate_is_trusted_where_it_is_the_one_that_is_shown(folder: Path) -> None:
    pair = Pair(folder, [NAME])
    settings = GatewaySettings(tls=f"{pair.certificate},{pair.key}")
    assert trusted(browsers_trust(settings, Entrance(NAME), folder)) == (0, 2)
    pair.certificate.unlink()  # on another trainer's computer
    assert trusted(browsers_trust(settings, Entrance(NAME), folder)) == (0, 1)


@pytest.mark.parametrize("content", [None, b"", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"])
def test_an_authority_that_can_not_be_read_is_named(folder: Path, content: bytes | None) -> None:
    (folder / "web-ca.pem").unlink()
    if content is not None:
        (folder / "web-ca.pem").write_bytes(content)
    with pytest.raises(CloudscaleError, match=r"can't be read") as raised:
        browsers_trust(GatewaySettings(tls="internal"), Entrance(PRIVATE), folder)
    assert "web-ca.pem" in raised.value.remedy


def test_that_the_courses_own_authority_stands_in_is_known_by_what_the_gateway_shows(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signer, key = web_authority(folder, "bio").intermediate([NAME])
    issuer = x509.load_pem_x509_certificate(signer).subject
    private = serialization.load_pem_private_key(key, None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    ours = (
        x509.CertificateBuilder()
        .subject_name(issuer)
        .issuer_name(issuer)
        .public_key(private.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(private, hashes.SHA256())
    )
    theirs = x509.load_pem_x509_certificate(Pair(folder / "system", [NAME]).certificate.read_bytes())
    for found, tls, stands_in in (
        (ours, "acme", True),
        (ours, "internal", False),
        (theirs, "acme", False),
        (None, "acme", False),
    ):
        monkeypatch.setattr(certificates, "shown", lambda address, entrance, found=found: found)
        assert own_stands_in(GatewaySettings(tls=tls), Entrance(NAME), PUBLIC) is stands_in
