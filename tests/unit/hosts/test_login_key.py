from __future__ import annotations

import os
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cloudscale.errors import RequestError
from cloudscale.hosts import login_key
from cloudscale.hosts.login_key import KEY_FILE, SshKey, ssh_key


def made(folder: Path) -> SshKey:
    key = ssh_key(folder, create=True)
    assert key
    return key


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_a_key_is_made_once_and_is_the_same_ever_after(tmp_path: Path) -> None:
    key = made(tmp_path)
    text = key.file.read_bytes()
    assert made(tmp_path) == ssh_key(tmp_path, create=False) == key
    assert key.file.read_bytes() == text
    assert key.file == tmp_path / KEY_FILE
    assert names(tmp_path) == [KEY_FILE]


def test_a_key_is_made_only_when_asked_for(tmp_path: Path) -> None:
    assert ssh_key(tmp_path, create=False) is None
    assert ssh_key(tmp_path / "nowhere", create=False) is None
    assert names(tmp_path) == []


def test_every_course_has_a_key_of_its_own(tmp_path: Path) -> None:
    (tmp_path / "bio").mkdir()
    (tmp_path / "geo").mkdir()
    assert made(tmp_path / "bio").public != made(tmp_path / "geo").public


@pytest.mark.parametrize("umask", [0, 0o022, 0o077])
def test_only_its_owner_reads_the_key_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        key = made(tmp_path)
    finally:
        os.umask(before)
    assert key.file.stat().st_mode & 0o777 == 0o600


def test_the_key_is_one_that_logs_in_and_its_line_one_for_authorized_keys(tmp_path: Path) -> None:
    key = made(tmp_path)
    private = paramiko.Ed25519Key(filename=str(key.file))  # as a login reads it
    kind, encoded, comment = key.public.split(" ")
    assert (kind, encoded, comment) == ("ssh-ed25519", private.get_base64(), "cloudscale")
    assert "\n" not in key.public


def test_the_private_key_is_in_no_representation(tmp_path: Path) -> None:
    key = made(tmp_path)
    secret = key.file.read_text().splitlines()[2]
    assert secret not in repr(key) + key.public + key.fingerprint


@pytest.mark.usefixtures("processes")
@pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="no ssh-keygen to compare with")
def test_openssh_agrees_about_the_key(tmp_path: Path) -> None:
    key = made(tmp_path)
    printed = subprocess.run(["ssh-keygen", "-l", "-f", str(key.file)], capture_output=True, text=True, check=True)
    assert printed.stdout.split()[1] == key.fingerprint
    printed = subprocess.run(["ssh-keygen", "-y", "-f", str(key.file)], capture_output=True, text=True, check=True)
    assert printed.stdout.split()[:2] == key.public.split()[:2]


def test_a_fingerprint_has_opensshs_format() -> None:
    # the output of `ssh-keygen -l` for this key
    public = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHGDAzYpTnNAVOgPJkbRbI+RJb8N9kqVPRVBYsgiRHlm cloudscale"
    assert SshKey(Path(KEY_FILE), public).fingerprint == "SHA256:XesQjObGZx1tRjBS11/lZ0lx7ZvRtNFqZSn9uZfLwfE"


# --- two runs at once ------------------------------------------------------------------------


def meanwhile(monkeypatch: pytest.MonkeyPatch, happens: Callable[[], object]) -> None:
    """Something that happens while a run is about to make the key."""
    generate = ed25519.Ed25519PrivateKey.generate

    def interrupted() -> ed25519.Ed25519PrivateKey:
        monkeypatch.setattr(login_key, "ed25519", ed25519)
        happens()
        return generate()

    fake = SimpleNamespace(Ed25519PrivateKey=SimpleNamespace(generate=interrupted))
    monkeypatch.setattr(login_key, "ed25519", fake)


def test_of_two_runs_at_once_both_have_the_key_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others: list[SshKey] = []
    meanwhile(monkeypatch, lambda: others.append(made(tmp_path)))
    assert made(tmp_path) == others[0]
    assert names(tmp_path) == [KEY_FILE]


def test_however_many_runs_make_it_at_once_the_key_is_one(tmp_path: Path) -> None:
    together = threading.Barrier(8)
    keys: list[SshKey] = []

    def one() -> None:
        together.wait(10)
        keys.append(made(tmp_path))

    threads = [threading.Thread(target=one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(keys) == 8
    assert len({*keys}) == 1
    assert names(tmp_path) == [KEY_FILE]


# --- what goes wrong -------------------------------------------------------------------------


def other_private_key(file: Path, *, password: bytes | None = None) -> None:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    key = ed25519.Ed25519PrivateKey.generate()
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, encryption))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_text("not a key\n"),
        lambda file: file.write_bytes(b"\xff\x00"),
        lambda file: (made(file.parent), file.write_bytes(file.read_bytes()[:200])),
        lambda file: file.write_text(made(file.parent).public),
        lambda file: other_private_key(file, password=b"secret"),
    ],
    ids=["empty", "text", "bytes", "cut", "public", "passphrase"],
)
@pytest.mark.parametrize("create", [False, True])
def test_a_file_that_is_no_key_is_a_wrong_request_and_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], object], create: bool
) -> None:
    file = tmp_path / KEY_FILE
    spoil(file)
    before = file.read_bytes()
    with pytest.raises(RequestError, match="can't be used as the course's SSH key") as raised:
        ssh_key(tmp_path, create=create)
    assert raised.value.exit_code == 2
    assert str(file) in raised.value.message
    assert "Restore the file" in raised.value.remedy
    assert file.read_bytes() == before


def test_a_key_that_was_made_elsewhere_is_used(tmp_path: Path) -> None:
    other_private_key(tmp_path / KEY_FILE)
    before = (tmp_path / KEY_FILE).read_bytes()
    assert made(tmp_path).public.startswith("ssh-ed25519 ")
    assert (tmp_path / KEY_FILE).read_bytes() == before


def test_a_folder_in_the_keys_place_is_reported(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).mkdir()
    with pytest.raises(RequestError, match=r"SSH key .* can't be used: Is a directory"):
        ssh_key(tmp_path, create=True)


def test_a_missing_folder_is_reported(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"can't be used: No such file or directory"):
        ssh_key(tmp_path / "nowhere", create=True)


def test_a_folder_without_links_is_reported_and_keeps_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    with pytest.raises(RequestError, match="can't be used: Operation not permitted"):
        ssh_key(tmp_path, create=True)
    assert names(tmp_path) == []
