"""Our reading of SSH configurations against OpenSSH's own: `ssh -G HOST` prints what it makes of one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudscale.errors import SettingsError
from cloudscale.hosts.ssh_config import SshConfig, seconds

HOSTS = ("lab1", "lab2", "node1.example.edu")

patterns = st.lists(
    st.sampled_from(
        ["lab1", "lab2", "lab*", "lab?", "*", "*.example.edu", "!lab1", "!lab2", "!*.edu", '"lab1"', "lab[1]"]
    ),
    min_size=1,
    max_size=3,
).map(" ".join)
criteria = st.lists(
    st.sampled_from(
        ["originalhost lab1", "!originalhost lab2", "host lab*", "host *.edu,!lab1", "user ann", "!user ann", "final"]
    ),
    min_size=1,
    max_size=2,
).map(" ".join)
words = st.sampled_from(["ann", '"bob b"', "'carl'", r"d\ d", r"e\e", "f#f", 'g"g"g', "h # i", r"\"j"])
options = st.one_of(
    st.tuples(st.sampled_from(["User", "user ", "  USER"]), st.sampled_from([" ", "=", " = ", "\t"]), words).map(
        "".join
    ),
    st.sampled_from(["0", "1", "2222", "65535", "65536", "x", ""]).map("Port {}".format),
    st.sampled_from(["%h.example.edu", "192.0.2.1", "%%h", '"lab2"', "LAB9"]).map("HostName {}".format),
    st.sampled_from(["jump", "ann@jump:2222", "a,b", "none", "ssh://ann@jump:23"]).map("ProxyJump {}".format),
    st.sampled_from(["nc %h %p # x", "none", 'sh -c "x"']).map("ProxyCommand {}".format),
    st.sampled_from(["10", "1m30s", "soon"]).map("ConnectTimeout {}".format),
    st.sampled_from(["yes", "no", "true", "maybe"]).map("IdentitiesOnly {}".format),
    st.sampled_from(["~/a", "/b c", "%d/d"]).map("IdentityFile {}".format),
    st.sampled_from(["alias", '"other"']).map("HostKeyAlias {}".format),
    st.sampled_from(["# comment", "", "  ", "Host", "Match all", "Match host"]),
    patterns.map("Host {}".format),
    criteria.map("Match {}".format),
)
configurations = st.lists(options, max_size=10).map(lambda lines: "\n".join([*lines, ""]))


def of_openssh(file: Path, host: str) -> dict[str, list[str]] | None:
    """What ssh makes of a file for a host; None if it refuses the file."""
    command = ["ssh", "-G", "-F", str(file), host]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        return None
    values: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        key, _, value = line.partition(" ")
        values.setdefault(key, []).append(value)
    return values


@pytest.mark.parametrize("host", HOSTS)
@settings(max_examples=100, deadline=None, derandomize=True, database=None)
@given(text=configurations)
def test_a_configuration_says_the_same_as_to_openssh(
    tmp_path_factory: pytest.TempPathFactory, host: str, text: str
) -> None:
    folder = tmp_path_factory.mktemp("ssh")
    file, none = folder / "config", folder / "none"
    file.write_text(text)
    file.chmod(0o600)
    theirs = of_openssh(file, host)
    without = of_openssh(none_file(none), host)
    assert without
    try:
        found = SshConfig(pytest.fail, file, none).lookup(host, without["user"][0])
    except SettingsError:
        assert theirs is None, text
        return
    assert theirs is not None, text
    only = found.first("identitiesonly")
    files = [*dict.fromkeys(line.words[0] for line in found.values.get("identityfile", []))]
    ours = {
        "port": [found.first("port") or "22"],
        "user": [found.first("user") or without["user"][0]],
        "hostname": [found.host_name.lower()],
        "hostkeyalias": [found.first("hostkeyalias")],
        "identitiesonly": [{"true": "yes", "false": "no", "": "no"}.get(only, only)],
        "connecttimeout": [str(int(seconds(found.first("connecttimeout")) or 0) or "none")],
        "identityfile": files or without["identityfile"],
    }
    for key, value in ours.items():
        assert value == theirs.get(key, [""]), (key, text)
    proxy = found.values.get("proxyjump")
    kind = proxy[0].key if proxy and proxy[0].words[0].lower() != "none" else ""
    assert kind == next((key for key in ("proxyjump", "proxycommand") if key in theirs), ""), text


def none_file(file: Path) -> Path:
    file.touch(0o600)
    return file
