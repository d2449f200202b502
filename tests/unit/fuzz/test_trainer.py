"""What a trainer writes: students' files, the configuration, flags, known hosts, SSH's configuration, keys, images."""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import requests
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import example
from hypothesis import strategies as st
from invoke.config import Config

from cloudscale.cli import configuration
from cloudscale.course import deadline
from cloudscale.course.flags import CardFlags, Collect, Common, Distribution, Launch, Remote, read_flags
from cloudscale.course.folder import CHANGES, CourseFolder
from cloudscale.course.header import parse_columns
from cloudscale.course.roster import parse_roster, read_roster
from cloudscale.course.selection import Selection, find_one
from cloudscale.course.settings import read_settings
from cloudscale.course.usable_settings import read_usable
from cloudscale.drivers.vm import base_image
from cloudscale.engines.endpoint import own_endpoint
from cloudscale.hosts import private_keys, ssh_config
from cloudscale.hosts.destinations import Destinations, Flags
from cloudscale.hosts.known_hosts import KnownHosts
from cloudscale.hosts.login_key import ssh_key
from cloudscale.hosts.private_keys import load_private_key, public_part
from cloudscale.hosts.ssh_config import SshConfig
from cloudscale.hosts.target import HostKeyRules, Target, parse_address
from cloudscale.images import own
from cloudscale.material import git
from cloudscale.material.sources import scan
from cloudscale.material.work_manifest import Manifest
from cloudscale.model import CommandResult
from cloudscale.units import parse_size
from tests.unit.fuzz.inputs import changed, changed_bytes, changed_json, changed_text, fuzz, reading
from tests.unit.hosts.fake_ssh import KEY

FAILED = CommandResult(1, "", "fatal: no\n")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trainer")


# --- the students' file ------------------------------------------------------------------------

ROSTERS = (
    "id;name;surname;email\n1;Ann;Lee;ann@example.edu\n2;Bob;Ray;\n",
    "1;Jürgen;Müller;j@example.edu\n2;René;Großmann;\n",
    '\ufeff"First name","Last name","ID number","Email address",Groups\nAda,Brook,k0011,ada@example.edu,"Group A"\n',
    "Vorname\tNachname\tID-Nummer\tE-Mail-Adresse\nAda\tBrook\tk0011\tada@example.edu\n",
    '\ufeffStudent,ID,SIS User ID,Section,Quiz 1 (101)\n    Points Possible,,,,10\n"Brook, Ada",9001,u77001,CS1-A,8\n',
    '"identifier","github_username","github_id","name"\n"i01-ada","adab","4711","Ada Brook"\n',
    "COURS1234 en 2024;;;;;\nPgrm;Num fac;Nom;Prénom;Noma;Mail\nSINF1;12;Brook;Ada;10011700;ada@example.edu\n",
    'sep=,\nid,name\n1,="Ann"\n',
)
ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "mac-roman", "cp1250", "utf-32", "cp037")
FILES = tuple(text.encode(encoding, "replace") for text in ROSTERS for encoding in ENCODINGS)
COLUMNS = changed({"id": "ID number", "name": "First name", "surname": "Last name", "email": "Email address"})


@fuzz(data=changed_bytes(*FILES), slow=2)
@example(data=b"id;name\n" + b"1;" + b'"' * 200_001)
@example(data=b"a," * 20_000)
def test_any_students_file(data: bytes) -> None:
    with reading():
        assert parse_roster(data, "students.csv").students


@fuzz(data=changed_bytes(*FILES), columns=changed_text("id=Matrikel,name=Vorname", "id=name", "name=a=b,id=1"), slow=3)
def test_any_columns(data: bytes, columns: str) -> None:
    with reading():
        parse_roster(data, "students.csv", read_settings({"columns": columns}).columns)
    with reading():
        try:
            parse_columns(columns)
        except ValueError as error:
            assert str(error)  # pydantic makes a SettingsError of it


@fuzz(given=changed_text("ann", "Ann Lee", "1"), names=changed(["Ann Lee", "1", "s1"]).filter(lambda v: v))
def test_any_selection(given: str, names: Any) -> None:
    names = tuple(map(str, names)) if isinstance(names, list) else (str(names),)
    targets = [("cs-1", *names[:2], "m1"), ("cs-2", "2", "Bob", "m1")]
    with reading():
        find_one(given, targets, lambda names: names)
    with reading():
        Selection((given,), names).choose(targets, lambda names: names)


# --- the configuration and flags ---------------------------------------------------------------

CONFIGURATION = {
    "driver": "local",
    "course": "bio",
    "students": "~/students.csv",
    "columns": {"id": "Matrikel", "name": "Vorname"},
    "image": "quay.io/jupyter/scipy-notebook:2025-03-14",
    "seat": {
        "cpus": 1.0,
        "memory": "2G",
        "pids": 512,
        "reserve": "512M",
        "per_core": 4,
        "disk": "10G",
        "reach": ["192.0.2.7:5432"],
        "shared": "~/data",
    },
    "openstack": {
        "cloud": "course",
        "image": "debian-13",
        "flavor": "m1.small",
        "network": ["a", "b"],
        "external_network": "public",
        "floating_ips": ["192.0.2.7"],
        "user": "debian",
        "admin_cidr": "0.0.0.0/0",
        "student_cidr": ["192.0.2.0/24", "::/0"],
        "config_drive": True,
        "boot_volume": "20G",
        "work_volume": None,
        "server_prefix": "uni-",
        "boot_timeout": 600,
    },
    "generic": {"hosts": ["debian@192.0.2.11", "[2001:db8::1]:22"], "user": "root", "kfile": "~/.ssh/id", "pwd": "x"},
    "vm": {
        "cpus": 2,
        "memory": "2G",
        "disk": "20G",
        "base_image": "https://example.org/x.qcow2",
        "address": "127.0.0.1",
        "kvm": True,
    },
    "gateway": {"mode": "path", "domain": "a.example.org", "port": 443, "tls": "a.pem,b.pem", "acme": "https://x/"},
}


@fuzz(values=changed(CONFIGURATION))
@example(values={"students": "~\0"})
@example(values={"seat": {"reach": "9" * 5000}})
def test_any_values_in_the_configuration(values: Any) -> None:
    if isinstance(values, dict):
        values = {str(key): value for key, value in values.items()}
        with reading():
            read_settings(values, {"seat.cpus": "INVOKE_CLOUDSCALE_SEAT_CPUS"}, driver="local")
        with reading():
            read_usable(values)


YAML = b"""cloudscale:
  driver: local
  seat: {cpus: 1.0, memory: 2G, reach: [192.0.2.7:5432]}   # a comment
  generic:
    hosts:
      - debian@192.0.2.11
  students: &a ~/students.csv
  course: 010
  vm: {kvm: yes, boot_timeout: 1:30}
"""


LOAD: Callable[..., Any] = configuration._named(cast(Any, Config._load_yaml))


@fuzz(data=changed_bytes(YAML), slow=4)
@example(data=b"cloudscale: &a [*a]\n")
@example(data=b"cloudscale: " + b"[" * 1000)
@example(data=b"cloudscale: {course: 2024-02-31}\n")
def test_any_configuration_file(folder: Path, data: bytes) -> None:
    file = folder / "invoke.yaml"
    file.write_bytes(data)
    with reading():
        loaded = LOAD(Config, str(file))
        try:
            values = configuration._merge({}, loaded).get("cloudscale")
        except ValueError as error:  # Invoke's main function reports it
            assert len(str(error)) < 200
            return
        if isinstance(values, dict):
            read_settings(values)


FLAGS: dict[Callable[..., Any], dict[str, Any]] = {
    partial(read_flags, Launch): {
        "nodes": "3",
        "port": "8888",
        "start": "4321",
        "env": ["A=b", "C="],
        "until": "18:00",
        "gateway": "auto",
    },
    partial(read_flags, Remote): {"hosts": "a,b", "com": "ls", "port": "22", "kfile": "~/x", "path": "/"},
    partial(read_flags, Collect): {"output": "~/x", "limit": "2G"},
    partial(read_flags, Distribution): {
        "source": "https://example.org/x.git",
        "path": "a/b",
        "into": "c",
        "force": False,
    },
    partial(read_flags, Common): {"only": "a,b", "skip": "c", "timeout": "3", "format": "csv"},
    partial(read_flags, CardFlags): {"output": "cards.html", "title": "Hello", "logo": "x.png"},
}


@fuzz(given=st.sampled_from(list(FLAGS.items())).flatmap(lambda item: st.tuples(st.just(item[0]), changed(item[1]))))
def test_any_flags(given: tuple[Callable[..., Any], Any]) -> None:
    read, values = given
    if isinstance(values, dict):
        with reading():
            read(**{str(name): value for name, value in values.items()})


SIZES, TIMES = ("2G", "1.5GiB", "512"), ("18:00", "2026-12-01 18:00 +01:00", "2026-12-01", "none", "2026-12-01T24:00")


@fuzz(text=changed_text(*SIZES, *TIMES))
@example(text="9" * 400)
def test_any_size_and_time(text: str) -> None:
    for read in (parse_size, lambda text: deadline.read_when(text, deadline.now())):
        with reading():
            try:
                read(text)
            except ValueError as error:
                assert str(error)


@fuzz(text=changed_text("root@host:22", "[2001:db8::1]:2222", "user@2001:db8::1", "a.b.c", "x@y@z:1"))
@example(text="x" * 40_000)
def test_any_host(text: str) -> None:
    with reading():
        parse_address(text)


@fuzz(
    source=changed_text(
        "https://user:token@example.org/x.git", "git@example.org:x/y.git", "ssh://h:22/x", "./folder", "file:///x"
    )
)
@example(source="https://[x:token@example.org/x.git")
def test_any_source_of_material(folder: Path, source: str) -> None:
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setattr(git, "run_shell", lambda command, timeout, environment: FAILED)
        if git.is_address(source):
            git.clone(source, "main", folder, 10)


@fuzz(
    text=changed_text(
        "unix:///run/docker.sock", "tcp://192.0.2.1:2376", "ssh://user@host", "tcp://[::1]:2376", "npipe:////./pipe"
    )
)
@example(text="tcp://[x:2376")
def test_any_docker_host(text: str) -> None:
    with pytest.MonkeyPatch.context() as patch, reading():
        if "\0" not in text:  # no variable can have one
            patch.setenv("DOCKER_HOST", text)
            assert own_endpoint().host is not None


@fuzz(
    data=changed_json(
        {"Name": "far", "Endpoints": {"docker": {"Host": "tcp://192.0.2.1:2376", "SkipTLSVerify": False}}}
    )
)
@example(data=b'{"Endpoints": {"docker": {"Host": "tcp://[x:2376"}}}')
@example(data=b"[" * 20_000)
def test_any_docker_context(folder: Path, data: bytes) -> None:
    file = folder / "contexts" / "meta" / hashlib.sha256(b"far").hexdigest() / "meta.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setenv("DOCKER_CONFIG", str(folder))
        patch.setenv("DOCKER_CONTEXT", "far")
        assert own_endpoint().host is not None


# --- SSH ---------------------------------------------------------------------------------------

PUBLIC = f"{KEY.get_name()} {KEY.get_base64()}"
KNOWN_HOSTS = (
    f"192.0.2.1 {PUBLIC}\n|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg= {PUBLIC}\n",
    f"@cert-authority *.example.edu {PUBLIC}\n@revoked * {PUBLIC}\n[192.0.2.1]:2222,host*,!hosts {PUBLIC} comment\n",
    f"lab1 1024 35 1234567890123456789012345678901234567890\nlab1,192.0.2.1 {PUBLIC}\n# no\n",
)


@fuzz(data=changed_bytes(*(text.encode() for text in KNOWN_HOSTS)))
def test_any_known_hosts(folder: Path, data: bytes) -> None:
    own_file, theirs = folder / "known_hosts", folder / "theirs"
    for file in (own_file, theirs):
        file.write_bytes(data)
    known = KnownHosts(own_file, pytest.fail)
    rules = HostKeyRules((str(theirs),), (), revoked=theirs)
    for target in (Target("192.0.2.1", host_keys=rules), Target("lab1", 2222), Target("hosts")):
        with reading():
            known.kinds(target)
            known.check(target, KEY)
    assert own_file.read_bytes() == data


@fuzz(line=changed_text(PUBLIC, f"{PUBLIC} root@host", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAAQ=="))
@example(line="ssh-rsa AAAAB3NzaC1yc2EAAAAAAA" + "9" * 60_000)
def test_any_host_key(folder: Path, line: str) -> None:
    with reading():
        KnownHosts(folder / "learnt", pytest.fail, keeps=False).trust("m1", [line])


SSH_CONFIG = (
    "Host lab1\n  HostName 127.0.0.1\n  Port 6922\n  User root\n  IdentityFile ~/.ssh/id_x\n  ConnectTimeout 1m30s\n"
    "Host node1\n  HostName %h.example.org\n  ProxyJump lab1,me@[2001:db8::1]:22\n  IdentitiesOnly yes\n",
    'Match host node* !exec "false" user root\n  ProxyCommand nc %h %p\nHost *\n'
    '  UserKnownHostsFile "~/.ssh/a b" ${HOME}/c\n'
    "  GlobalKnownHostsFile /dev/null\n  StrictHostKeyChecking accept-new\n  RevokedHostKeys none\n",
    "Include conf.d/*\nHost !x *\nHostKeyAlias=%n\nIdentityAgent none\nMatch final all\nUser x\n"
    "Match localuser a,b\nPort 1\n",
)


@fuzz(data=changed_bytes(*(text.encode() for text in SSH_CONFIG)))
@example(data=b"Host *\n  ConnectTimeout " + b"9" * 60 + b"x\n")
@example(data=b"Include ~nobody-of-this-name/x\n")
@example(data=b"Include /\n")
@example(data=b"Host *\n  IdentityFile ~nobody-of-this-name/x\n")
@example(data=b"Host *\n  UserKnownHostsFile ~nobody-of-this-name/x\n")
@example(data=b"Include a\0b\n")
@example(data=b"Host *\n  IdentityFile a\0b\n")
@example(data=b"Include /**/nothing-of-this-name\n")
@example(data=b"Host *\n  UserKnownHostsFile a\0b\n")
@example(data=b"Include " + b"[" * 20_000 + b"\n")
def test_any_ssh_configuration(folder: Path, data: bytes) -> None:
    file = folder / "config"
    file.write_bytes(data)
    file.chmod(0o600)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssh_config, "run_shell", lambda command, timeout: FAILED)
        for host in ("lab1", "node1", "me@other:23"):
            with reading():
                config = SshConfig(lambda text: None, file, folder / "none")
                target = Destinations(config, Flags()).find(host)
                KnownHosts(folder / "empty", lambda text: None, keeps=False).kinds(target)


def _pem(encoding: serialization.Encoding, format: serialization.PrivateFormat, password: bytes = b"") -> bytes:
    locked = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return ed25519.Ed25519PrivateKey.from_private_bytes(bytes(32)).private_bytes(encoding, format, locked)


PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
KEYS = (
    *(_pem(PEM, format) for format in (serialization.PrivateFormat.OpenSSH, serialization.PrivateFormat.PKCS8)),
    *(_pem(DER, serialization.PrivateFormat.PKCS8), _pem(PEM, serialization.PrivateFormat.PKCS8, b"secret")),
    *(b"PuTTY-User-Key-File-3: ssh-ed25519\nEncryption: none\n", f"{PUBLIC} me@here\n".encode()),
)


def _of_another_kind(pem: bytes) -> bytes:
    first, *middle, last = pem.strip().split(b"\n")
    data = base64.b64decode(b"".join(middle)).replace(b"ssh-ed25519", b"ssh-ed00000")
    return b"\n".join([first, base64.b64encode(data), last, b""])


@fuzz(data=changed_bytes(*KEYS))
@example(data=_of_another_kind(KEYS[0]))
def test_any_private_key(folder: Path, data: bytes) -> None:
    file = folder / "id_ed25519"
    file.unlink(missing_ok=True)
    file.write_bytes(data)
    file.chmod(0o600)
    with reading():
        private_keys._load.cache_clear()
        load_private_key(file, None)
    with reading():
        public_part(file)
    with reading():
        ssh_key(folder, create=False)
    assert file.read_bytes() == data


# --- what is kept in the course's folder, and given again -----------------------------------------

SUM = "0" * 64
MANIFEST = f"""student,id,path,bytes,sha256
Ann Lee,1,ann-lee/lesson.ipynb,12,{SUM}
"'=Lee, Ann",1,"ann-lee/a ""b"".txt",0,{SUM}
Bob,2,bob/data/%0Ax.csv,5,{SUM}
"""


@fuzz(data=changed_bytes(MANIFEST.encode()))
def test_any_manifest(data: bytes) -> None:
    with reading():
        manifest = Manifest(io.BytesIO(data), "manifest.csv")
        for student in manifest.students:
            assert [row.inner for row in manifest.rows(student)]
        list(manifest.others(["1"]))


@fuzz(data=changed_json({"1": 2, "s-3": 1}))
@example(data=b"[" * 20_000)
def test_any_record_of_changed_passwords(folder: Path, data: bytes) -> None:
    course = CourseFolder("bio", folder / "bio" / "local", read_only=True)
    course.folder.mkdir(parents=True, exist_ok=True)
    (course.folder / CHANGES).write_bytes(data)
    (course.folder / "key").write_bytes(data)
    with reading():
        course.password_changes()
    with reading():
        course.key(create=False)


@fuzz(
    requirements=changed_bytes(
        b"numpy\npandas==2.2 # why\nscipy>=1 \\\n  --hash=sha256:00\n-r other.txt\ngit+https://x/y.git\n"
    ),
    packages=changed_bytes(b"# why\ncurl git=1:2.3-1\nlibc6:amd64/stable\n"),
)
def test_any_folder_of_an_image(folder: Path, requirements: bytes, packages: bytes) -> None:
    (folder / "image").mkdir(exist_ok=True)
    (folder / "image" / "requirements.txt").write_bytes(requirements)
    (folder / "image" / "packages.txt").write_bytes(packages)
    with reading():
        own.check(folder / "image")
        own.unused(folder / "image")


DISKS = (
    *(b"QFI\xfb" + bytes(20) + (2**30).to_bytes(8, "big") + bytes(480), b"KDMV" + bytes(508), b"<<< " + bytes(508)),
    *(bytes(510) + b"\x55\xaa", b"# Disk DescriptorFile\n", bytes(512)),
)


@fuzz(data=changed_bytes(*DISKS))
def test_any_disk_image(folder: Path, data: bytes) -> None:
    (folder / "disk").write_bytes(data)
    with reading():
        base_image.describe_source(str(folder / "disk"))


@fuzz(source=changed_text("https://example.org/a/disk.qcow2", "disk.raw", "~/disk", "https://[::1]:443/x"))
@example(source="https://[x/disk.qcow2")
@example(source="~nobody-of-this-name/disk")
@example(source="https://example.org/" + "x" * 300)
@example(source="x" * 300)
@example(source="~\0/disk")
def test_any_place_of_a_disk_image(source: str) -> None:
    with pytest.MonkeyPatch.context() as patch, reading():
        patch.setattr(requests, "head", refused)
        base_image.describe_source(source)


READERS: tuple[Callable[[str], Any], ...] = (
    *(lambda text: read_roster(Path(text)), lambda text: own.check(Path(text)), base_image.describe_source),
    *(lambda text: load_private_key(Path(text), None), lambda text: scan(Path(text), Path(text))),
)


@fuzz(text=changed_text("a/students.csv", "~/x", "/", ".", "~nobody-of-this-name/x"), read=st.sampled_from(READERS))
@example(text="x" * 300, read=READERS[1])
@example(text="x" * 300, read=READERS[2])
def test_any_path(text: str, read: Callable[[str], Any]) -> None:
    with reading():
        path = str(read_settings({"students": text}).students)
        if not os.path.exists(path):
            read(path)


def refused(url: str, **settings: Any) -> Any:
    raise requests.ConnectionError(requests.Request("HEAD", url).prepare().url)
