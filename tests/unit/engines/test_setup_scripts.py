"""How a host is set up and restored, and the files that it gets."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloudscale.engines import setup as provision
from cloudscale.engines.certificates import Authority
from cloudscale.engines.setup import UNIT, apply, release, tar
from cloudscale.errors import ConnectionFailed, MachineError
from cloudscale.hosts.facts import read_facts
from cloudscale.model import TIMED_OUT, CommandResult
from tests.unit.engines.settling import needed, settle, with_settings
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost, facts
from tests.unit.scripts import script_text

# --- apply and release -----------------------------------------------------------------------


def test_a_host_is_read_without_being_changed() -> None:
    host = FakeHost()
    assert read_facts(host) == facts()  # type: ignore[arg-type]
    assert host.calls == [("facts",)]
    assert host.data == b""


def failing(script: str, exit_code: int, stderr: str = "") -> Any:
    return FakeHost(failures={script: CommandResult(exit_code, "", stderr)})


def test_a_host_that_can_not_be_read_is_reported_with_the_cause() -> None:
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: could not read its state \(base64: not found\)\."):
        read_facts(failing("facts", 127, "hello\nbase64: not found\n"))
    with pytest.raises(MachineError, match=r"could not read its state \(no reason given\)\."):
        read_facts(failing("facts", 1))


def test_an_engine_is_set_up_by_one_script_which_gets_its_files_as_input(bio: Authority) -> None:
    for values, what in ((FRESH, "install"), (WITH_ENGINE, "keep")):
        host = FakeHost(values=dict(values))
        setup = needed(host, bio)
        apply(host, setup)  # type: ignore[arg-type]
        assert host.calls == [("engine-up", what)]
        assert host.files == setup.files


def test_no_secret_is_in_a_command_line_or_a_representation(bio: Authority) -> None:
    host = FakeHost()
    setup = needed(host, bio)
    apply(host, setup)  # type: ignore[arg-type]
    release(host, host.facts)  # type: ignore[arg-type]
    assert "PRIVATE" not in repr((setup, host.calls, host.commands))
    assert "PRIVATE" not in "".join(script_text(name) for name in ("facts", "engine-up", "engine-down"))


def test_the_authoritys_and_the_trainers_keys_stay_here(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    for own in ("ca-key.pem", "client.pem"):
        key = (bio.folder / own).read_text().rpartition("-----BEGIN PRIVATE KEY-----")[2]
        assert len(key) > 100
        assert not any(key.encode() in data for data in setup.files.values())


def test_an_engine_that_does_not_start_is_reported_with_its_own_message(bio: Authority) -> None:
    output = (
        "Created symlink /etc/systemd/system/multi-user.target.wants/docker.service\n"
        "cloudscale: the engine does not start: failed to load listeners: no sockets found\n"
        "sudo: unable to resolve host m1\n"
    )
    host = failing("engine-up", 1, output)
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: the engine does not start: .* no sockets found\.\n"):
        apply(host, needed(host, bio))


def test_a_failure_without_a_message_of_ours_is_reported_with_the_last_line(bio: Authority) -> None:
    host = failing("engine-up", 2, "Reading\ntar: short read\n\n")
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: tar: short read\.\n"):
        apply(host, needed(host, bio))


def test_a_setup_that_takes_too_long_is_reported(bio: Authority) -> None:
    host = failing("engine-up", TIMED_OUT, "Get:1 http://deb.debian.org\n")
    with pytest.raises(MachineError, match=f"was not set up within {provision.INSTALLING} s"):
        apply(host, needed(host, bio))


def test_a_connection_that_is_lost_meanwhile_is_reported(bio: Authority) -> None:
    host: Any = FakeHost()
    setup, before = needed(host, bio), host.facts
    host.is_lost = True
    for step in (lambda: read_facts(host), lambda: apply(host, setup), lambda: release(host, before)):
        with pytest.raises(ConnectionFailed, match="the connection is lost"):
            step()


def test_an_engine_that_can_not_be_restored_is_reported(bio: Authority) -> None:
    host = failing("engine-down", 1, "cloudscale: the engine's packages can't be removed\n")
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: the engine's packages can't be removed\.\n"):
        release(settle(host, bio), host.facts)  # type: ignore[arg-type]


def test_invalid_settings_are_not_replaced_by_the_release(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    host.values["settings"] = "{"
    with pytest.raises(MachineError, match=r"daemon\.json is not valid JSON"):
        release(host, host.facts)  # type: ignore[arg-type]


# --- files -----------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_files_belong_to_root_and_only_root_can_read_secret_ones(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    packed = members(tar(setup.files))
    assert {f"/{name}" for name in packed} == {*setup.files}
    assert {(member.uid, member.gid) for member in packed.values()} == {(0, 0)}
    assert all(member.isfile() for member in packed.values())
    modes = {f"/{name}": member.mode for name, member in packed.items()}
    assert modes.pop(UNIT) == 0o644
    assert {*modes.values()} == {0o600}  # daemon.json may hold the password of a proxy


@given(st.dictionaries(st.from_regex(r"/[a-z]{1,8}/[a-z]{1,8}", fullmatch=True), st.binary(max_size=2000), max_size=4))
def test_files_arrive_as_they_were(files: dict[str, bytes]) -> None:
    host = FakeHost(data=tar(files))
    assert host.files == files
