"""The folder of a course's certificates."""

from __future__ import annotations

import datetime
import os
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from cloudscale.engines.certificates import Authority, authority
from cloudscale.errors import RequestError
from tests.unit.engines.authorities import made

DAY = datetime.timedelta(days=1)
FILES = ["ca-key.pem", "ca.pem", "client.pem"]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_all_files_are_their_owners_alone(bio: Authority) -> None:
    assert sorted(contents(bio.folder)) == FILES
    assert {path.stat().st_mode & 0o777 for path in bio.folder.iterdir()} == {0o600}
    assert bio.folder.stat().st_mode & 0o777 == 0o700


def test_the_files_are_those_for_a_client(bio: Authority) -> None:
    certificate, key = bio.client_files
    own = x509.load_pem_x509_certificate(certificate.read_bytes())
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    assert own.public_key() == private.public_key()
    assert bio.fault(certificate.read_bytes()) == ""
    assert bio.ca_file.read_bytes() == bio.pem


def test_the_next_run_finds_it_as_it_was(bio: Authority) -> None:
    before = contents(bio.folder)
    for create in (True, False):
        again = authority(bio.folder, "bio", create=create)
        assert again
        assert again.fingerprint == bio.fingerprint
    assert contents(bio.folder) == before


def test_without_create_nothing_is_made(tmp_path: Path) -> None:
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
    test_the_files_are_those_for_a_client(made(bio.folder))


def test_certificate_and_key_are_one_file_which_a_renewal_replaces_whole(
    bio: Authority, wait: Callable[[datetime.timedelta], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    # two files are, in between, a certificate with the key of another
    replaced: list[str] = []
    replace = os.replace

    def record(source: Path, target: Path) -> None:
        assert target.exists()
        replaced.append(target.name)
        replace(source, target)

    monkeypatch.setattr(os, "replace", record)
    wait(380 * DAY)
    test_the_files_are_those_for_a_client(made(bio.folder))
    assert replaced == ["client.pem"]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(*bio.client_files)  # which refuses a key of another


def test_a_run_that_was_interrupted_after_the_key_is_finished(bio: Authority) -> None:
    (bio.folder / "ca.pem").unlink()
    test_the_files_are_those_for_a_client(made(bio.folder))


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
def test_files_that_are_no_authority_are_reported_and_not_changed(
    bio: Authority, name: str, data: Callable[[], bytes]
) -> None:
    (bio.folder / name).write_bytes(data())
    before = contents(bio.folder)
    for create in (True, False):
        with pytest.raises(RequestError, match=r"certificates in .*bio can't be used") as raised:
            authority(bio.folder, "bio", create=create)
        assert "Restore the files" in raised.value.remedy
    assert contents(bio.folder) == before


@pytest.mark.parametrize("create", [True, False])
def test_a_folder_that_was_copied_without_the_authoritys_key_is_reported_and_not_changed(
    bio: Authority, create: bool
) -> None:
    # a new one in its place could never use the engines again
    (bio.folder / "ca-key.pem").unlink()
    before = contents(bio.folder)
    with pytest.raises(RequestError, match="can't be used"):
        authority(bio.folder, "bio", create=create)
    assert contents(bio.folder) == before


def test_a_folder_that_can_not_be_written_to_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RequestError, match="can't be used"):
        authority(tmp_path / "file" / "bio", "bio")


def test_a_trainers_certificate_that_can_not_be_read_is_reported(bio: Authority) -> None:
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
        folder, results = tmp_path / str(at), list[str]()
        start = threading.Barrier(6)

        def run(folder: Path = folder, results: list[str] = results, start: threading.Barrier = start) -> None:
            start.wait(10)
            try:
                results.append(made(folder).fingerprint)
            except RequestError as error:
                results.append(str(error))

        threads = [threading.Thread(target=run) for _ in range(start.parties)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert results == [made(folder).fingerprint] * len(threads)
        assert sorted(contents(folder)) == FILES
        test_the_files_are_those_for_a_client(made(folder))


def test_no_key_is_in_a_representation(bio: Authority) -> None:
    assert "PRIVATE" not in repr(bio.client("x"))
    assert "PrivateKey" not in repr(bio)


def test_who_only_looks_gets_no_new_certificate(bio: Authority) -> None:
    bio.client_files[0].unlink()
    looking = authority(bio.folder, "bio", create=False, renew=False)
    assert looking and looking.client_fault() == "is missing"
    assert sorted(contents(bio.folder)) == ["ca-key.pem", "ca.pem"]
    renewed = authority(bio.folder, "bio", create=False)
    assert renewed and renewed.client_fault() == ""
