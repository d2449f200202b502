from __future__ import annotations

import getpass
from pathlib import Path

import pytest

from cloudscale.errors import SettingsError
from cloudscale.hosts.ssh_config import SshConfig, is_listed, seconds


class Files:
    """The user's files in ~/.ssh, the system's in etc/ssh, and what was said while they were read."""

    def __init__(self, folder: Path) -> None:
        self.own = Path("~/.ssh").expanduser()
        self.system = folder / "etc" / "ssh"
        self.said: list[str] = []

    def write(self, text: str, name: str = "config", mode: int = 0o600) -> Path:
        return self._write(self.own / name, text, mode)

    def write_system(self, text: str, name: str = "ssh_config") -> Path:
        return self._write(self.system / name, text, 0o644)

    @staticmethod
    def _write(file: Path, text: str, mode: int) -> Path:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        file.chmod(mode)
        return file

    def first(self, host: str, key: str, user: str = "root") -> str:
        return SshConfig(self.said.append).lookup(host, user).first(key)

    def refusal(self, host: str = "lab1") -> str:
        with pytest.raises(SettingsError) as raised:
            SshConfig(self.said.append).lookup(host, "root")
        return str(raised.value)


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def test_without_files_nothing_is_said_about_a_host(files: Files) -> None:
    assert SshConfig(pytest.fail).lookup("lab1", "root").values == {}


def test_the_first_value_counts_and_the_users_file_comes_first(files: Files) -> None:
    files.write("Host lab1\n  Port 1\n  port 2\nHost *\n  Port 3\n  User ann\n")
    files.write_system("Host *\n  User system\n  HostKeyAlias x\n")
    assert [files.first("lab1", key) for key in ("port", "user", "hostkeyalias")] == ["1", "ann", "x"]
    assert files.first("lab2", "port") == "3"


def test_of_identity_files_every_one_counts(files: Files) -> None:
    files.write("IdentityFile a\nHost lab1\nIdentityFile b\nHost lab2\nIdentityFile c\n")
    found = SshConfig(pytest.fail).lookup("lab1", "root")
    assert [line.words[0] for line in found.values["identityfile"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("User ann", "ann"),
        ("  user\tann  ", "ann"),
        ("USER=ann", "ann"),
        ("User = ann", "ann"),
        ('User "ann b"', "ann b"),
        ("User 'ann b'", "ann b"),
        (r"User ann\ b", "ann b"),
        (r"User \"ann", '"ann'),
        (r"User a\b", r"a\b"),
        ("User ann # of the lab", "ann"),
        ("User ann#1", "ann#1"),
        ("User ann\r", "ann"),
    ],
)
def test_a_line_is_read_as_openssh_does(files: Files, line: str, value: str) -> None:
    files.write(f"# a comment\n\n{line}\n")
    assert files.first("lab1", "user") == value


def test_a_command_is_the_rest_of_its_line(files: Files) -> None:
    files.write("""ProxyCommand sh -c 'nc "$1" 22' # %h\n""")
    assert files.first("lab1", "proxyjump") == """sh -c 'nc "$1" 22' # %h"""


@pytest.mark.parametrize(
    ("patterns", "host", "matches"),
    [
        ("lab1", "lab1", True),
        ("lab1 lab2", "lab2", True),
        ("lab?", "lab1", True),
        ("lab*", "lab", True),
        ("*.example.edu", "lab1.example.edu", True),
        ("lab[1]", "lab1", False),
        ("* !lab1", "lab1", False),
        ("!lab1 *", "lab2", True),
        ("!lab1", "lab2", False),
        ("LAB1", "lab1", False),
        ('"lab1"', "lab1", True),
    ],
)
def test_hosts_are_named_by_patterns(files: Files, patterns: str, host: str, matches: bool) -> None:
    files.write(f"Host {patterns}\n  User ann\n")
    assert files.first(host, "user") == ("ann" if matches else "")


@pytest.mark.parametrize(
    ("criteria", "matches"),
    [
        ("all", True),
        ("host 192.0.2.1", True),
        ("host lab1", False),
        ("originalhost lab1", True),
        ("originalhost=lab1", True),
        ("!originalhost lab1", False),
        ("host other,192.0.2.*", True),
        ("host 192.0.2.*,!192.0.2.1", False),
        ("user root", True),
        ("user bob", False),
        (f"localuser {getpass.getuser()}", True),
        ("originalhost lab1 user bob", False),
        ("originalhost lab1 user root", True),
        ("canonical", False),
        ("final", True),
        ("!final", True),
        ("final host 192.0.2.1", True),
    ],
)
def test_match_looks_at_what_is_known_so_far(files: Files, criteria: str, matches: bool) -> None:
    files.write(f"Host lab1\n  HostName 192.0.2.1\nMatch {criteria}\n  User ann\n")
    assert files.first("lab1", "user") == ("ann" if matches else "")


@pytest.mark.usefixtures("processes")
def test_match_runs_a_command(files: Files) -> None:
    files.write('Match originalhost lab1 exec "test %n = lab1"\n  User ann\nMatch exec false\n  Port 2\n')
    assert (files.first("lab1", "user"), files.first("lab1", "port")) == ("ann", "")


def test_match_runs_no_command_where_it_does_not_match_anyway(files: Files) -> None:
    files.write('Match originalhost lab2 exec "true"\n  User ann\n')
    assert files.first("lab1", "user") == ""


def test_a_criterion_that_is_not_supported_is_said_once(files: Files) -> None:
    file = files.write("Match localnetwork 192.0.2.0/24\n  User ann\nHost *\n  User bob\n")
    config = SshConfig(files.said.append)
    assert {config.lookup(host, "root").first("user") for host in ("lab1", "lab2")} == {"bob"}
    assert files.said == [f"{file}, line 1: Match localnetwork is not supported: what follows it is left out"]


def test_included_files_stand_where_they_are_included(files: Files, tmp_path: Path) -> None:
    files.write(
        "Include conf.d/*.conf none\nHost lab1\n  User late\n  Include inner\n  Port 3\nHost lab2\nInclude inner\n"
    )
    files.write("Host lab1\n  User ann\n", "conf.d/b.conf")
    files.write("User first\nHost none\n  Port 9\n", "conf.d/a.conf")
    files.write("Host lab3\n  HostKeyAlias x\nHost *\n  Port 2\n", "inner")
    assert (files.first("lab1", "user"), files.first("lab1", "port")) == ("first", "2")
    assert files.first("lab3", "hostkeyalias") == ""  # it is included for lab1 only
    files.write(f"Include {tmp_path}/else ~/.ssh/inner\n")
    assert files.first("lab3", "hostkeyalias") == "x"
    files.write("")
    files.write_system("Include ssh_config.d/*.conf\n")
    files.write_system("User system\n", "ssh_config.d/a.conf")
    assert files.first("lab1", "user") == "system"


def test_files_that_include_themselves_are_refused(files: Files) -> None:
    file = files.write("Include config\n")
    assert f"{file}, line 1: more than 16 files include one another" in files.refusal()


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("Port abc", "'abc' is not a port"),
        ("Port 0", "'0' is not a port"),
        ("Port 65536", "is not a port"),
        ("Port", "Port lacks its argument"),
        ("Host", "Host lacks its argument"),
        ("HostName # none", "HostName lacks its argument"),
        ('User "ann', "a quotation mark is missing"),
        ("Match host", "Match host lacks its argument"),
        ("User ann b", "User has more than one argument"),
        ("IdentityFile /b c", "IdentityFile has more than one argument"),
        ("ConnectTimeout soon", "'soon' is not a time"),
        ("IdentitiesOnly maybe", "'maybe' is not one of yes, no"),
        ("StrictHostKeyChecking maybe", "'maybe' is not one of ask"),
        ("Host lab2\n  Port abc", "line 3: 'abc' is not a port"),
        ("=", "is not of the form KEY VALUE"),
    ],
)
def test_a_wrong_line_is_reported_with_its_file_and_number(files: Files, line: str, cause: str) -> None:
    file = files.write(f"# mine\n{line}\n")
    message = files.refusal()
    assert f"{file}, line " in message
    assert cause in message


def test_keys_that_do_not_matter_here_may_be_any(files: Files) -> None:
    files.write('ForwardAgent\nSetEnv "A=b\nNewOption 1 2 3\nUser ann\n')
    assert files.first("lab1", "user") == "ann"


def test_a_file_that_others_may_write_is_refused_as_ssh_does(files: Files) -> None:
    file = files.write("User ann\n", mode=0o664)
    assert f"chmod 600 {file}" in files.refusal()
    file.chmod(0o644)
    assert files.first("lab1", "user") == "ann"


def test_a_file_that_can_not_be_read_is_refused(files: Files) -> None:
    (files.own / "config").mkdir(parents=True)
    assert f"{files.own / 'config'} can't be read (Is a directory)" in files.refusal()


@pytest.mark.parametrize(
    ("text", "value"), [("10", 10), ("1m", 60), ("1m30s", 90), ("2H", 7200), ("", None), ("x", None), ("-1", None)]
)
def test_times_are_written_as_in_openssh(text: str, value: float | None) -> None:
    assert seconds(text) == value


def test_a_list_of_patterns_needs_one_that_includes() -> None:
    assert not is_listed("a", [])
    assert not is_listed("a", ["!b"])
    assert is_listed("a", ["!b", "a"])
