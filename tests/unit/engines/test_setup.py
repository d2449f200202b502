from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from cloudscale.engines import certificates
from cloudscale.engines.certificates import Authority
from cloudscale.engines.setup import MARK, SETTINGS, TLS, UNIT, Setup, apply, check, release
from cloudscale.errors import MachineError
from cloudscale.hosts.firewall import SCRIPT
from cloudscale.networks import ENGINE_NETWORKS
from tests.unit.engines.settling import CERTIFICATE, HOST, needed, settings_of, settle, setup_for, with_settings
from tests.unit.fake_host import FRESH, WITH_ENGINE, FakeHost, facts

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


def test_a_host_of_another_course_is_refused(bio: Authority, geo: Authority) -> None:
    host = settle(FakeHost(), bio)
    message = refusal("geo", geo, host.values)
    assert "in use by course 'bio'" in message
    assert "driver_reset" in message


def test_a_host_of_another_trainers_course_of_the_same_name_is_refused(bio: Authority, geo: Authority) -> None:
    host = settle(FakeHost(), bio)
    for other in (geo, None):
        message = refusal("bio", other, host.values)
        assert "other certificates than yours" in message
        assert "Copy the course's folder" in message


@pytest.mark.parametrize("state", ["active", "pending", "locked", "error"])
def test_a_host_in_another_swarm_is_refused(bio: Authority, state: str) -> None:
    message = refusal(signer=bio, values=WITH_ENGINE, swarm=f"{state}\n")
    assert "it belongs to a swarm of somebody else, so it is not used." in message  # as where the engines are asked
    assert "docker swarm leave" in message


def test_a_host_without_systemd_is_refused(bio: Authority) -> None:
    message = refusal(signer=bio, systemd="", os="PRETTY_NAME=Devuan\n")
    assert "not systemd (Devuan)" in message


def test_a_host_without_an_engine_needs_apt(bio: Authority) -> None:
    assert "no Docker Engine and no apt-get" in refusal(signer=bio, apt="", os="PRETTY_NAME=Fedora\n")
    assert "an unknown system" in refusal(signer=bio, apt="", os="")
    check(facts(WITH_ENGINE, apt=""), "m1", "bio", bio)


def test_an_engine_that_is_too_old_is_refused_with_the_oldest_that_works(bio: Authority) -> None:
    message = refusal(signer=bio, values=WITH_ENGINE, engine="Docker version 19.03.15, build 99e3ed8\n")
    assert "20.10 or later is needed" in message
    check(facts(WITH_ENGINE, engine="Docker version 20.10.0, build eeddea2\n"), "m1", "bio", bio)


def test_an_old_engine_is_reported_with_its_version(bio: Authority) -> None:
    assert "19.03" in refusal(signer=bio, values=WITH_ENGINE, engine="Docker version 19.03.15, build 99e3ed8\n")


@pytest.mark.parametrize("text", ["{", "[]", "null", '"x"', "{'icc': false}", "{} {}"])
def test_invalid_settings_are_reported(bio: Authority, text: str) -> None:
    assert "daemon.json is not valid JSON" in refusal(signer=bio, values=WITH_ENGINE, settings=text)


@pytest.mark.parametrize("text", ["", "{}", "\n"])
def test_no_settings_are_settings_too(bio: Authority, text: str) -> None:
    check(facts(WITH_ENGINE, settings=text), "m1", "bio", bio)


# --- the setup that a host needs -------------------------------------------------------------


def test_a_fresh_host_needs_all_of_it(bio: Authority) -> None:
    setup = needed(FakeHost(), bio)
    assert setup.install
    assert sorted(setup.files) == sorted([MARK, SETTINGS, UNIT, SCRIPT, f"{TLS}/ca.pem", *CERTIFICATE])
    assert "no engine" in setup.reasons
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
    own = ["127.0.0.1", "192.0.2.11"]
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
    assert "default-address-pools" not in settings_of(setup)  # it has its networks already


def test_an_engine_listens_where_the_settings_say_and_starts_as_it_did_before(bio: Authority) -> None:
    start = "ExecStart={ path=/opt/dockerd ; argv[]=/opt/dockerd -H fd:// --debug ; pid=0 }\n"
    unit = needed(FakeHost(values={**WITH_ENGINE, "start": start}), bio).files[UNIT].decode()
    assert unit.splitlines()[-3:] == ["[Service]", "ExecStart=", "ExecStart=/opt/dockerd --debug"]
    fresh = needed(FakeHost(), bio).files[UNIT].decode()
    assert " -H" not in fresh
    assert "ExecStart=dockerd --containerd=" in fresh


def test_our_start_comes_after_the_owners() -> None:
    assert Path(UNIT).name > "override.conf"  # which `systemctl edit` makes


def test_the_engine_of_an_ipv6_host_listens_on_ipv6_too(bio: Authority) -> None:
    address = "2001:db8::5054:ff:fe12:3456"
    assert settings_of(needed(FakeHost(), bio, address))["hosts"] == ["fd://", "tcp://[::]:2376"]


@pytest.mark.parametrize("host", ["2001:DB8::5054:ff:fe12:3456", "2001:db8::8c3:9f2a:1e5:77d0"])
def test_an_engine_listens_where_the_trainer_calls_the_host(bio: Authority, host: str) -> None:
    assert settings_of(needed(FakeHost(), bio, host))["hosts"] == ["fd://", "tcp://[::]:2376"]


@pytest.mark.parametrize("values", [FRESH, WITH_ENGINE, {**WITH_ENGINE, "settings": '{"live-restore": true}'}])
def test_a_host_that_is_ready_needs_nothing(bio: Authority, values: Mapping[str, str]) -> None:
    host = settle(FakeHost(values=dict(values)), bio)
    assert setup_for(host, bio) is None


def test_a_host_with_a_new_name_gets_another_certificate_and_no_more(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    setup = needed(host, bio, "host.example")
    assert sorted(setup.files) == sorted([MARK, *CERTIFICATE])
    assert setup.files[MARK].decode() == host.values["mark"]
    assert setup.reasons == ("certificate does not name host.example",)
    assert not setup.install


def test_the_names_of_a_foreign_certificate_do_not_count(bio: Authority, geo: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["certificate"] = geo.server("x", ["203.0.113.77"]).certificate.decode()
    assert "203.0.113.77" not in bio.names(needed(host, bio).files[f"{TLS}/cert.pem"])


def test_nor_do_those_of_another_machine_of_the_course(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["certificate"] = bio.server("m2", ["192.0.2.12", "127.0.0.1"]).certificate.decode()
    assert bio.names(needed(host, bio).files[f"{TLS}/cert.pem"]) == {HOST, "127.0.0.1"}


def test_a_host_with_another_address_gets_another_certificate(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["addresses"] = FRESH["addresses"].replace("192.0.2.11", "192.0.2.77")
    assert bio.fault(needed(host, bio, "192.0.2.77").files[f"{TLS}/cert.pem"], ["192.0.2.77"]) == ""


@pytest.mark.parametrize("device", ["ens4", "dummy0", "wg0", "virbr0"])
def test_an_address_that_a_host_gives_itself_is_not_signed(bio: Authority, device: str) -> None:
    more = f"7: {device}    inet 10.6.0.2/24 scope global {device}\\       valid_lft forever\n"
    host = FakeHost(values={**FRESH, "addresses": FRESH["addresses"] + more})
    setup = needed(host, bio)
    assert bio.names(setup.files[f"{TLS}/cert.pem"]) == {HOST, "127.0.0.1"}
    host = settle(FakeHost(), bio)
    host.values["addresses"] += more
    assert setup_for(host, bio) is None  # and nothing restarts


def test_what_two_trainers_call_a_host_restarts_its_engine_once(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    by_name = needed(host, bio, "host.example")
    assert bio.names(by_name.files[f"{TLS}/cert.pem"]) == {HOST, "127.0.0.1", "host.example"}
    apply(host, by_name)  # type: ignore[arg-type]
    assert setup_for(host, bio) is setup_for(host, bio, "host.example") is None


def test_a_certificate_is_renewed_before_its_end(bio: Authority, monkeypatch: pytest.MonkeyPatch) -> None:
    host = settle(FakeHost(), bio)
    later = certificates._now() + datetime.timedelta(days=380)
    monkeypatch.setattr(certificates, "_now", lambda: later)
    setup = needed(host, bio)
    assert setup.reasons[0].startswith("certificate expires on ")
    assert bio.fault(setup.files[f"{TLS}/cert.pem"]) == ""


@pytest.mark.parametrize("lost", ["key", "certificate", "authority", "unit", "settings", "ready"])
def test_what_got_lost_is_put_back(bio: Authority, lost: str) -> None:
    host = settle(FakeHost(), bio)
    complete = dict(host.values)
    host.values[lost] = ""
    settle(host, bio)
    assert {name for name, value in host.values.items() if not value} == {n for n, v in complete.items() if not v}
    assert setup_for(host, bio) is None


def test_a_mark_that_got_lost_is_put_back(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["mark"] = ""  # as after a power failure just after it was written
    setup = needed(host, bio)
    assert "record" in setup.reasons
    assert json.loads(setup.files[MARK])["course"] == "bio"
    assert setup_for(settle(host, bio), bio) is None
    assert release(host, host.facts) == "engine removed"  # type: ignore[arg-type]


def test_an_engine_of_the_owners_whose_mark_got_lost_is_restored_all_the_same(bio: Authority) -> None:
    host = settle(with_settings({"debug": True}), bio)
    host.values["mark"] = ""
    settle(host, bio)
    release(host, host.facts)  # type: ignore[arg-type]
    assert json.loads(host.values["settings"]) == {"debug": True}


def test_a_mark_of_other_settings_is_written_again(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    mark = json.loads(host.values["mark"])
    host.values["mark"] = json.dumps({**mark, "settings": {**mark["settings"], "debug": True}})
    setup = needed(host, bio)
    assert setup.reasons == ("record",)
    assert json.loads(setup.files[MARK]) == mark


def test_an_engine_that_does_not_run_is_started(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["active"] = "failed\n"
    assert needed(host, bio) == Setup(False, needed(host, bio).files, ("engine stopped",))


def test_an_interrupted_installation_is_finished(bio: Authority) -> None:
    host = settle(FakeHost(), bio)
    host.values["ready"] = ""
    setup = needed(host, bio)
    assert setup.install
    assert setup.reasons == ("interrupted installation", "record")


def booted(**changes: str) -> FakeHost:
    """A machine whose first boot has installed the engine, which waits for its certificates."""
    values = {
        **WITH_ENGINE,
        "active": "inactive\n",
        "swarm": "",
        "installed_by_course": "yes\n",
        "installed_at_boot": "yes\n",
        **changes,
    }
    return FakeHost(values=values)


def test_an_engine_that_the_first_boot_installed_is_set_up_and_not_installed_again(bio: Authority) -> None:
    setup = needed(booted(), bio)
    assert not setup.install
    assert setup.files.keys() == needed(FakeHost(), bio).files.keys()
    assert "engine stopped" in setup.reasons
    assert not any("interrupted" in reason or "no engine" in reason for reason in setup.reasons)
    assert setup.warning == ""  # it has no containers of others


def test_such_an_engine_gets_what_a_new_one_gets(bio: Authority) -> None:
    ours, new = settings_of(needed(booted(), bio)), settings_of(needed(FakeHost(), bio))
    assert ours == new
    assert ours["icc"] is False
    assert ours["default-address-pools"]


def test_once_it_is_set_up_it_needs_nothing(bio: Authority) -> None:
    assert setup_for(settle(booted(), bio), bio) is None


def test_an_interrupted_installation_of_the_first_boot_is_finished(bio: Authority) -> None:
    assert needed(booted(installed_at_boot=""), bio).install
    assert needed(booted(installed_at_boot="", installed_by_course="", engine=""), bio).install


@pytest.mark.parametrize(
    ("lost", "reason"),
    [
        ("key", "certificate is missing"),
        ("certificate", "certificate is not signed by this course"),
        ("authority", "certificate authority"),
        ("unit", "systemd unit"),
        ("settings", "settings"),
        ("mark", "record"),
    ],
)
def test_what_got_lost_is_reported_as_the_reason(bio: Authority, lost: str, reason: str) -> None:
    host = settle(FakeHost(), bio)
    assert needed(FakeHost(values={**host.values, lost: ""}), bio).reasons == (reason,)
