from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from cloudscale import certificates
from cloudscale.certificates import Authority, Pair, authority
from cloudscale.errors import RequestError

DAY = datetime.timedelta(days=1)
HERE = ("192.0.2.11", "2001:db8::11", "host.example")


def made(folder: Path, course: str = "bio") -> Authority:
    found = authority(folder, course)
    assert found
    return found


@pytest.fixture
def bio(tmp_path: Path) -> Authority:
    return made(tmp_path / "bio")


@pytest.fixture
def geo(tmp_path: Path) -> Authority:
    """Another course's."""
    return made(tmp_path / "geo")


@pytest.fixture
def wait(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime.timedelta], None]:
    """Lets time pass, or turns it back."""
    now = certificates._now

    def pass_by(time: datetime.timedelta) -> None:
        monkeypatch.setattr(certificates, "_now", lambda: now() + time)

    return pass_by


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


def test_nobody_of_another_course_is_trusted(bio: Authority, geo: Authority, tmp_path: Path) -> None:
    for server, client, believed in ((geo, bio, bio), (bio, geo, bio)):
        with pytest.raises(ssl.SSLError, match="verify failed"):
            shake_hands(server.server("m1", HERE), bio, client.client("x"), believed, HERE[0], tmp_path)


def test_an_engine_can_not_speak_to_another_with_its_own_certificate(bio: Authority, tmp_path: Path) -> None:
    # else whoever gets hold of one machine has all of them
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
    assert "it does not name" in signer.fault(certificate, {*addresses, "host.example"})


def test_an_address_counts_however_it_is_written(bio: Authority) -> None:
    certificate = bio.server("m1", ["2001:db8::11"]).certificate
    assert not bio.fault(certificate, ["2001:DB8:0:0::11"])


@pytest.mark.parametrize("host", ["müller.example", "fe80::11%eth0"])
def test_a_host_of_any_name_gets_a_certificate_that_holds(bio: Authority, host: str) -> None:
    assert not bio.fault(bio.server(host, [host]).certificate, [host])


def test_a_name_that_is_too_long_for_the_subject_is_among_the_addresses(bio: Authority) -> None:
    host = ".".join(["m" * 60] * 3)
    assert not bio.fault(bio.server(host, [host]).certificate, [host])


def test_a_host_whose_clock_is_behind_takes_a_new_certificate(bio: Authority) -> None:
    begin = x509.load_pem_x509_certificate(bio.server("m1", HERE).certificate).not_valid_before_utc
    assert certificates._now() - begin >= DAY


def test_a_guest_is_let_in_for_as_long_as_it_takes(bio: Authority) -> None:
    left = end_of(bio.client("guest", datetime.timedelta(hours=2)).certificate) - certificates._now()
    assert datetime.timedelta(hours=1.9) < left <= datetime.timedelta(hours=2)


def test_nothing_outlives_its_authority(bio: Authority) -> None:
    assert end_of(bio.client("guest", 5000 * DAY).certificate) == bio.certificate.not_valid_after_utc


# --- faults ----------------------------------------------------------------------------------


def test_a_fresh_certificate_has_no_fault(bio: Authority) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert bio.fault(certificate) == bio.fault(certificate, HERE) == bio.fault(certificate, iter(HERE[1:])) == ""
    assert bio.fault(bio.client("x").certificate) == ""


def test_all_names_that_are_missing_are_told(bio: Authority) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert bio.fault(certificate, [*HERE, "b.example", "192.0.2.12"]) == "it does not name 192.0.2.12, b.example"
    assert bio.fault(bio.client("x").certificate, ["a.example"]) == "it does not name a.example"


@pytest.mark.parametrize("certificate", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n"])
def test_what_is_no_certificate_is_not_of_the_course(bio: Authority, certificate: bytes) -> None:
    assert bio.fault(certificate) == "it is not of this course"


def test_a_certificate_of_another_course_is_a_fault(bio: Authority, geo: Authority, tmp_path: Path) -> None:
    assert bio.fault(geo.server("m1", HERE).certificate, HERE) == "it is not of this course"
    namesake = made(tmp_path / "other computer")  # a course of the same name
    assert bio.fault(namesake.server("m1", HERE).certificate, HERE) == "it is not of this course"


def test_a_certificate_is_renewed_a_month_before_its_end(
    bio: Authority, wait: Callable[[datetime.timedelta], None]
) -> None:
    certificate = bio.server("m1", HERE).certificate
    assert end_of(certificate) - certificates._now() < 398 * DAY  # some TLS stacks refuse more
    wait(366 * DAY)
    assert not bio.fault(certificate)
    wait(368 * DAY)
    assert bio.fault(certificate) == f"it ends on {end_of(certificate):%Y-%m-%d}"
    wait(500 * DAY)
    assert bio.fault(certificate).startswith("it ends on ")


def test_a_certificate_of_a_trainer_whose_clock_was_ahead_is_a_fault(
    bio: Authority, wait: Callable[[datetime.timedelta], None]
) -> None:
    certificate = bio.server("m1", HERE).certificate
    wait(-3 * DAY)
    assert bio.fault(certificate).startswith("it begins on ")


def test_an_authority_is_named_by_its_digest(bio: Authority) -> None:
    assert bio.fingerprint == hashlib.sha256(bio.certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


# --- the folder ------------------------------------------------------------------------------

FILES = ["ca-key.pem", "ca.pem", "client.pem"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_are_their_owners_alone(bio: Authority) -> None:
    assert sorted(contents(bio.folder)) == FILES
    assert {path.stat().st_mode & 0o777 for path in bio.folder.iterdir()} == {0o600}
    assert bio.folder.stat().st_mode & 0o777 == 0o700


def test_the_files_are_those_that_a_client_is_told_of(bio: Authority) -> None:
    certificate, key = bio.client_files
    found = x509.load_pem_x509_certificate(certificate.read_bytes())
    own = serialization.load_pem_private_key(key.read_bytes(), None)
    assert found.public_key() == own.public_key()
    assert bio.fault(certificate.read_bytes()) == ""
    assert bio.ca_file.read_bytes() == bio.pem


def test_the_next_run_finds_it_as_it_was(bio: Authority) -> None:
    before = contents(bio.folder)
    for create in (True, False):
        again = authority(bio.folder, "bio", create=create)
        assert again
        assert again.fingerprint == bio.fingerprint
    assert contents(bio.folder) == before


def test_whoever_only_looks_makes_nothing(tmp_path: Path) -> None:
    assert authority(tmp_path / "bio", "bio", create=False) is None
    assert not (tmp_path / "bio").exists()


def test_the_trainers_certificate_is_renewed_and_the_authority_stays(
    bio: Authority, wait: Callable[[datetime.timedelta], None]
) -> None:
    before = contents(bio.folder)
    wait(380 * DAY)
    again = made(bio.folder)
    assert again.fingerprint == bio.fingerprint
    assert bio.fault(again.client_files[0].read_bytes()) == ""
    assert {name for name, data in contents(bio.folder).items() if data != before[name]} == {"client.pem"}
    assert {path.stat().st_mode & 0o777 for path in bio.folder.iterdir()} == {0o600}


@pytest.mark.parametrize("data", [None, b"", b"nonsense"])
def test_a_trainer_without_a_certificate_gets_one(bio: Authority, data: bytes | None) -> None:
    if data is None:
        (bio.folder / "client.pem").unlink()
    else:
        (bio.folder / "client.pem").write_bytes(data)
    test_the_files_are_those_that_a_client_is_told_of(made(bio.folder))


def test_certificate_and_key_are_one_file_which_a_renewal_replaces_whole(
    bio: Authority, wait: Callable[[datetime.timedelta], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # two files are, in between, a certificate with the key of another
    replaced: list[str] = []
    replace = os.replace

    def seen(source: Path, target: Path) -> None:
        assert target.exists()
        replaced.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", seen)
    wait(380 * DAY)
    test_the_files_are_those_that_a_client_is_told_of(made(bio.folder))
    assert replaced == ["client.pem"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(*bio.client_files)  # which refuses a key of another


def test_a_run_that_was_cut_off_after_the_key_is_finished(bio: Authority) -> None:
    (bio.folder / "ca.pem").unlink()
    test_the_files_are_those_that_a_client_is_told_of(made(bio.folder))


def rsa_key(password: bytes | None = None) -> bytes:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden)


def ec_key() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("ca.pem", lambda: b""),
        ("ca.pem", lambda: b"nonsense"),
        ("ca-key.pem", lambda: b""),
        ("ca-key.pem", lambda: b"nonsense"),
        ("ca-key.pem", ec_key),
        ("ca-key.pem", rsa_key),
        ("ca-key.pem", lambda: rsa_key(b"secret")),
    ],
    ids=["empty", "no certificate", "empty key", "no key", "another key", "another kind", "a locked key"],
)
def test_files_that_are_no_authority_are_told_and_left_alone(
    bio: Authority, name: str, data: Callable[[], bytes]
) -> None:
    (bio.folder / name).write_bytes(data())
    before = contents(bio.folder)
    for create in (True, False):
        with pytest.raises(RequestError, match=r"certificates in .*bio can't be used") as raised:
            authority(bio.folder, "bio", create=create)
        assert "Put back the files" in raised.value.remedy
    assert contents(bio.folder) == before


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_that_was_copied_without_the_authoritys_key_is_told_and_left_alone(
    bio: Authority, create: bool
) -> None:
    # a new one in its place would lock everybody out of the engines for good
    (bio.folder / "ca-key.pem").unlink()
    before = contents(bio.folder)
    with pytest.raises(RequestError, match="can't be used"):
        authority(bio.folder, "bio", create=create)
    assert contents(bio.folder) == before


def test_a_folder_that_can_not_be_written_to_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="can't be used"):
        authority(tmp_path / "file" / "bio", "bio")


def test_a_trainers_certificate_that_can_not_be_read_is_told(bio: Authority) -> None:
    (bio.folder / "client.pem").unlink()
    (bio.folder / "client.pem").mkdir()
    with pytest.raises(RequestError, match="can't be used"):
        authority(bio.folder, "bio")


def test_a_file_that_could_not_be_written_leaves_nothing_behind(
    bio: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(bio.folder)
    (bio.folder / "client.pem").unlink()

    def full(source: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(RequestError, match="No space left"):
        authority(bio.folder, "bio")
    assert sorted(contents(bio.folder)) == sorted(before.keys() - {"client.pem"})


def test_of_several_runs_at_once_all_have_the_same_authority(tmp_path: Path) -> None:
    for at in range(5):
        folder, found = tmp_path / str(at), list[str]()
        start = threading.Barrier(6)

        def run(folder: Path = folder, found: list[str] = found, start: threading.Barrier = start) -> None:
            start.wait(10)
            try:
                found.append(made(folder).fingerprint)
            except RequestError as error:
                found.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(start.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [made(folder).fingerprint] * len(threads)
        assert sorted(contents(folder)) == FILES
        test_the_files_are_those_that_a_client_is_told_of(made(folder))


def test_no_key_is_in_a_representation(bio: Authority) -> None:
    assert "PRIVATE" not in repr(bio.client("x"))
    assert "PrivateKey" not in repr(bio)
