"""The course's own authority for browsers."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloudscale.errors import RequestError
from cloudscale.gateway import authority
from cloudscale.gateway.authority import is_ours, is_valid, web_authority


def test_it_is_made_once_and_its_key_is_for_the_trainer_alone(tmp_path: Path) -> None:
    first, second = web_authority(tmp_path, "bio"), web_authority(tmp_path, "bio")
    assert first.pem == second.pem
    assert stat.S_IMODE((tmp_path / "web-ca-key.pem").stat().st_mode) == 0o600
    assert first.fingerprint == first.certificate.fingerprint(hashes.SHA256()).hex(":").upper()


@pytest.mark.parametrize("host", ["class.example.org", "192.0.2.7", "2001:db8::7"])
def test_its_intermediate_signs_for_the_class_alone(tmp_path: Path, host: str) -> None:
    root = web_authority(tmp_path, "bio")
    pem, key = root.intermediate([host])
    certificate = x509.load_pem_x509_certificate(pem)
    certificate.verify_directly_issued_by(root.certificate)
    assert b"PRIVATE KEY" in key
    names = certificate.extensions.get_extension_for_class(x509.NameConstraints)
    assert names.critical
    permitted, excluded = names.value.permitted_subtrees or [], names.value.excluded_subtrees or []
    assert len(permitted) == 1 and str(permitted[0].value) in (host, f"{host}/32", f"{host}/128")
    assert {type(name) for name in (*permitted, *excluded)} == {x509.DNSName, x509.IPAddress}  # every kind is limited
    limits = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
    assert limits.ca and limits.path_length == 0


def test_an_intermediate_is_used_again_while_it_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other").mkdir()
    root, other = web_authority(tmp_path, "bio"), web_authority(tmp_path / "other", "bio")
    pem, _ = root.intermediate(["192.0.2.7"])
    assert is_valid(pem, root, "192.0.2.7")
    assert not is_valid(pem, root, "192.0.2.8")
    assert not is_valid(pem, other, "192.0.2.7")
    assert not is_valid(b"damaged", root, "192.0.2.7")
    assert not is_valid(root.pem, root, "192.0.2.7")
    monkeypatch.setattr(authority, "INTERMEDIATE_LIFE", datetime.timedelta(days=100))
    assert not is_valid(root.intermediate(["192.0.2.7"])[0], root, "192.0.2.7")


def test_what_it_signs_is_recognised(tmp_path: Path) -> None:
    root = web_authority(tmp_path, "bio")
    pem, key = root.intermediate(["192.0.2.7"])
    intermediate = x509.load_pem_x509_certificate(pem)
    signer = serialization.load_pem_private_key(key, password=None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(intermediate.subject)
        .public_key(signer.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(signer, hashes.SHA256())
    )
    assert is_ours(signed)
    assert not is_ours(root.certificate) and not is_ours(intermediate)


@pytest.mark.parametrize("name", ["web-ca.pem", "web-ca-key.pem"])
def test_damaged_files_are_named(tmp_path: Path, name: str) -> None:
    web_authority(tmp_path, "bio")
    (tmp_path / name).write_bytes(b"damaged")
    with pytest.raises(RequestError, match=r"web-ca\.pem") as refused:
        web_authority(tmp_path, "bio")
    assert str(tmp_path) in str(refused.value)
