from __future__ import annotations

import base64
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import paramiko
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.errors import ConnectionFailed, HostKeyChanged
from cloudscale.hosts.known_hosts import KnownHosts, fingerprint, parse_key
from cloudscale.hosts.ssh import connect
from cloudscale.hosts.target import HostKeyRules, Target
from tests.unit.hosts.fake_ssh import KEY, OTHER_KEY, Client, known_hosts, log_in, meet, own_client

# A machine in a cloud: known by its id, at an address that others had before.
CLOUDS = Target("192.0.2.7", user="debian", label="bio-1", alias="4f1c")


@pytest.fixture(autouse=True)  # the user who runs this may have known hosts
def client(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> type[Client]:
    return own_client(monkeypatch, tmp_path)


def line(key: paramiko.PKey, comment: str = "root@bio-1") -> str:
    """As a .pub file has it."""
    return f"{key.get_name()} {key.get_base64()} {comment}"


def lines_of(tmp_path: Path) -> list[list[str]]:
    return [text.split() for text in (tmp_path / "known_hosts").read_text().splitlines()]


# --- trust on first use ----------------------------------------------------------------------


@pytest.mark.parametrize("target", [Target("host"), Target("host", 2222), CLOUDS], ids=lambda target: target.name)
def test_a_new_host_key_is_reported_once_and_stored(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, target: Target
) -> None:
    meet(client, monkeypatch, KEY)
    reports: list[str] = []
    for _ in range(2):
        log_in(target, tmp_path, reports.append)
    assert reports == [f"{target.name}: new host key {fingerprint(KEY)}, stored in {tmp_path / 'known_hosts'}"]
    assert "SHA256:" in reports[0]
    ((entry, kind, encoded),) = lines_of(tmp_path)
    assert (entry, kind) == (target.entry, KEY.get_name())
    assert base64.b64decode(encoded) == KEY.asbytes()


def test_a_host_key_that_changed_is_refused(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host"), tmp_path)
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged, match="ssh-keygen -R"):
        log_in(Target("host"), tmp_path)


def test_a_key_that_the_user_knows_already_is_trusted(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".ssh").mkdir()
    hashed = paramiko.HostKeys.hash_host("[host]:2222")
    (tmp_path / ".ssh/known_hosts").write_text(f"{hashed} {KEY.get_name()} {KEY.get_base64()}\n")
    meet(client, monkeypatch, KEY)
    log_in(Target("host", 2222), tmp_path, pytest.fail)
    assert not (tmp_path / "known_hosts").exists()
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged, match="host key has changed"):
        log_in(Target("host", 2222), tmp_path)


def test_a_key_counts_for_its_own_host_only(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    reports: list[str] = []
    for target in (Target("host"), Target("host", 2222), Target("host.example")):
        log_in(target, tmp_path, reports.append)
    assert len(reports) == 3


# --- hosts with an alias ---------------------------------------------------------------------


def test_a_key_of_an_earlier_host_at_the_address_does_not_count_for_a_host_with_an_alias(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, OTHER_KEY)
    log_in(Target(CLOUDS.host), tmp_path)
    meet(client, monkeypatch, KEY)
    reports: list[str] = []
    log_in(CLOUDS, tmp_path, reports.append)
    assert [text.partition(":")[0] for text in reports] == ["bio-1"]
    log_in(CLOUDS, tmp_path, pytest.fail)


def test_a_host_with_an_alias_is_known_at_any_address(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(CLOUDS, tmp_path)
    moved = Target("198.51.100.4", 2222, "debian", label="bio-1", alias=CLOUDS.alias)
    log_in(moved, tmp_path, pytest.fail)
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged, match=r"^bio-1: its host key has changed") as raised:
        log_in(moved, tmp_path)
    assert f"ssh-keygen -R '{CLOUDS.alias}' -f {tmp_path / 'known_hosts'}" in raised.value.remedy


# --- keys from a source that can be trusted --------------------------------------------------


def test_a_host_whose_key_is_known_beforehand_is_verified_at_the_first_login(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    known = known_hosts(tmp_path, pytest.fail)
    assert known.trust(CLOUDS.entry, [line(KEY)])
    meet(client, monkeypatch, KEY)
    connect(CLOUDS, timeout=5, known=known).close()
    log_in(CLOUDS, tmp_path, pytest.fail)  # the next run, too
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged):
        connect(CLOUDS, timeout=5, known=known)


def test_each_type_of_trusted_key_is_stored_once(tmp_path: Path) -> None:
    other = paramiko.RSAKey.generate(1024)
    for _ in range(2):  # in one run and in the next
        known = known_hosts(tmp_path, pytest.fail)
        for _ in range(2):
            assert known.trust("4f1c", [line(KEY), line(other, comment="")])
    assert lines_of(tmp_path) == [["4f1c", *line(key, "").split()] for key in (KEY, other)]


def test_a_trusted_key_replaces_one_that_was_trusted_on_first_use(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, OTHER_KEY)
    log_in(CLOUDS, tmp_path)
    meet(client, monkeypatch, KEY)
    known = known_hosts(tmp_path, pytest.fail)
    assert known.trust(CLOUDS.entry, [line(KEY)])
    connect(CLOUDS, timeout=5, known=known).close()
    log_in(CLOUDS, tmp_path, pytest.fail)  # in the next run, too


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ssh-ed25519",
        "ssh-ed25519 not-base64",
        "ssh-rsa AAAA",
        "ssh-unknown AAAAC3NzaC1lZDI1NTE5",
        f"{KEY.get_name()} {OTHER_KEY.get_base64()[:40]}",
        f"[   12.3] {line(KEY)}",
        f"ssh-rsa {KEY.get_base64()}",
    ],
)
def test_what_is_no_key_is_ignored(tmp_path: Path, text: str) -> None:
    known = known_hosts(tmp_path, pytest.fail)
    assert not known.trust("4f1c", [text])
    assert known.trust("4f1c", [text, line(KEY)])
    assert lines_of(tmp_path) == [["4f1c", KEY.get_name(), KEY.get_base64()]]


def encoded(public: ed25519.Ed25519PublicKey) -> bytes:
    raw = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return base64.b64decode(raw.split()[1])


@pytest.mark.parametrize(
    ("kind", "whole"),
    [
        ("ssh-ed25519", encoded(ed25519.Ed25519PrivateKey.generate().public_key())),
        ("ssh-rsa", paramiko.RSAKey.generate(1024).asbytes()),
        (KEY.get_name(), KEY.asbytes()),
    ],
    ids=["ed25519", "rsa", "ecdsa"],
)
def test_a_key_that_a_message_cut_short_is_none(tmp_path: Path, kind: str, whole: bytes) -> None:
    """Else the machine's own would be taken for a changed one from then on."""
    known = known_hosts(tmp_path)
    cut = [length for length in range(len(whole)) if known.trust(f"m{length}", [_line(kind, whole[:length])])]
    assert cut == []
    assert known.trust("m", [_line(kind, whole)])


def _line(kind: str, data: bytes) -> str:
    return f"{kind} {base64.b64encode(data).decode()}"


KINDS = ["ssh-ed25519", "ssh-rsa", "ssh-dss", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp521"]
PARTS = st.lists(st.binary(max_size=40)).map(lambda parts: b"".join(len(part).to_bytes(4) + part for part in parts))


@given(kind=st.sampled_from(KINDS), data=st.binary(max_size=80) | PARTS, named=st.booleans())
def test_any_line_can_be_read(tmp_path_factory: pytest.TempPathFactory, kind: str, data: bytes, named: bool) -> None:
    if named:
        data = len(kind).to_bytes(4) + kind.encode() + data
    assert known_hosts(tmp_path_factory.mktemp("bio")).trust("4f1c", [_line(kind, data)]) in (True, False)


def test_a_key_with_a_negative_number_is_none(tmp_path: Path) -> None:
    parts = (b"ssh-rsa", b"\xff", b"\x01")  # an exponent of -1
    data = b"".join(len(part).to_bytes(4) + part for part in parts)
    assert not known_hosts(tmp_path).trust("4f1c", [_line("ssh-rsa", data)])


# --- the files -------------------------------------------------------------------------------


def test_the_file_of_host_keys_is_made_with_a_folder_for_its_owner_only(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    log_in(Target("host"), tmp_path / "bio")
    assert os.stat(tmp_path / "bio").st_mode & 0o777 == 0o700


def test_the_files_of_host_keys_are_read_once_for_all_hosts(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    reads: list[Path] = []
    read = Path.read_bytes

    def counted(self: Path) -> bytes:
        reads.append(self)
        return read(self)

    monkeypatch.setattr(Path, "read_bytes", counted)
    reports: list[str] = []
    known = known_hosts(tmp_path, reports.append)
    known.trust("c", [line(KEY)])
    for host in ("a", "b", "a", "c"):
        connect(Target(host), timeout=5, known=known).close()
    assert len(reads) == len({*reads}) == 4
    assert [text.partition(":")[0] for text in reports] == ["a", "b"]


def meet_all(known: KnownHosts, count: int, one: Callable[[str], object]) -> None:
    threads = [threading.Thread(target=one, args=(f"m{at}",)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("way", ["met", "trusted"])
def test_hosts_that_are_met_at_once_are_all_stored(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, way: str
) -> None:
    meet(client, monkeypatch, KEY)
    known = known_hosts(tmp_path / "bio")
    if way == "met":
        meet_all(known, 12, lambda name: connect(Target(name), timeout=5, known=known).close())
    else:
        meet_all(known, 12, lambda name: known.trust(name, [line(KEY)]))
    assert sorted(entry for entry, *_ in lines_of(tmp_path / "bio")) == sorted(f"m{at}" for at in range(12))
    for at in range(12):
        log_in(Target(f"m{at}"), tmp_path / "bio", pytest.fail)


@pytest.mark.parametrize("name", [".ssh/known_hosts", "known_hosts", "etc/ssh/ssh_known_hosts"])
def test_a_file_that_can_not_be_read_is_reported(client: type[Client], tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir(parents=True)
    with pytest.raises(ConnectionFailed, match=rf"{name} can't be read"):
        log_in(Target("host"), tmp_path)


def test_a_file_that_can_not_be_written_is_reported(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(ConnectionFailed, match=r"known_hosts can't be written \(Permission denied\)"):
        log_in(Target("host"), tmp_path)
    known = known_hosts(tmp_path)
    for _ in range(2):  # what was not written is not known
        with pytest.raises(ConnectionFailed, match="can't be written"):
            known.trust("4f1c", [line(KEY)])


def refuse(path: Path, mode: str = "r", *args: object) -> Any:
    if mode != "a":
        return open(path, mode)
    raise PermissionError(13, "Permission denied")


# --- OpenSSH's own files ---------------------------------------------------------------------


def entry(host: str, key: paramiko.PKey = KEY, marker: str = "") -> str:
    return f"{marker} {host} {key.get_name()} {key.get_base64()}".strip()


def write(tmp_path: Path, *lines: str, name: str = ".ssh/known_hosts") -> Path:
    file = tmp_path / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes("\n".join([*lines, ""]).encode("latin-1"))
    return file


def judged(tmp_path: Path, target: Target, key: paramiko.PKey = KEY) -> str:
    """`known`, `new`, `changed` or `revoked`."""
    try:
        return "known" if known_hosts(tmp_path).check(target, key) else "new"
    except HostKeyChanged as error:
        return "revoked" if "revoked" in error.message else "changed"


NONSENSE = [
    "lab1.example.edu 1024 35 1234567890123456789012345678901234567890",  # SSH 1
    "host ssh-rsa not-base64",
    "host ssh-future AAAAC3NzaC1lZDI1NTE5AAAAIArq6Mih3EadRSoWA5OQcddgSIQycUmFufsl3r7eliki",
    "host ssh-dss AAAAB3NzaC1kc3MAAACB",
    f"host {KEY.get_name()} {KEY.get_base64()[:40]}",
    f"@unknown host {KEY.get_name()} {OTHER_KEY.get_base64()}",
    "host",
    "@revoked",
    "@cert-authority *.example.edu",
    "|1|not-base64|x ssh-ed25519 AAAA",
    "\xff\xfe\x00 garbage \x00",
    "host ssh-ed25519 " + "A" * 100_000,
    "# host " + entry("host", OTHER_KEY),
    " ",
]


@pytest.mark.parametrize("nonsense", NONSENSE, ids=range(len(NONSENSE)))
def test_a_line_that_is_not_understood_is_skipped_alone(tmp_path: Path, nonsense: str) -> None:
    write(tmp_path, nonsense, entry("host"), nonsense)
    assert judged(tmp_path, Target("host")) == "known"
    assert judged(tmp_path, Target("host"), OTHER_KEY) == "changed"
    assert judged(tmp_path, Target("lab1.example.edu")) == "new"


@pytest.mark.parametrize(
    ("hosts", "target", "is_known"),
    [
        ("host", Target("host"), True),
        ("HOST", Target("host"), True),
        ("host", Target("Host"), True),
        ("host", Target("host", 2222), False),
        ("[host]:2222", Target("host", 2222), True),
        ("[host]:2222", Target("host"), False),
        ("a,host,b", Target("host"), True),
        ("*.example.edu", Target("lab1.example.edu"), True),
        ("*.example.edu", Target("example.edu"), False),
        ("lab?", Target("lab1"), True),
        ("lab?", Target("lab12"), False),
        ("*.example.edu,!lab1.example.edu", Target("lab1.example.edu"), False),
        ("!lab1.example.edu,*.example.edu", Target("lab2.example.edu"), True),
        ("!lab1", Target("lab2"), False),
        ("*", Target("192.0.2.1", 2222), True),
        ("lab[12]", Target("lab1"), False),
        ("2001:db8::1", Target("2001:db8::1"), True),
        ("[2001:db8::1]:2222", Target("2001:db8::1", 2222), True),
        ("alias", Target("host", 2222, alias="alias"), True),
        ("host", Target("host", alias="alias"), False),
        (paramiko.HostKeys.hash_host("host"), Target("Host"), True),
        (paramiko.HostKeys.hash_host("[host]:2222"), Target("host", 2222), True),
        (paramiko.HostKeys.hash_host("host"), Target("host2"), False),
    ],
    ids=lambda value: value.name if isinstance(value, Target) else "",
)
def test_names_are_compared_as_openssh_does(tmp_path: Path, hosts: str, target: Target, is_known: bool) -> None:
    write(tmp_path, f"  {entry(hosts)}\tann@home")
    assert judged(tmp_path, target) == ("known" if is_known else "new")


REVOKED = "@revoked * ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIArq6Mih3EadRSoWA5OQcddgSIQycUmFufsl3r7eliki"
AUTHORITY = REVOKED.replace("@revoked *", "@cert-authority *.example.edu")
FIELD_KEY = parse_key(REVOKED.removeprefix("@revoked * "))


@pytest.mark.parametrize("name", [".ssh/known_hosts", ".ssh/known_hosts2", "etc/ssh/ssh_known_hosts"])
def test_a_revoked_key_is_refused_whatever_else_is_known(tmp_path: Path, name: str) -> None:
    assert FIELD_KEY
    known_hosts(tmp_path).trust("host", [line(FIELD_KEY)])
    write(tmp_path, entry("host", FIELD_KEY), name=".ssh/known_hosts2")
    assert judged(tmp_path, Target("host"), FIELD_KEY) == "known"
    file = write(tmp_path, entry("host", FIELD_KEY), REVOKED, name=name)
    with pytest.raises(HostKeyChanged, match=rf"is revoked \({file}, line 2\)"):
        known_hosts(tmp_path).check(Target("host"), FIELD_KEY)
    assert judged(tmp_path, Target("host2")) == "new"


def test_the_key_of_an_authority_is_no_hosts_key(tmp_path: Path) -> None:
    assert FIELD_KEY
    write(tmp_path, AUTHORITY)
    assert judged(tmp_path, Target("lab1.example.edu"), FIELD_KEY) == "new"
    assert judged(tmp_path, Target("lab1.example.edu"), KEY) == "new"


@pytest.mark.parametrize("name", [".ssh/known_hosts2", "etc/ssh/ssh_known_hosts"])
def test_a_key_in_any_of_opensshs_files_counts(tmp_path: Path, name: str) -> None:
    write(tmp_path, entry("host"), name=name)
    assert judged(tmp_path, Target("host")) == "known"
    assert judged(tmp_path, Target("host"), OTHER_KEY) == "changed"


def test_a_host_that_ssh_would_refuse_is_not_trusted_for_what_the_course_knows(tmp_path: Path) -> None:
    known_hosts(tmp_path).trust("host", [line(OTHER_KEY)])
    assert judged(tmp_path, Target("host"), OTHER_KEY) == "known"
    file = write(tmp_path, entry("host"))
    with pytest.raises(HostKeyChanged, match="host key has changed") as raised:
        known_hosts(tmp_path).check(Target("host"), OTHER_KEY)
    assert f"-f {file}" in raised.value.remedy


def test_any_of_several_keys_of_a_host_is_known(tmp_path: Path) -> None:
    write(tmp_path, entry("host"), entry("host", OTHER_KEY))
    assert judged(tmp_path, Target("host")) == judged(tmp_path, Target("host"), OTHER_KEY) == "known"


def test_the_configuration_of_ssh_names_other_files(tmp_path: Path) -> None:
    write(tmp_path, entry("host"))
    write(tmp_path, entry("host", OTHER_KEY), name="other")
    rules = HostKeyRules(user_files=(str(tmp_path / "other"),), global_files=())
    assert judged(tmp_path, Target("host", host_keys=rules), OTHER_KEY) == "known"
    assert judged(tmp_path, Target("host", host_keys=HostKeyRules(user_files=()))) == "new"


def test_where_ssh_is_strict_an_unknown_host_is_refused(client: type[Client], tmp_path: Path) -> None:
    target = Target("host", host_keys=HostKeyRules(strict=True))
    with pytest.raises(HostKeyChanged, match=r"its host key is not known .* StrictHostKeyChecking"):
        log_in(target, tmp_path)
    write(tmp_path, entry("host"))
    log_in(target, tmp_path)


def test_a_list_of_revoked_keys_is_followed_and_one_that_can_not_be_read_trusts_nobody(tmp_path: Path) -> None:
    write(tmp_path, entry("host"))
    target = Target("host", host_keys=HostKeyRules(revoked=tmp_path / "revoked"))
    with pytest.raises(ConnectionFailed, match="RevokedHostKeys"):
        known_hosts(tmp_path).check(target, KEY)
    (tmp_path / "revoked").write_text(f"# old\n{line(OTHER_KEY)}\n")
    assert judged(tmp_path, target) == "known"
    (tmp_path / "revoked").write_text(f"# old\n{line(KEY)}\n")
    assert judged(tmp_path, target) == "revoked"
    (tmp_path / "revoked").write_bytes(b"SSHKRL\n\0")
    with pytest.raises(ConnectionFailed, match="binary revocation list"):
        known_hosts(tmp_path).check(target, KEY)


def test_a_host_is_asked_for_the_type_of_key_by_which_it_is_known(tmp_path: Path) -> None:
    rsa = paramiko.RSAKey.generate(1024)
    write(tmp_path, entry("host", rsa), entry("host"), entry("host", OTHER_KEY), AUTHORITY, REVOKED)
    assert known_hosts(tmp_path).kinds(Target("host")) == ["ssh-rsa", KEY.get_name()]


@given(text=st.binary(max_size=200))
def test_any_file_can_be_read(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("bio")
    (folder / "known_hosts").write_bytes(text + b"\n" + entry("host").encode())
    assert KnownHosts(folder / "known_hosts", pytest.fail).check(Target("host"), KEY)


# --- looking only ----------------------------------------------------------------------------


def test_who_only_looks_stores_no_key(client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    meet(client, monkeypatch, KEY)
    said: list[str] = []
    known = KnownHosts(tmp_path / "bio" / "known_hosts", said.append, keeps=False)
    for _ in range(2):
        connect(Target("host"), timeout=5, known=known).close()
    assert said == [f"host: new host key {fingerprint(KEY)}, which a launch stores"]
    assert not (tmp_path / "bio").exists()
    meet(client, monkeypatch, OTHER_KEY)
    with pytest.raises(HostKeyChanged):  # a host that has two is two
        connect(Target("host"), timeout=5, known=known)


def test_who_only_looks_sends_no_password_to_a_host_that_is_not_known(
    client: type[Client], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meet(client, monkeypatch, KEY)
    monkeypatch.setattr("cloudscale.hosts.known_hosts.on_terminal", lambda: True)
    known = KnownHosts(tmp_path / "known_hosts", pytest.fail, keeps=False)
    with pytest.raises(ConnectionFailed, match="the password is not sent"):
        connect(Target("host", password="secret"), timeout=5, known=known)
    assert not (tmp_path / "known_hosts").exists()
