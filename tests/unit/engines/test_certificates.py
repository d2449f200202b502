from __future__ import annotations

import datetime
import hashlib
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.engines import certificates
from cloudscale.engines.certificates import Authority, Pair
from tests.unit.engines.authorities import made

DAY = datetime.timedelta(days=1)
HERE = ("192.0.2.11", "2001:db8::11", "host.example")


def names_of(pair: Pair) -> set[str]:
    extensions = x509.load_pem_x509_certificate(pair.certificate).extensions
    names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = {str(address) for address in names.get_values_for_type(x509.IPAddress)}
    return addresses | set(names.get_values_for_type(x509.DNSName))


def end_of(certificate: bytes) -> datetime.datetime:
    return x509.load_pem_x509_certificate(certificate).not_valid_after_utc


# --- in use ----------------------------------------------------------------------------------


def shake_hands(engine: Pair, trusted: Authority, guest: Pair, believed: Authority, host: str, folder: Path) -> None:
    """A TLS handshake in memory, as strict as Python 3.13 is by default. Raises ssl.SSLError."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    server.verify_mode = ssl.CERT_REQUIRED
    for context, pair, ca in ((server, engine, trusted), (client, guest, believed)):
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.load_verify_locations(cadata=ca.pem.decode())
        (folder / "pair.pem").write_bytes(pair.certificate + pair.key)
        context.load_cert_chain(folder / "pair.pem")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        client.wrap_bio(to_client, to_server, server_hostname=host),
        server.wrap_bio(to_server, to_client, server_side=True),
    ]
    for end in ends * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue


@pytest.mark.parametrize("host", HERE)
def test_an_engine_and_the_trainer_trust_each_other_by_every_name(bio: Authority, tmp_path: Path, host: str) -> None:
    shake_hands(bio.server("m1", HERE), bio, bio.client("trainer"), bio, host, tmp_path)


@pytest.mark.parametrize("host", ["192.0.2.12", "2001:db8::12", "other.example"])
def test_an_engine_is_not_taken_for_another_machine(bio: Authority, tmp_path: Path, host: str) -> None:
    with pytest.raises(ssl.SSLError, match="mismatch"):
        shake_hands(bio.server("m1", HERE), bio, bio.client("trainer"), bio, host, tmp_path)


def test_certificates_of_another_course_are_not_trusted(bio: Authority, geo: Authority, tmp_path: Path) -> None:
    for server, client, believed in ((geo, bio, bio), (bio, geo, bio)):
        with pytest.raises(ssl.SSLError, match="verify failed"):
            shake_hands(server.server("m1", HERE), bio, client.client("x"), believed, HERE[0], tmp_path)


def test_an_engine_can_not_speak_to_another_with_its_own_certificate(bio: Authority, tmp_path: Path) -> None:
    # otherwise, control of one machine would give control of all
    with pytest.raises(ssl.SSLError, match="verify failed"):
        shake_hands(bio.server("m1", HERE), bio, bio.server("m2", HERE), bio, HERE[0], tmp_path)


def test_a_client_is_no_engine(bio: Authority, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLError, match="verify failed"):
        shake_hands(bio.client("m1"), bio, bio.client("x"), bio, HERE[0], tmp_path)


def test_what_is_signed_signs_nothing_itself(bio: Authority) -> None:
    for pair in (bio.server("m1", HERE), bio.client("x")):
        extensions = x509.load_pem_x509_certificate(pair.certificate).extensions
        assert not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    own = bio.certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    assert own.critical
    assert (own.value.ca, own.value.path_length) == (True, 0)


# --- names and terms -------------------------------------------------------------------------


def test_a_certificate_names_every_address(bio: Authority) -> None:
    assert names_of(bio.server("m1", HERE)) == {*HERE}


@given(st.sets(st.ip_addresses().map(str), min_size=1, max_size=5))
def test_a_certificate_is_good_for_the_addresses_that_it_was_made_for(
    tmp_path_factory: pytest.TempPathFactory, addresses: set[str]
) -> None:
    signer = made(tmp_path_factory.getbasetemp() / "any")
    certificate = signer.server("m1", addresses).certificate
    assert not signer.fault(certificate, addresses)
    assert "does not name" in signer.fault(certificate, {*addresses, "host.example"})


def test_an_address_counts_however_it_is_written(bio: Authority) -> None:
    certificate = bio.server("m1", ["2001:db8::11"]).certificate
    assert not bio.fault(certificate, ["2001:DB8:0:0::11"])


@pytest.mark.parametrize("host", ["müller.example", "fe80::11%eth0"])
def test_a_host_of_any_name_gets_a_certificate_that_holds(bio: Authority, host: str) -> None:
    assert not bio.fault(bio.server(host, [host]).certificate, [host])


def test_a_name_that_is_too_long_for_the_subject_is_among_the_addresses(bio: Authority) -> None:
    host = ".".join(["m" * 60] * 3)
    assert not bio.fault(bio.server(host, [host]).certificate, [host])


def test_a_host_whose_clock_is_behind_accepts_a_new_certificate(bio: Authority) -> None:
    begin = x509.load_pem_x509_certificate(bio.server("m1", HERE).certificate).not_valid_before_utc
    assert certificates._now() - begin >= DAY


def test_a_guest_has_access_for_a_limited_time(bio: Authority) -> None:
    left = end_of(bio.client("guest", datetime.timedelta(hours=2)).certificate) - certificates._now()
    assert datetime.timedelta(hours=1.9) < left <= datetime.timedelta(hours=2)


def test_nothing_outlives_its_authority(bio: Authority) -> None:
    assert end_of(bio.client("guest", 5000 * DAY).certificate) == bio.certificate.not_valid_after_utc


# --- faults ----------------------------------------------------------------------------------


def test_a_fresh_certificate_has_no_fault(bio: Authority) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert bio.fault(certificate) == bio.fault(certificate, HERE) == bio.fault(certificate, iter(HERE[1:])) == ""
    assert bio.fault(bio.client("x").certificate) == ""


def test_all_missing_names_are_reported(bio: Authority) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert bio.fault(certificate, [*HERE, "b.example", "192.0.2.12"]) == "does not name 192.0.2.12, b.example"
    assert bio.fault(bio.client("x").certificate, ["a.example"]) == "does not name a.example"


@pytest.mark.parametrize("certificate", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_not_of_the_course(bio: Authority, certificate: bytes) -> None:
    assert bio.fault(certificate) == "is not signed by this course"


def test_a_certificate_of_another_course_is_a_fault(bio: Authority, geo: Authority, tmp_path: Path) -> None:
    assert bio.fault(geo.server("m1", HERE).certificate, HERE) == "is not signed by this course"
    namesake = made(tmp_path / "other computer")  # a course of the same name
    assert bio.fault(namesake.server("m1", HERE).certificate, HERE) == "is not signed by this course"


def test_a_certificate_is_renewed_a_month_before_its_end(
    bio: Authority, wait: Callable[[datetime.timedelta], None]
) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert end_of(certificate) - certificates._now() < 398 * DAY  # some TLS stacks refuse more
    wait(366 * DAY)
    assert not bio.fault(certificate)
    wait(368 * DAY)
    assert bio.fault(certificate) == f"expires on {end_of(certificate):%Y-%m-%d}"
    wait(500 * DAY)
    assert bio.fault(certificate).startswith("expires on ")


def test_a_certificate_of_a_trainer_whose_clock_was_ahead_is_a_fault(
    bio: Authority, wait: Callable[[datetime.timedelta], None]
) -> None:
    certificate = bio.server("m1", HERE).certificate
    wait(-3 * DAY)
    assert bio.fault(certificate).startswith("is not valid before ")


def test_an_authority_is_named_by_its_digest(bio: Authority) -> None:
    assert bio.fingerprint == hashlib.sha256(bio.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()
