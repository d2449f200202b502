from __future__ import annotations

import getpass
import os
from pathlib import Path
from typing import Any

import pytest

from cloudscale.errors import RequestError, SettingsError
from cloudscale.hosts.destinations import Destinations, Flags
from cloudscale.hosts.ssh_config import SshConfig
from cloudscale.hosts.target import HostKeyRules, Target

FIELD = """\
Host lab1
  HostName 127.0.0.1
  Port 6922
  User root
  IdentityFile ~/.ssh/id_field
Host node1
  HostName 192.0.2.11
  ProxyJump lab1
"""


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def find(home: Path, text: str, config: str = "", **flags: Any) -> Target:
    file = home / ".ssh" / "config"
    file.parent.mkdir(exist_ok=True)
    file.write_text(config)
    file.chmod(0o600)
    return Destinations(SshConfig(pytest.fail), Flags(**flags)).find(text)


def test_without_a_configuration_a_host_is_what_the_user_wrote(home: Path) -> None:
    assert find(home, "192.0.2.1") == Target("192.0.2.1", 22, "root")
    assert find(home, "ann@[2001:db8::1]:2222") == Target("2001:db8::1", 2222, "ann")
    flags: dict[str, Any] = {"port": 2200, "user": "bob", "key_file": Path("~/key")}
    assert find(home, "host", **flags) == Target("host", 2200, "bob", key_file=home / "key")
    assert find(home, "ann@host:22", **flags) == Target("host", 22, "ann", key_file=home / "key")


def test_a_name_in_the_configuration_is_its_host(home: Path) -> None:
    lab1 = find(home, "lab1", FIELD)
    assert (lab1.host, lab1.port, lab1.user, lab1.name) == ("127.0.0.1", 6922, "root", "lab1")
    assert lab1.identities == (home / ".ssh" / "id_field",)
    assert lab1.entry == "[127.0.0.1]:6922"


def test_what_the_user_gives_goes_before_the_configuration(home: Path) -> None:
    assert find(home, "ann@lab1:22", FIELD).user == "ann"
    assert find(home, "ann@lab1:22", FIELD).port == 22
    assert find(home, "lab1", FIELD, user="bob", port=22).user == "bob"
    assert find(home, "lab1", FIELD, user="bob", port=23).port == 23
    timed = "ConnectTimeout 1m\n"
    assert find(home, "lab1", timed).patience == 60
    assert find(home, "lab1", timed, timeout=5.0).patience is None


def test_a_host_is_called_as_the_user_wrote_it(home: Path) -> None:
    assert find(home, "host", "Port 2222\n").name == "host"
    assert find(home, "host:22", "HostName h\n").name == "host"
    assert find(home, "host:2222", "HostName h\n").name == "host:2222"
    assert find(home, "host", port=2222).name == "host:2222"


def test_a_jump_host_is_looked_up_too(home: Path) -> None:
    node1 = find(home, "node1", FIELD, user="bob", key_file=Path("key"))
    assert (node1.host, node1.user, node1.name) == ("192.0.2.11", "bob", "node1")
    via = node1.via
    assert via
    assert (via.host, via.port, via.user, via.name) == ("127.0.0.1", 6922, "root", "jump host lab1")
    # the key file is for the hosts that the user names
    assert (via.key_file, via.identities) == (None, (home / ".ssh" / "id_field",))


def test_a_jump_hosts_user_is_the_one_of_this_computer_as_with_ssh(home: Path) -> None:
    via = find(home, "node1", "Host node1\nProxyJump jump:2222\n", user="bob", port=23).via
    assert via
    assert (via.user, via.port) == (getpass.getuser(), 2222)


def chain(target: Target) -> list[str]:
    return [*(chain(target.via) if target.via else []), f"{target.user}@{target.host}:{target.port}"]


@pytest.mark.parametrize(
    ("jumps", "hops"),
    [
        ("a", ["me@a:22"]),
        ("ann@a:23", ["ann@a:23"]),
        ("ssh://ann@a:23", ["ann@a:23"]),
        ("ann@[2001:db8::1]:23", ["ann@2001:db8::1:23"]),
        ("a,ann@b,c:24", ["me@a:22", "ann@b:22", "me@c:24"]),
        ("b,far", ["me@b:22", "me@far:22"]),  # the list says how to reach it
        ("far", ["me@near:22", "me@far:22"]),
        ("none", []),
    ],
)
def test_jump_hosts_are_passed_in_their_order(
    home: Path, monkeypatch: pytest.MonkeyPatch, jumps: str, hops: list[str]
) -> None:
    monkeypatch.setattr(getpass, "getuser", lambda: "me")
    config = f"Host node1\n  ProxyJump {jumps}\nHost far\n  ProxyJump near\n"
    assert chain(find(home, "node1", config)) == [*hops, "root@node1:22"]


def test_jump_hosts_that_lead_in_a_circle_are_refused(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"line 4: the jump hosts lead in a circle: a -> b -> a"):
        find(home, "a", "Host a\nProxyJump b\nHost b\nProxyJump a\n")
    with pytest.raises(SettingsError, match="in a circle: jump -> jump"):
        find(home, "jump", "Host *\nProxyJump jump\n")


def test_a_jump_host_that_is_none_is_refused_with_its_line(home: Path) -> None:
    with pytest.raises(SettingsError, match=r"config, line 1: ProxyJump: 'a:b' is not a host"):
        find(home, "host", "ProxyJump a:b\n")


def test_the_first_of_a_jump_host_and_a_command_counts(home: Path) -> None:
    both = find(home, "host", "ProxyCommand nc -X connect %h %p %r %n %%\nProxyJump jump\n", user="ann")
    assert (both.proxy, both.via) == ("nc -X connect host 22 ann host %", None)
    assert find(home, "host", "Host host\nProxyJump jump\nProxyCommand nc %h %p\n").proxy == ""
    neither = find(home, "host", "ProxyCommand none\nProxyJump jump\n")
    assert (neither.proxy, neither.via) == ("", None)


@pytest.mark.parametrize("text", ["$(id)", "a;id", "a b", "-oX", "a`id`", "a'"])
def test_a_host_that_means_something_to_the_shell_gets_into_no_command(home: Path, text: str) -> None:
    with pytest.raises(RequestError, match="can't be part of a command"):
        find(home, text, "ProxyCommand nc %h %p\n")


def test_names_are_made_of_tokens(home: Path) -> None:
    assert find(home, "lab1", "HostName %h.example.edu\n").host == "lab1.example.edu"
    config = "HostName h\nPort 23\nIdentityFile %d/%u-%h-%n-%p-%r-%i-%%\nIdentityFile ~/b\nIdentityFile ${WHERE}/c\n"
    os.environ["WHERE"] = "/w"
    found = find(home, "lab1", config, user="ann").identities
    del os.environ["WHERE"]
    me = f"{getpass.getuser()}-h-lab1-23-ann-{os.getuid()}-%"
    assert found == (home / me, home / "b", Path("/w/c"))
    with pytest.raises(SettingsError, match="line 1: the environment has no WHERE"):
        find(home, "lab1", "IdentityFile ${WHERE}/c\n")
    with pytest.raises(SettingsError, match="line 1: %x is not supported here"):
        find(home, "lab1", "IdentityFile %x\n")


def test_no_identity_file_is_not_the_usual_ones(home: Path) -> None:
    assert find(home, "lab1").identities is None
    assert find(home, "lab1", "IdentityFile none\n").identities == ()
    assert find(home, "lab1", "IdentitiesOnly yes\n").only_identities


@pytest.mark.parametrize(
    ("value", "agent"),
    [("none", "none"), ("SSH_AUTH_SOCK", ""), ("~/agent", "{home}/agent"), ("$OTHER", "/o"), ("${OTHER}/x", "/o/x")],
)
def test_the_agent_may_be_named(home: Path, monkeypatch: pytest.MonkeyPatch, value: str, agent: str) -> None:
    monkeypatch.setenv("OTHER", "/o")
    assert find(home, "lab1", f"IdentityAgent {value}\n").agent == agent.format(home=home)


def test_rules_for_host_keys_are_the_configurations(home: Path) -> None:
    config = "UserKnownHostsFile ~/a %d/b\nGlobalKnownHostsFile none\nStrictHostKeyChecking yes\nRevokedHostKeys ~/r\n"
    found = find(home, "lab1", f"{config}HostKeyAlias alias\n")
    assert found.host_keys == HostKeyRules((f"{home}/a", f"{home}/b"), (), strict=True, revoked=home / "r")
    assert found.entry == "alias"
    assert find(home, "lab1", "StrictHostKeyChecking accept-new\n").host_keys == HostKeyRules()
