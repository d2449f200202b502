from __future__ import annotations

import datetime
import io
import json
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudscale import certificates, provision
from cloudscale.certificates import Authority, authority
from cloudscale.errors import ConnectionFailed, MachineError
from cloudscale.hostfacts import ENGINE_NETWORKS
from cloudscale.model import TIMED_OUT, CommandResult
from cloudscale.provision import MARK, SETTINGS, TLS, UNIT, Setup, apply, check, read_facts, release, tar, wanted_setup
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost, facts

HOST = "192.0.2.11"
CERTIFICATE = [f"{TLS}/cert.pem", f"{TLS}/key.pem"]


@pytest.fixture
def bio(tmp_path: Path) -> Authority:
    found = authority(tmp_path / "bio", "bio")
    assert found
    return found


@pytest.fixture
def geo(tmp_path: Path) -> Authority:
    found = authority(tmp_path / "geo", "geo")
    assert found
    return found


def wanted(host: FakeHost, bio: Authority, name: str = HOST) -> Setup | None:
    """As a driver asks for it."""
    return wanted_setup(host.facts, name, host.facts.own_address(name, host.peer), "bio", bio)


def needed(host: FakeHost, bio: Authority, name: str = HOST) -> Setup:
    setup = wanted(host, bio, name)
    assert setup
    return setup


def settle(host: FakeHost, bio: Authority) -> FakeHost:
    """Sets it up as a launch does."""
    setup = wanted(host, bio)
    if setup:
        apply(host, setup)  # type: ignore[arg-type]
    return host


def settings_of(setup: Setup) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(setup.files[SETTINGS])
    return found


def with_settings(settings: Mapping[str, Any] | str, indent: int | None = 4) -> FakeHost:
    """A host with an engine of its own, with these settings."""
    text = settings if isinstance(settings, str) else json.dumps(settings, indent=indent)
    return FakeHost(values={**WITH_ENGINE, "settings": text})


# --- a host that can't serve -----------------------------------------------------------------


def test_a_fresh_host_and_one_with_an_engine_can_serve(bio: Authority) -> None:
    for values in (FRESH, WITH_ENGINE):
        check(facts(values), "m1", "bio", bio)
        check(facts(values), "m1", "bio", None)


def test_a_host_of_the_course_can_serve_it_again(bio: Authority) -> None:
    check(settle(FakeHost(), bio).facts, "m1", "bio", bio)


def refusal(
    course: str = "bio", signer: Authority | None = None, values: Mapping[str, str] = FRESH, **facts_: str
) -> str:
    with pytest.raises(MachineError) as raised:
        check(facts(values, **facts_), "m1", course, signer)
    assert raised.value.message.startswith("m1: ")
    return str(raised.value)


def test_a_host_of_another_course_is_left_to_it(bio: Authority, geo: Authority) -> None:
    host = settle(FakeHost(), bio)
    said = refusal("geo", geo, host.values)
    assert "serves the course 'bio'" in said
    assert "driver_reset" in said


def test_a_host_of_another_trainers_course_of_the_same_name_is_left_to_it(bio: Authority, geo: Authority) -> None:
    host = settle(FakeHost(), bio)
    for other in (geo, None):
        said = refusal("bio", other, host.values)
        assert "other certificates than yours" in said
        assert "Copy the course's folder" in said


@pytest.mark.parametrize("state", ["active", "pending", "locked", "error"])
def test_a_host_in_somebodys_swarm_is_left_to_it(bio: Authority, state: str) -> None:
    assert "docker swarm leave" in refusal(signer=bio, values=WITH_ENGINE, swarm=f"{state}\n")


def test_a_host_without_systemd_is_told(bio: Authority) -> None:
    said = refusal(signer=bio, systemd="", os="PRETTY_NAME=Devuan\n")
    assert "not systemd (Devuan)" in said


def test_a_host_without_an_engine_needs_apt(bio: Authority) -> None:
    assert "no Docker Engine and no apt-get" in refusal(signer=bio, apt="", os="PRETTY_NAME=Fedora\n")
    assert "an unknown system" in refusal(signer=bio, apt="", os="")
    check(facts(WITH_ENGINE, apt=""), "m1", "bio", bio)


def test_an_engine_that_is_too_old_is_told_with_the_oldest_that_will_do(bio: Authority) -> None:
    said = refusal(signer=bio, values=WITH_ENGINE, engine="Docker version 19.03.15, build 99e3ed8\n")
    assert "20.10 is the oldest that will do" in said
    check(facts(WITH_ENGINE, engine="Docker version 20.10.0, build eeddea2\n"), "m1", "bio", bio)


def test_an_old_engine_is_called_as_it_calls_itself(bio: Authority) -> None:
    assert "19.03" in refusal(signer=bio, values=WITH_ENGINE, engine="Docker version 19.03.15, build 99e3ed8\n")


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "{'icc': false}", "{} {}"])
def test_settings_that_an_engine_would_not_take_are_told(bio: Authority, text: str) -> None:
    assert "daemon.json is not JSON" in refusal(signer=bio, values=WITH_ENGINE, settings=text)


@pytest.mark.parametrize("text", ["", "{}", "\n"])
def test_no_settings_are_settings_too(bio: Authority, text: str) -> None:
    check(facts(WITH_ENGINE, settings=text), "m1", "bio", bio)


# --- what is wanted --------------------------------------------------------------------------


def test_a_fresh_host_needs_all_of_it(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    assert setup.install
    assert sorted(setup.files) == sorted([MARK, SETTINGS, UNIT, f"{TLS}/ca.pem", *CERTIFICATE])
    assert "it has no engine" in setup.reasons
    settings = settings_of(setup)
    assert settings["hosts"] == ["fd://", "tcp://0.0.0.0:2376"]
    assert settings["tlsverify"] is True
    assert {settings[name] for name in ("tlscacert", "tlscert", "tlskey")} <= {*setup.files}
    assert settings["mtu"] == 1450
    assert settings["default-address-pools"] == [{"base": ENGINE_NETWORKS[0], "size": 20}]
    assert settings["log-opts"]["max-size"]


def test_the_files_belong_together(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    assert setup.files[f"{TLS}/ca.pem"] == bio.pem
    own = ["127.0.0.1", "192.0.2.11", "2001:db8::5054:ff:fe12:3456"]
    assert bio.fault(setup.files[f"{TLS}/cert.pem"], own) == ""
    assert json.loads(setup.files[MARK]) == {
        "course": "bio",
        "authority": bio.fingerprint,
        "settings": settings_of(setup),
    }


def test_an_engine_is_certified_for_what_it_is_called(bio: Authority) -> None:
    for name in ("host.example", "203.0.113.5"):  # a name; a floating IP, which the host itself does not know
        assert bio.fault(needed(FakeHost(), bio, name).files[f"{TLS}/cert.pem"], [name, HOST]) == ""


def test_a_host_with_an_engine_keeps_it(bio: Authority) -> None:
    setup = needed(FakeHost(values=dict(WITH_ENGINE)), bio)
    assert not setup.install
    assert "default-address-pools" not in settings_of(setup)  # its networks are there already


def test_an_engine_listens_where_the_settings_say_and_starts_as_it_did_before(bio: Authority) -> None:
    start = "ExecStart={ path=/opt/dockerd ; argv[]=/opt/dockerd -H fd:// --debug ; pid=0 }\n"
    unit = needed(FakeHost(values={**WITH_ENGINE, "start": start}), bio).files[UNIT].decode()
    assert unit.splitlines()[-3:] == ["[Service]", "ExecStart=", "ExecStart=/opt/dockerd --debug"]
    fresh = needed(FakeHost(), bio).files[UNIT].decode()
    assert " -H" not in fresh
    assert "ExecStart=dockerd --containerd=" in fresh


def test_our_start_comes_after_the_owners() -> None:
    assert Path(UNIT).name > "override.conf"  # which `systemctl edit` makes


def test_the_engine_of_an_ipv6_host_listens_there_too(bio: Authority) -> None:
    address = "2001:db8::5054:ff:fe12:3456"
    assert settings_of(needed(FakeHost(), bio, address))["hosts"] == ["fd://", "tcp://[::]:2376"]


@pytest.mark.parametrize("host", ["2001:DB8::5054:ff:fe12:3456", "2001:db8::8c3:9f2a:1e5:77d0"])
def test_an_engine_listens_where_the_trainer_calls_the_host(bio: Authority, host: str) -> None:
    assert settings_of(needed(FakeHost(), bio, host))["hosts"] == ["fd://", "tcp://[::]:2376"]


@pytest.mark.parametrize("values", [FRESH, WITH_ENGINE, {**WITH_ENGINE, "settings": '{"live-restore": true}'}])
def test_a_host_that_is_ready_needs_nothing(bio: Authority, values: Mapping[str, str]) -> None:
    host = settle(FakeHost(values=dict(values)), bio)
    assert wanted(host, bio) is None


def test_a_host_that_is_called_something_else_gets_another_certificate_and_no_more(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    setup = needed(host, bio, "host.example")
    assert sorted(setup.files) == sorted([MARK, *CERTIFICATE])
    assert setup.files[MARK].decode() == host.values["mark"]
    assert setup.reasons == ("its certificate: it does not name host.example",)
    assert not setup.install


def test_a_host_with_another_address_gets_another_certificate(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["addresses"] = FRESH["addresses"].replace("192.0.2.11", "192.0.2.77")
    assert bio.fault(needed(host, bio, "192.0.2.77").files[f"{TLS}/cert.pem"], ["192.0.2.77"]) == ""


def test_a_further_address_that_lasts_is_named_by_the_certificate_too(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["addresses"] += "7: ens4    inet 10.6.0.2/24 scope global ens4\\       valid_lft forever\n"
    setup = needed(host, bio)
    assert setup.reasons == ("its certificate: it does not name 10.6.0.2",)
    assert bio.fault(setup.files[f"{TLS}/cert.pem"], ["10.6.0.2", HOST]) == ""
    assert wanted(settle(host, bio), bio) is None


@pytest.mark.parametrize(
    "line", ["7: wg0    inet 10.6.0.2/24 scope global wg0", "7: virbr0    inet 10.6.0.1/24 global"]
)
def test_a_tunnel_or_a_network_of_virtual_machines_changes_nothing(bio: Authority, line: str) -> None:
    host = settle(FakeHost(), bio)
    host.values["addresses"] += f"{line}\\       valid_lft forever\n"
    assert wanted(host, bio) is None


def test_a_certificate_is_renewed_before_its_end(bio: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    host = settle(FakeHost(), bio)
    later = certificates._now() + datetime.timedelta(days=380)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    setup = needed(host, bio)
    assert setup.reasons[0].startswith("its certificate: it ends on ")
    assert bio.fault(setup.files[f"{TLS}/cert.pem"]) == ""


@pytest.mark.parametrize("lost", ["key", "certificate", "authority", "unit", "settings", "ready"])
def test_what_got_lost_is_put_back(bio: Authority, lost: str) -> None:
    host = settle(FakeHost(), bio)
    complete = dict(host.values)
    host.values[lost] = ""
    settle(host, bio)
    assert {name for name, value in host.values.items() if not value} == {n for n, v in complete.items() if not v}
    assert wanted(host, bio) is None


def test_a_mark_that_got_lost_is_put_back(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["mark"] = ""  # what a power cut makes of a file that was just written
    setup = needed(host, bio)
    assert "its record" in setup.reasons
    assert json.loads(setup.files[MARK])["course"] == "bio"
    assert wanted(settle(host, bio), bio) is None
    assert release(host, host.facts) == "engine removed"  # type: ignore[arg-type]


def test_an_engine_of_the_owners_whose_mark_got_lost_is_given_back_all_the_same(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    host.values["mark"] = ""
    settle(host, bio)
    release(host, host.facts)  # type: ignore[arg-type]
    assert json.loads(host.values["settings"]) == {"debug": True}


def test_a_mark_of_other_settings_is_written_anew(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    mark = json.loads(host.values["mark"])
    host.values["mark"] = json.dumps({**mark, "settings": {**mark["settings"], "debug": True}})
    setup = needed(host, bio)
    assert setup.reasons == ("its record",)
    assert json.loads(setup.files[MARK]) == mark


def test_an_engine_that_does_not_run_is_started(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["active"] = "failed\n"
    assert needed(host, bio) == Setup(False, needed(host, bio).files, ("it does not run",))


def test_an_installation_that_was_cut_off_is_finished(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["ready"] = ""
    setup = needed(host, bio)
    assert setup.install
    assert setup.reasons == ("its installation was cut off", "its record")


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("key", "its certificate: there is none"),
        ("certificate", "its certificate: it is not of this course"),
        ("authority", "its authority"),
        ("unit", "its unit"),
        ("settings", "its settings"),
        ("mark", "its record"),
    ],
)
def test_whatever_is_put_back_says_why(bio: Authority, lost: str, reason: str) -> None:
    host = settle(FakeHost(), bio)
    assert needed(FakeHost(values={**host.values, lost: ""}), bio).reasons == (reason,)


# --- the owner's settings --------------------------------------------------------------------


CE_START = "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd %s ; ignore_errors=no ; pid=0 }\n"


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (FRESH, "fd://"),
        (WITH_ENGINE, "fd://"),
        ({**WITH_ENGINE, "start": CE_START % "-H fd:// --debug"}, "fd://"),
        # there systemd hands over no socket, and an engine that asks for one does not start
        ({**WITH_ENGINE, "start": CE_START % "-H unix:///run/docker.sock"}, "unix:///var/run/docker.sock"),
        ({**WITH_ENGINE, "start": CE_START % "--debug"}, "unix:///var/run/docker.sock"),
    ],
)
def test_an_engine_gets_its_socket_where_it_had_it_before(
    bio: Authority, values: Mapping[str, str], first: str
) -> None:
    host = FakeHost(values=dict(values))
    assert settings_of(needed(host, bio))["hosts"] == [first, "tcp://0.0.0.0:2376"]
    assert wanted(settle(host, bio), bio) is None  # though the start command does not tell it any more
    host.values["settings"] = ""
    assert settings_of(needed(host, bio))["hosts"][0] == first


def test_what_the_owner_runs_there_already_is_not_cut_off(bio: Authority) -> None:
    closed = {"icc": False, "no-new-privileges": True}
    for containers in (0, 3):
        host = FakeHost(values={**WITH_ENGINE, "swarm": f"inactive {containers}\n"})
        settings = settings_of(needed(host, bio))
        assert {name: settings[name] for name in closed if name in settings} == ({} if containers else closed)
        settle(host, bio)
        # later runs keep to it: the containers that are there by then are the course's, and are not asked after
        assert host.facts.own_containers == 0
        assert wanted(host, bio) is None
        host.values["settings"] = ""
        assert {*closed} <= {*settings_of(needed(host, bio))} or containers
        assert not {*closed} & {*settings_of(needed(host, bio))} or not containers


@pytest.mark.parametrize("theirs", [{"icc": True}, {"icc": False}])
def test_an_owner_who_settles_one_of_two_is_left_in_peace(bio: Authority, theirs: dict[str, bool]) -> None:
    host = settle(with_settings(theirs), bio)
    assert wanted(host, bio) is None


@pytest.mark.parametrize(
    ("flags", "names"),
    [
        ("--mtu=1300", {"mtu"}),
        ("--mtu 1300 --icc", {"mtu", "icc"}),
        ("--no-new-privileges", {"no-new-privileges"}),
        ("--log-driver=journald", {"log-driver", "log-opts"}),
        ("--log-opt max-size=1g", {"log-driver", "log-opts"}),
    ],
)
def test_what_the_engine_is_started_with_is_not_among_the_settings(bio: Authority, flags: str, names: set[str]) -> None:
    # told twice, it does not start
    host = FakeHost(values={**WITH_ENGINE, "start": CE_START % f"-H fd:// {flags}"})
    setup = needed(host, bio)
    assert not names & {*settings_of(setup)}
    assert setup.files[UNIT].decode().endswith(f"/usr/bin/dockerd {flags}\n")


def test_an_engine_that_is_started_with_a_flag_of_two_is_left_in_peace(bio: Authority) -> None:
    host = settle(FakeHost(values={**WITH_ENGINE, "start": CE_START % "-H fd:// --icc=false"}), bio)
    assert wanted(host, bio) is None


def test_an_engine_never_goes_on_listening_after_the_course(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    settings = host.values["settings"]
    setup = needed(host, bio, "2001:db8::5054:ff:fe12:3456")
    host.values["mark"] = setup.files[
        MARK
    ].decode()  # the engine did not start with [::], and engine-up.sh took it back
    assert host.values["settings"] == settings
    release(host, host.facts)  # type: ignore[arg-type]
    assert "hosts" not in json.loads(host.values["settings"])


def test_the_owners_settings_win_but_for_where_the_engine_listens_and_whom_it_trusts(bio: Authority) -> None:
    theirs = {
        "icc": True,
        "log-driver": "journald",
        "mtu": 1300,
        "data-root": "/srv/docker",
        "no-new-privileges": False,
        "hosts": ["tcp://0.0.0.0:2375"],
        "tlsverify": False,
    }
    settings = settings_of(needed(with_settings(theirs), bio))
    assert {name: settings[name] for name in theirs} == {
        **theirs,
        "hosts": ["fd://", "tcp://0.0.0.0:2376"],
        "tlsverify": True,
    }
    assert "log-opts" not in settings  # of another driver


@pytest.mark.parametrize(
    ("theirs", "has_limits"),
    [
        ({}, True),
        ({"log-driver": "json-file"}, True),
        ({"log-driver": "local"}, False),
        ({"log-opts": {"max-size": "1g"}}, False),
        ({"log-driver": "json-file", "log-opts": {"labels": "a"}}, False),
    ],
)
def test_logs_are_limited_where_the_owner_says_nothing(
    bio: Authority, theirs: Mapping[str, Any], has_limits: bool
) -> None:
    settings = settings_of(needed(with_settings(theirs), bio))
    assert (settings.get("log-opts") == {"max-size": "10m", "max-file": "3"}) == has_limits
    assert settings.get("log-driver") == theirs.get("log-driver", "json-file" if has_limits else None)


def test_a_swarm_and_live_restore_do_not_go_together(bio: Authority) -> None:
    host = with_settings({"live-restore": True})
    assert settings_of(needed(host, bio))["live-restore"] is False
    release(settle(host, bio), host.facts)  # type: ignore[arg-type]
    assert json.loads(host.values["settings"]) == {"live-restore": True}


@pytest.mark.parametrize("text", ["", "{}", '{"icc":true,\n\t"labels": ["é"]}', '{\n  "live-restore": true }\n\n'])
def test_an_engine_gets_its_settings_back_to_the_letter(bio: Authority, text: str) -> None:
    host = with_settings(text)
    assert release(settle(host, bio), host.facts) == "engine as before"  # type: ignore[arg-type]
    assert host.values == host.fresh
    assert host.data == text.encode()


def test_what_the_owner_changed_meanwhile_is_kept(bio: Authority) -> None:
    host = settle(with_settings({"debug": True, "live-restore": True, "labels": ["a"]}), bio)
    changed = {**json.loads(host.values["settings"]), "icc": True, "dns": ["192.0.2.2"], "debug": False}
    del changed["labels"]
    host.values["settings"] = json.dumps(changed)
    settle(host, bio)  # another launch in between changes nothing of it
    release(host, host.facts)  # type: ignore[arg-type]
    kept = {"icc": True, "dns": ["192.0.2.2"], "debug": False, "live-restore": True}
    assert json.loads(host.values["settings"]) == kept


def test_an_engine_of_ours_goes_with_its_settings(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    assert release(host, host.facts) == "engine removed"  # type: ignore[arg-type]
    assert host.data == b""
    assert host.values == host.fresh


def test_a_range_for_networks_is_kept_as_long_as_it_is_free(bio: Authority) -> None:
    first, second = ENGINE_NETWORKS[:2]
    tunnel = "{} dev wg0 proto kernel scope link\n"
    host = FakeHost(values={**FRESH, "routes": FRESH["routes"] + tunnel.format("198.19.0.0/24")})
    settle(host, bio)
    assert json.loads(host.values["settings"])["default-address-pools"][0]["base"] == second
    host.values["routes"] = FRESH["routes"]
    assert wanted(host, bio) is None
    host.values["routes"] = FRESH["routes"] + tunnel.format("172.17.0.0/24")
    assert settings_of(needed(host, bio))["default-address-pools"][0]["base"] == first


def test_the_owners_ranges_for_networks_are_kept(bio: Authority) -> None:
    for theirs in ({"default-address-pools": [{"base": "10.1.0.0/16", "size": 24}]}, {"bip": "10.1.0.1/24"}):
        settings = settings_of(needed(FakeHost(values={**FRESH, "settings": json.dumps(theirs)}), bio))
        assert {name: settings.get(name) for name in ("default-address-pools", "bip") if name in settings} == theirs


values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 3000) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
keys = st.sampled_from(
    [
        *("hosts", "tlsverify", "tlscacert", "icc", "mtu", "log-driver", "log-opts", "live-restore"),
        *("no-new-privileges", "default-address-pools", "bip", "debug", "data-root"),
    ]
)
owners_settings = st.dictionaries(keys, values, max_size=6) | st.fixed_dictionaries(
    {},
    optional={
        "hosts": st.just(["fd://", "tcp://0.0.0.0:2376"]),
        "tlsverify": st.just(True),
        "icc": st.just(False),
        "mtu": st.just(1450),
        "live-restore": st.booleans(),
        "log-driver": st.sampled_from(["json-file", "local"]),
    },
)


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """One for many examples."""
    found = authority(tmp_path_factory.mktemp("bio"), "bio")
    assert found
    return found


def is_half_open(theirs: Mapping[str, Any]) -> bool:
    """What test_an_owner_who_settles_one_of_two_is_left_in_peace is about."""
    return "icc" in theirs and "no-new-privileges" not in theirs


@given(owners_settings, st.sampled_from([FRESH, WITH_ENGINE]))
def test_whatever_the_owner_had_a_setup_is_complete_and_can_be_taken_back(
    signer: Authority, theirs: dict[str, Any], values: Mapping[str, str]
) -> None:
    assume(not is_half_open(theirs))
    text = json.dumps(theirs)
    host = settle(FakeHost(values={**values, "settings": text}), signer)
    assert wanted(host, signer) is None
    assert provision._without(json.loads(host.values["settings"]), host.facts) == theirs
    assert provision._restored(host.facts, "m1").decode() == text


@given(owners_settings, owners_settings)
def test_whatever_the_owner_changes_meanwhile_is_not_lost(
    signer: Authority, theirs: dict[str, Any], later: dict[str, Any]
) -> None:
    assume(not is_half_open(theirs) and not is_half_open({**theirs, **later}))
    ours = {"hosts", "tlsverify", "tlscacert", "live-restore"}
    later = {name: value for name, value in later.items() if name not in ours}
    host = settle(with_settings(theirs), signer)
    host.values["settings"] = json.dumps({**json.loads(host.values["settings"]), **later})
    settle(host, signer)
    assert wanted(host, signer) is None
    kept = json.loads(provision._restored(host.facts, "m1") or b"{}")
    added = json.loads(host.values["mark"])["settings"]
    for name, value in later.items():
        assert kept.get(name) == value or added.get(name) == value  # who writes what we wrote has changed nothing


# --- doing it --------------------------------------------------------------------------------


def test_a_host_is_read_without_being_changed() -> None:
    host = FakeHost()
    assert read_facts(host) == facts()  # type: ignore[arg-type]
    assert host.calls == [("facts",)]
    assert host.data == b""


def failing(script: str, exit_code: int, stderr: str = "") -> Any:
    return FakeHost(failures={script: CommandResult(exit_code, "", stderr)})


def test_a_host_that_can_not_be_looked_at_is_named_with_the_cause() -> None:
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: it can't be looked at \(base64: not found\)\."):
        read_facts(failing("facts", 127, "hello\nbase64: not found\n"))
    with pytest.raises(MachineError, match=r"can't be looked at \(no reason given\)\."):
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
    assert "PRIVATE" not in "".join(provision._script(name) for name in ("facts", "engine-up", "engine-down"))


def test_the_authoritys_and_the_trainers_keys_stay_here(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    for own in ("ca-key.pem", "client.pem"):
        key = (bio.folder / own).read_text().rpartition("-----BEGIN PRIVATE KEY-----")[2]
        assert len(key) > 100
        assert not any(key.encode() in data for data in setup.files.values())


def test_an_engine_that_does_not_come_up_is_told_in_its_own_words(bio: Authority) -> None:
    said = (
        "Created symlink /etc/systemd/system/multi-user.target.wants/docker.service\n"
        "cloudscale: the engine does not start: failed to load listeners: no sockets found\n"
        "sudo: unable to resolve host m1\n"
    )
    host = failing("engine-up", 1, said)
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: the engine does not start: .* no sockets found\.\n"):
        apply(host, needed(host, bio))


def test_what_fails_without_a_word_of_ours_is_told_by_its_last(bio: Authority) -> None:
    host = failing("engine-up", 2, "Reading\ntar: short read\n\n")
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: tar: short read\.\n"):
        apply(host, needed(host, bio))


def test_a_setup_that_takes_too_long_is_told(bio: Authority) -> None:
    host = failing("engine-up", TIMED_OUT, "Get:1 http://deb.debian.org\n")
    with pytest.raises(MachineError, match=f"was not set up within {provision.INSTALLING} s"):
        apply(host, needed(host, bio))


def test_a_connection_that_is_lost_meanwhile_is_told(bio: Authority) -> None:
    host: Any = FakeHost()
    setup, found = needed(host, bio), host.facts
    host.is_lost = True
    for step in (lambda: read_facts(host), lambda: apply(host, setup), lambda: release(host, found)):
        with pytest.raises(ConnectionFailed, match="the connection is lost"):
            step()


def test_an_engine_that_can_not_be_given_back_is_told(bio: Authority) -> None:
    host = failing("engine-down", 1, "cloudscale: the engine's packages can't be removed\n")
    with pytest.raises(MachineError, match=r"^192\.0\.2\.11: the engine's packages can't be removed\.\n"):
        release(settle(host, bio), host.facts)  # type: ignore[arg-type]


def test_settings_that_somebody_broke_are_not_replaced_by_the_release(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    host.values["settings"] = "{"
    with pytest.raises(MachineError, match=r"daemon\.json is not JSON"):
        release(host, host.facts)  # type: ignore[arg-type]


# --- files -----------------------------------------------------------------------------------


def members(data: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {member.name: member for member in archive}


def test_files_are_roots_and_what_is_secret_is_roots_alone(bio: Authority) -> None:
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
