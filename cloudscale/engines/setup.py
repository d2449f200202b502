"""The engine of an SSH host: installed, set up for a course with mutual TLS, and restored to its former state.

The settings of the host's owner take precedence over ours, except for the engine's sockets and certificates.
What we add is recorded on the host, and undone by `release`.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudscale.course import naming
from cloudscale.course.settings import USUAL_SEAT, SeatSettings
from cloudscale.engines.certificates import Authority
from cloudscale.errors import MachineError, in_others_swarm
from cloudscale.hosts.facts import Facts, script_failure
from cloudscale.hosts.firewall import SCRIPT, firewall
from cloudscale.hosts.ssh import Connection
from cloudscale.model import TIMED_OUT
from cloudscale.networks import ENGINE_NETWORKS, spare_network
from cloudscale.outside import OtherForm, formed, parse_object
from cloudscale.scripts import script

TLS_PORT = 2376  # of an engine with TLS (IANA's service docker-s)
OLDEST = (20, 10)  # the oldest version of an engine that works

INSTALLING = 2700  # seconds for the packages, with the waits for cloud-init, for locks and for an earlier run
RESTORING = 600  # seconds

TLS = "/etc/docker/cloudscale"
SETTINGS = "/etc/docker/daemon.json"
UNIT = "/etc/systemd/system/docker.service.d/zz-cloudscale.conf"  # sorts last, so that it overrides the owner's
MARK = "/var/lib/cloudscale/course/mark.json"
BEFORE = "/var/lib/cloudscale/course/daemon.json.before"
ALWAYS = ("hosts", "tlsverify", "tlscacert", "tlscert", "tlskey")  # settings that a course always overrides
LOOPBACK = "127.0.0.1"
WALLS = "firewall"  # a reason for a setup
OPEN = (
    "its seats can reach the machine, the networks around and each other, because the machine has containers or"
    " settings of its own"
)
FIREWALL = "firewall-backend"
CHOOSING_FIREWALL = (29, 0)  # the first version that can use nftables
CONTAINERD_STORE = (29, 0)  # the first version that by itself keeps its images in containerd
# without a path, which differs between the packages; systemd searches for the program since version 239
START = ("dockerd", "--containerd=/run/containerd/containerd.sock", "$DOCKER_OPTS")


@dataclass(frozen=True)
class Setup:
    """What a host's engine still needs: files to write, whether to install it, and the reasons."""

    install: bool
    files: Mapping[str, bytes] = field(repr=False)
    reasons: tuple[str, ...]
    warning: str = ""

    @property
    def restarts(self) -> bool:
        """Whether the engine has to restart for it, and the seats with it."""
        return self.reasons != (WALLS,)


def check(facts: Facts, name: str, course: str, authority: Authority | None) -> None:
    """Raises MachineError if the host can't be used: its system does not suit, or another course or swarm uses it."""
    if owner := facts.mark.get("course"):
        if owner != course:
            raise MachineError(
                f"{name}: it is in use by course {owner!r}.",
                f"End that course first (invoke driver_reset --course {owner}), or leave this host out.",
            )
        if authority is None or facts.mark.get("authority") != authority.fingerprint:
            raise MachineError(
                f"{name}: it is in use by a course {course!r} with other certificates than yours.",
                "Copy the course's folder from the computer that created the course, or choose another --course.",
            )
    elif facts.swarm not in ("", "inactive"):
        raise MachineError(*in_others_swarm(name))
    if not facts.has_systemd:
        raise MachineError(
            f"{name}: its service manager is not systemd ({facts.system or 'an unknown system'}).",
            "Use a host with systemd, such as Debian or Ubuntu.",
        )
    if facts.engine is None and not facts.has_apt:
        raise MachineError(
            f"{name}: it has no Docker Engine and no apt-get ({facts.system or 'an unknown system'}).",
            "Install Docker Engine on it (docs.docker.com/engine/install), then run again.",
        )
    if facts.engine and facts.engine < OLDEST:
        version, oldest = (f"{major}.{minor:02}" for major, minor in (facts.engine, OLDEST))
        raise MachineError(
            f"{name}: its Docker Engine has version {version}, and {oldest} or later is needed.",
            "Upgrade it with the machine's package manager.",
        )
    _settings(facts.settings_text, name)


def wanted_setup(
    facts: Facts,
    host: str,
    address: str,
    course: str,
    authority: Authority,
    confirmed: Iterable[str] = (),
    seat: SeatSettings = USUAL_SEAT,
) -> Setup | None:
    """What has to be done so that the engine serves the course; None if nothing. Pure, but for new keys.

    `host`: its name or address for the trainer; `address`: its address for its neighbours, as it says itself;
    `confirmed`: addresses of it that are known from others. Only for these is the certificate: a host could claim to be
    another one. Loopback is the end of a connection through SSH. `seat`: what its seats may reach, and their disk.
    """
    files: dict[str, bytes] = {}
    reasons = []
    if install := _why_install(facts):
        reasons.append(install)
    names = {host, *confirmed, LOOPBACK}
    if fault := authority.fault(facts.certificate, names) if facts.has_key else "is missing":
        reasons.append(f"certificate {fault}")
        files |= _new_certificate(facts, host, names, authority)
    if facts.authority != authority.pem:
        reasons.append("certificate authority")
        files[f"{TLS}/ca.pem"] = authority.pem
    theirs = _settings(facts.settings_text, host)
    own = _without(theirs, facts, host)
    # an engine of the owner has its networks already
    networks = _networks(facts, own) if install or facts.installed_by_course else {}
    ours = _course_settings(facts, own, host, address) | networks | _disk_limits(facts, own, seat.disk)
    if theirs != {**theirs, **ours}:
        reasons.append("settings")
        files[SETTINGS] = _json({**theirs, **ours})
    if not facts.unit:
        reasons.append("systemd unit")
        files[UNIT] = _unit(facts.start_command or START, course)
    if not facts.engine_runs:
        reasons.append("engine stopped")
    walls = firewall(seat.reach) if _can_have_walls(facts, theirs) else ""
    if walls and walls != facts.firewall:
        reasons.append(WALLS)
        files[SCRIPT] = walls.encode()
    mark = {"course": course, "authority": authority.fingerprint, "settings": ours}
    if facts.mark != mark or not facts.is_ready:
        reasons.append("record")
    if not reasons:
        return None
    return Setup(bool(install), {MARK: _json(mark), **files}, tuple(reasons), "" if walls else OPEN)


def _why_install(facts: Facts) -> str:
    if facts.engine is None:
        return "no engine"
    is_whole = facts.is_ready or facts.installed_at_boot or not facts.installed_by_course
    return "" if is_whole else "interrupted installation"


def _new_certificate(facts: Facts, host: str, names: set[str], authority: Authority) -> dict[str, bytes]:
    # another trainer may call the host by another name, and each change restarts the engine. But what a host shows
    # may be a copy of another one's certificate, which everybody can read: that has none of this host's names
    earlier = authority.names(facts.certificate)
    pair = authority.server(host, names | earlier if earlier & (names - {LOOPBACK}) else names)
    return {f"{TLS}/cert.pem": pair.certificate, f"{TLS}/key.pem": pair.key}


NEEDED = {"labels?": [str]}  # of an engine's settings


CORRECT = "Correct that file on the machine: its engine does not start with it."


def _settings(text: str, name: str, remedy: str = CORRECT) -> dict[str, Any]:
    try:
        settings: dict[str, Any] = formed(parse_object(text.strip() or "{}"), NEEDED)
        return settings
    except (ValueError, OtherForm) as error:
        raise MachineError(f"{name}: its {SETTINGS} is not valid JSON ({error}).", remedy) from None


def _before(facts: Facts, name: str) -> dict[str, Any]:
    """The owner's settings from before the course, of which the host keeps a copy."""
    return _settings(facts.settings_before, name, f"Correct the copy from before the course on the machine: {BEFORE}")


def _without(settings: Mapping[str, Any], facts: Facts, name: str) -> dict[str, Any]:
    """The owner's settings: the present ones, without those that we added and with those that we replaced."""
    before = _before(facts, name)
    if facts.unit and not facts.mark:  # the record is damaged: only the settings from before are known
        return dict(before)
    ours = facts.mark.get("settings") or {}
    # sockets and certificates are ours, whatever their present values
    changed = {key for key, value in settings.items() if key in ours and ours[key] != value and key not in ALWAYS}
    kept = {key: value for key, value in settings.items() if key not in ours or key in changed}
    return {**kept, **{key: value for key, value in before.items() if key in ours and key not in kept}}


def _course_settings(facts: Facts, own: Mapping[str, Any], host: str, address: str) -> dict[str, Any]:
    """Our part of daemon.json. `own`: the owner's part."""
    anywhere = "[::]" if ":" in host + address else "0.0.0.0"
    earlier = _earlier_settings(facts)
    through_systemd = facts.engine is None or facts.installed_by_course or facts.uses_socket_unit
    hosts = earlier.get("hosts")
    usual = "fd://" if through_systemd else "unix:///var/run/docker.sock"
    socket = hosts[0] if isinstance(hosts, list) and hosts else usual
    must: dict[str, Any] = {
        "hosts": [socket, f"tcp://{anywhere}:{TLS_PORT}"],
        "tlsverify": True,
        "tlscacert": f"{TLS}/ca.pem",
        "tlscert": f"{TLS}/cert.pem",
        "tlskey": f"{TLS}/key.pem",
    }
    if own.get("live-restore"):
        must["live-restore"] = False  # a swarm can't be combined with it
    # nftables has no place for the firewall of a machine, and refuses a swarm. Older engines don't know the setting;
    # an engine that the course installs has the default, so that a second run finds nothing to change
    if own.get(FIREWALL, "iptables") != "iptables" or FIREWALL in earlier or (not earlier and _chooses_firewall(facts)):
        must[FIREWALL] = "iptables"
    may: dict[str, Any] = {"mtu": facts.mtu(address)}
    if _is_alone(facts):
        may |= {"no-new-privileges": True, "icc": False}
    if "log-opts" not in own and own.get("log-driver", "json-file") == "json-file":
        may |= {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
    flags = {word.partition("=")[0].removeprefix("--") for word in facts.start_command}
    if flags & {"log-driver", "log-opt"}:
        flags |= {"log-driver", "log-opts"}
    return {**must, **{key: value for key, value in may.items() if key not in own and key not in flags}}


def _disk_limits(facts: Facts, own: Mapping[str, Any], disk: int) -> dict[str, Any]:
    """Where there are quotas: what a container may write beside its volumes, and a label by which a launch knows it."""
    if not facts.has_quotas:
        return {}
    limits: dict[str, Any] = {"labels": [*own.get("labels", []), naming.QUOTAS]}
    # an engine that keeps its images in containerd has no such option
    if facts.engine and facts.engine < CONTAINERD_STORE and not {"storage-opts", "storage-driver"} & own.keys():
        limits["storage-opts"] = [f"overlay2.size={disk}"]
    return limits


def _earlier_settings(facts: Facts) -> Mapping[str, Any]:
    """What an earlier run added to daemon.json; where the record is damaged, all that is in there."""
    earlier: Mapping[str, Any] = facts.mark.get("settings") or {}
    return _settings(facts.settings_text, "The machine") if facts.unit and not earlier else earlier


def _is_alone(facts: Facts) -> bool:
    """Whether all containers of the host are the course's own; those of others keep their network as it is."""
    if earlier := _earlier_settings(facts):
        return bool({"no-new-privileges", "icc"} & earlier.keys())
    return not facts.own_containers


def _can_have_walls(facts: Facts, settings: Mapping[str, Any]) -> bool:
    """Whether a firewall for the seats is nobody else's, and the engine has rules and a bridge that it goes with."""
    off = {"--iptables=false", "--bridge=none", "-b=none"} & {*facts.start_command}
    has_bridge = settings.get("iptables", True) is not False and settings.get("bridge") != "none" and not off
    return has_bridge and _is_alone(facts)


def _chooses_firewall(facts: Facts) -> bool:
    return facts.engine is not None and facts.engine >= CHOOSING_FIREWALL


def _networks(facts: Facts, own: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges for a new engine's networks; the choice of an earlier run is kept unless it collides with others."""
    if "default-address-pools" in own or "bip" in own:
        return {}
    chosen = [pool["base"] for pool in (facts.mark.get("settings") or {}).get("default-address-pools") or []]
    return {"default-address-pools": [{"base": spare_network(facts.networks, [*chosen, *ENGINE_NETWORKS]), "size": 20}]}


def _unit(command: Sequence[str], course: str) -> bytes:
    comment = f"# Part of course {course}, and removed with it. The engine's sockets are set in daemon.json.\n"
    return f"{comment}[Service]\nExecStart=\nExecStart={' '.join(command)}\n".encode()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def apply(connection: Connection, setup: Setup) -> None:
    """Carries out the setup; the engine starts once. Raises MachineError with the engine's own message."""
    what = "install" if setup.install else "keep" if setup.restarts else WALLS
    name = connection.target.name
    done = connection.run_root(script("engines", "engine-up.sh"), what, timeout=INSTALLING, data=tar(setup.files))
    if done.exit_code == TIMED_OUT:
        raise MachineError(
            f"{name}: its engine was not set up within {INSTALLING} s.",
            "Check on the machine what keeps it busy (top) and that its disk is not full (df), then run again.",
        )
    if done.exit_code:
        raise MachineError(f"{name}: {script_failure(done)}.", "Fix that on the machine, then run again.")


def release(connection: Connection, facts: Facts) -> str:
    """Restores the engine to its former state, and returns what was done, in words. Raises MachineError."""
    name = connection.target.name
    done = connection.run_root(script("engines", "engine-down.sh"), timeout=RESTORING, data=_restored(facts, name))
    if done.exit_code:
        raise MachineError(f"{name}: {script_failure(done)}.", "Fix that on the machine, then run again.")
    return "engine removed" if facts.installed_by_course else "engine restored"


def _restored(facts: Facts, name: str) -> bytes:
    """daemon.json without our part: exactly as it was before, unless its owner has changed it since."""
    settings = _without(_settings(facts.settings_text, name), facts, name)
    if settings == _before(facts, name):
        return facts.settings_before.encode()
    return _json(settings)


def tar(files: Mapping[str, bytes]) -> bytes:
    """A tar of these files by path, owned by root. Secret files are readable for root only."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mtime = len(data), int(time.time())
            member.mode = 0o644 if path == UNIT else 0o600
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()
