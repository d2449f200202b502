"""The owner's settings of an engine, while the course uses it and afterwards."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cloudscale.course.settings import SeatSettings
from cloudscale.engines import setup as provision
from cloudscale.engines.certificates import Authority, authority
from cloudscale.engines.setup import MARK, UNIT, apply, release
from cloudscale.hosts.firewall import SCRIPT, firewall
from cloudscale.networks import ENGINE_NETWORKS
from tests.unit.engines.settling import HOST, needed, settings_of, settle, setup_for, with_settings
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost

CE_START = "ExecStart={ path=/usr/bin/dockerd ; argv[]=/usr/bin/dockerd %s ; ignore_errors=no ; pid=0 }\n"


@pytest.mark.parametrize(
    ("values", "first"),
    [
        (FRESH, "fd://"),
        (WITH_ENGINE, "fd://"),
        ({**WITH_ENGINE, "start": CE_START % "-H fd:// --debug"}, "fd://"),
        # systemd passes no socket to these, and an engine that asks for one would not start
        ({**WITH_ENGINE, "start": CE_START % "-H unix:///run/docker.sock"}, "unix:///var/run/docker.sock"),
        ({**WITH_ENGINE, "start": CE_START % "--debug"}, "unix:///var/run/docker.sock"),
    ],
)
def test_an_engine_gets_its_socket_where_it_had_it_before(
    bio: Authority, values: Mapping[str, str], first: str
) -> None:
    host = FakeHost(values=dict(values))
    assert settings_of(needed(host, bio))["hosts"] == [first, "tcp://0.0.0.0:2376"]
    assert setup_for(settle(host, bio), bio) is None  # although the start command no longer contains it
    host.values["settings"] = ""
    assert settings_of(needed(host, bio))["hosts"][0] == first


NEW = {**WITH_ENGINE, "engine": "Docker version 29.1.3, build 297e128\n"}


def test_an_engine_that_could_use_nftables_uses_iptables(bio: Authority) -> None:
    host = FakeHost(values=dict(NEW))
    assert settings_of(needed(host, bio))["firewall-backend"] == "iptables"
    assert setup_for(settle(host, bio), bio) is None
    assert "firewall-backend" not in settings_of(needed(FakeHost(values=dict(WITH_ENGINE)), bio))


def test_an_engine_that_the_course_installed_is_not_restarted_for_a_default(bio: Authority) -> None:
    host = settle(FakeHost(values=dict(FRESH)), bio)
    host.values["engine"] = NEW["engine"]
    assert setup_for(host, bio) is None


@pytest.mark.parametrize("flag", ["--firewall-backend=nftables", "--firewall-backend nftables"])
def test_an_owners_nftables_serves_again_after_the_course(bio: Authority, flag: str) -> None:
    theirs = json.dumps({"firewall-backend": "nftables"})
    host = FakeHost(values={**NEW, "settings": theirs, "start": CE_START % f"-H fd:// {flag}"})
    assert settings_of(needed(host, bio))["firewall-backend"] == "iptables"
    assert b"nftables" not in needed(host, bio).files[UNIT]
    settle(host, bio)
    release(host, host.facts)  # type: ignore[arg-type]
    assert json.loads(host.values["settings"]) == json.loads(theirs)


def test_the_owners_containers_keep_their_network(bio: Authority) -> None:
    closed = {"icc": False, "no-new-privileges": True}
    for containers in (0, 3):
        host = FakeHost(values={**WITH_ENGINE, "swarm": f"inactive {containers}\n"})
        settings = settings_of(needed(host, bio))
        assert {name: settings[name] for name in closed if name in settings} == ({} if containers else closed)
        settle(host, bio)
        # later runs keep that choice: by then the containers are the course's, and are not counted
        assert host.facts.own_containers == 0
        assert setup_for(host, bio) is None
        host.values["settings"] = ""
        assert {*closed} <= {*settings_of(needed(host, bio))} or containers
        assert not {*closed} & {*settings_of(needed(host, bio))} or not containers


@pytest.mark.parametrize("theirs", [{"icc": True}, {"icc": False}])
def test_an_owner_who_sets_one_of_two_is_not_changed(bio: Authority, theirs: dict[str, bool]) -> None:
    host = settle(with_settings(theirs), bio)
    assert setup_for(host, bio) is None


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
    # with both a flag and a setting, an engine does not start
    host = FakeHost(values={**WITH_ENGINE, "start": CE_START % f"-H fd:// {flags}"})
    setup = needed(host, bio)
    assert not names & {*settings_of(setup)}
    assert setup.files[UNIT].decode().endswith(f"/usr/bin/dockerd {flags}\n")


def test_an_engine_that_is_started_with_a_flag_of_two_is_not_changed(bio: Authority) -> None:
    host = settle(FakeHost(values={**WITH_ENGINE, "start": CE_START % "-H fd:// --icc=false"}), bio)
    assert setup_for(host, bio) is None


def test_an_engine_never_goes_on_listening_after_the_course(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    settings = host.values["settings"]
    setup = needed(host, bio, "2001:db8::5054:ff:fe12:3456")
    host.values["mark"] = setup.files[MARK].decode()  # the engine did not start with [::], and engine-up.sh undid it
    assert host.values["settings"] == settings
    release(host, host.facts)  # type: ignore[arg-type]
    assert "hosts" not in json.loads(host.values["settings"])


def test_the_owners_settings_take_precedence_except_for_sockets_and_certificates(bio: Authority) -> None:
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
def test_logs_are_limited_unless_the_owner_configured_them(
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
def test_the_settings_are_restored_exactly(bio: Authority, text: str) -> None:
    host = with_settings(text)
    assert release(settle(host, bio), host.facts) == "engine restored"  # type: ignore[arg-type]
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


def test_an_engine_of_ours_is_removed_with_its_settings(bio: Authority) -> None:
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
    assert setup_for(host, bio) is None
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
    made_once = authority(tmp_path_factory.mktemp("bio"), "bio")
    assert made_once
    return made_once


def is_half_open(theirs: Mapping[str, Any]) -> bool:
    """The case of test_an_owner_who_sets_one_of_two_is_not_changed."""
    return "icc" in theirs and "no-new-privileges" not in theirs


@given(owners_settings, st.sampled_from([FRESH, WITH_ENGINE]))
def test_with_any_settings_a_setup_is_complete_and_can_be_undone(
    signer: Authority, theirs: dict[str, Any], values: Mapping[str, str]
) -> None:
    assume(not is_half_open(theirs))
    text = json.dumps(theirs)
    host = settle(FakeHost(values={**values, "settings": text}), signer)
    assert setup_for(host, signer) is None
    assert provision._without(json.loads(host.values["settings"]), host.facts, "m1") == theirs
    assert provision._restored(host.facts, "m1").decode() == text


@given(owners_settings, owners_settings)
def test_changes_by_the_owner_are_not_lost(signer: Authority, theirs: dict[str, Any], later: dict[str, Any]) -> None:
    assume(not is_half_open(theirs) and not is_half_open({**theirs, **later}))
    ours = {"hosts", "tlsverify", "tlscacert", "live-restore"}
    later = {name: value for name, value in later.items() if name not in ours}
    host = settle(with_settings(theirs), signer)
    host.values["settings"] = json.dumps({**json.loads(host.values["settings"]), **later})
    settle(host, signer)
    assert setup_for(host, signer) is None
    kept = json.loads(provision._restored(host.facts, "m1") or b"{}")
    added = json.loads(host.values["mark"])["settings"]
    for name, value in later.items():
        assert kept.get(name) == value or added.get(name) == value  # to write the same value as ours is no change


# --- the walls around seats ------------------------------------------------------------------


def test_seats_have_walls_where_all_containers_are_theirs(bio: Authority) -> None:
    for values in (FRESH, WITH_ENGINE):
        host = FakeHost(values=dict(values))
        setup = needed(host, bio)
        assert (setup.files[SCRIPT].decode(), setup.warning) == (firewall(), "")
        assert setup_for(settle(host, bio), bio) is None


@pytest.mark.parametrize(
    "change",
    [
        {"swarm": "inactive 2\n"},  # containers of others, which the walls would close in as well
        {"settings": '{"iptables": false}'},
        {"settings": '{"bridge": "none"}'},
        {"start": CE_START % "-H fd:// --iptables=false"},
    ],
)
def test_and_none_elsewhere(bio: Authority, change: Mapping[str, str]) -> None:
    host = FakeHost(values={**WITH_ENGINE, **change})
    setup = needed(host, bio)
    assert SCRIPT not in setup.files and "can reach the machine" in setup.warning
    assert setup_for(settle(host, bio), bio) is None


QUOTAS = {"quotas": "xfs rw,relatime,prjquota\n"}


def test_where_there_are_quotas_the_engine_says_so_and_limits_what_containers_write(bio: Authority) -> None:
    host = FakeHost(values={**WITH_ENGINE, **QUOTAS, "settings": '{"labels": ["floor=2"]}'})
    settings = settings_of(needed(host, bio))
    assert settings["labels"] == ["floor=2", "cloudscale.quotas=yes"]
    assert settings["storage-opts"] == [f"overlay2.size={10 << 30}"]
    settled = settle(host, bio)
    assert setup_for(settled, bio) is None
    other = provision.wanted_setup(settled.facts, HOST, HOST, "bio", bio, [HOST], SeatSettings(disk=1 << 30))
    assert other and other.reasons == ("settings", "record")


@pytest.mark.parametrize(
    ("settings", "engine"),
    [
        ({"storage-driver": "btrfs"}, "20.10.24"),
        ({"storage-opts": ["overlay2.size=3G"]}, "26.1.5"),
        ({}, "29.1.3"),  # keeps images in containerd, and knows no such option
    ],
)
def test_an_engine_whose_storage_is_another_limits_volumes_only(
    bio: Authority, settings: dict[str, Any], engine: str
) -> None:
    values = {**WITH_ENGINE, **QUOTAS, "engine": f"Docker version {engine}, build 1\n"}
    found = settings_of(needed(FakeHost(values={**values, "settings": json.dumps(settings)}), bio))
    assert found["labels"] == ["cloudscale.quotas=yes"]
    assert found.get("storage-opts") == settings.get("storage-opts")


def test_other_walls_restart_no_engine(bio: Authority) -> None:
    settled = settle(FakeHost(), bio)
    changed = provision.wanted_setup(settled.facts, HOST, HOST, "bio", bio, seat=SeatSettings(reach=["192.0.2.7:5432"]))
    assert changed and changed.reasons == ("firewall",) and not changed.restarts
    assert changed.files.keys() == {MARK, SCRIPT}
    apply(settled, changed)  # type: ignore[arg-type]
    assert settled.calls[-1] == ("engine-up", "firewall")
    assert settled.values["firewall"] == firewall(["192.0.2.7/32:5432"])
    both = provision.wanted_setup(settled.facts, "other.example", HOST, "bio", bio)
    assert both and both.restarts
