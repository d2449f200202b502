"""The engine of a host over SSH: installed, set up for a course with mutual TLS, and given back as it was.

What is the host's own stays: its settings win over ours, but for where the engine listens and whom it
trusts. What we add is written down on the host, and taken away by `release`.
"""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from cloudscale.engines.certificates import Authority
from cloudscale.errors import MachineError
from cloudscale.hosts.facts import Facts, script_failure
from cloudscale.hosts.ssh import Connection
from cloudscale.model import TIMED_OUT
from cloudscale.networks import ENGINE_NETWORKS, spare_network

TLS_PORT = 2376  # of an engine with TLS, as IANA has it (docker-s)
OLDEST = (20, 10)

INSTALLING = 2700  # for the packages, with the waits for cloud-init, for locks and for an earlier run
RESTORING = 600

TLS = "/etc/docker/cloudscale"
SETTINGS = "/etc/docker/daemon.json"
UNIT = "/etc/systemd/system/docker.service.d/zz-cloudscale.conf"  # after its owner's, which it has to win over
MARK = "/var/lib/cloudscale/course/mark.json"
ALWAYS = ("hosts", "tlsverify", "tlscacert", "tlscert", "tlskey")  # settings that can't be the owner's in a course
# systemd finds a program without its path since version 239; the packages differ in where they put it
START = ("dockerd", "--containerd=/run/containerd/containerd.sock", "$DOCKER_OPTS")


@dataclass(frozen=True)
class Setup:
    """What a host's engine needs yet: files to lay down, whether to install it, and why."""

    install: bool
    files: Mapping[str, bytes] = field(repr=False)
    reasons: tuple[str, ...]
    warning: str = ""


def check(facts: Facts, name: str, course: str, authority: Authority | None) -> None:
    """Raises MachineError where the host can't serve this course: by its system, or because another has it."""
    if owner := facts.mark.get("course"):
        if owner != course:
            raise MachineError(
                f"{name}: it serves the course {owner!r}, and is left to it.",
                f"End that course first (invoke driver_reset --course {owner}), or leave this host out.",
            )
        if authority is None or facts.mark.get("authority") != authority.fingerprint:
            raise MachineError(
                f"{name}: it serves a course {course!r} with other certificates than yours.",
                "Copy the course's folder from the computer that made it, or choose another --course.",
            )
    elif facts.swarm not in ("", "inactive"):
        raise MachineError(
            f"{name}: it belongs to a swarm of somebody else, and is left to it.",
            "Leave this host out, or take it out of that swarm: docker swarm leave (--force on a manager).",
        )
    if not facts.has_systemd:
        raise MachineError(f"{name}: its service manager is not systemd ({facts.system or 'an unknown system'}).")
    if facts.engine is None and not facts.has_apt:
        raise MachineError(
            f"{name}: it has no Docker Engine and no apt-get ({facts.system or 'an unknown system'}).",
            "Install Docker Engine there as its documentation says, then run again.",
        )
    if facts.engine and facts.engine < OLDEST:
        found, oldest = (f"{major}.{minor:02}" for major, minor in (facts.engine, OLDEST))
        raise MachineError(f"{name}: its Docker Engine is {found}; {oldest} is the oldest that will do.", "Upgrade it.")
    _settings(facts.settings_text, name)


def wanted_setup(facts: Facts, host: str, address: str, course: str, authority: Authority) -> Setup | None:
    """What is to be done so that the engine serves the course; None where all is as it should be. Pure but for keys.

    `host`: what it is called by; `address`: what its neighbours reach it by.
    """
    files: dict[str, bytes] = {}
    reasons = []
    is_whole = facts.is_ready or facts.is_installed or not facts.is_brought
    install = facts.engine is None or not is_whole
    if install:
        reasons.append("it has no engine" if facts.engine is None else "its installation was cut off")
    names = {host, address, "127.0.0.1", *(found.address for found in facts.addresses)}
    fault = authority.fault(facts.certificate, names) if facts.has_key else "there is none"
    if fault:
        reasons.append(f"its certificate: {fault}")
        pair = authority.server(host, names)
        files |= {f"{TLS}/cert.pem": pair.certificate, f"{TLS}/key.pem": pair.key}
    if facts.authority != authority.pem:
        reasons.append("its authority")
        files[f"{TLS}/ca.pem"] = authority.pem
    theirs = _settings(facts.settings_text, host)
    ours = _course_settings(facts, _without(theirs, facts), host, address)
    if install or facts.is_brought:  # one that was there has its networks already
        ours |= _networks(facts, _without(theirs, facts))
    if theirs != {**theirs, **ours}:
        reasons.append("its settings")
        files[SETTINGS] = _json({**theirs, **ours})
    if not facts.unit:
        reasons.append("its unit")
        files[UNIT] = _unit(facts.start_command or START, course)
    if not facts.engine_runs:
        reasons.append("it does not run")
    mark = {"course": course, "authority": authority.fingerprint, "settings": ours}
    if facts.mark != mark or not facts.is_ready:
        reasons.append("its record")
    if not reasons:
        return None
    open_to_all = {**theirs, **ours}.get("icc") is not False
    warning = "its owner's settings or containers leave seats there open to each other (icc)" if open_to_all else ""
    return Setup(install, {MARK: _json(mark), **files}, tuple(reasons), warning)


def _settings(text: str, name: str) -> dict[str, Any]:
    try:
        found = json.loads(text.strip() or "{}")
        if isinstance(found, dict):
            return found
    except ValueError:
        pass
    raise MachineError(f"{name}: its {SETTINGS} is not JSON.", "Mend it there: an engine does not start with it.")


def _without(settings: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """The host's own settings: what is there, without what we added and with what we replaced."""
    before = json.loads(facts.settings_before.strip() or "{}")
    if facts.unit and not facts.mark:  # the record is spoilt: what was there at first is what can be told
        return dict(before)
    ours = facts.mark.get("settings", {})
    # where it listens and whom it trusts was never its owner's since we came
    changed = {key for key, value in settings.items() if key in ours and ours[key] != value and key not in ALWAYS}
    kept = {key: value for key, value in settings.items() if key not in ours or key in changed}
    return {**kept, **{key: value for key, value in before.items() if key in ours and key not in kept}}


def _course_settings(facts: Facts, own: Mapping[str, Any], host: str, address: str) -> dict[str, Any]:
    """Our part of daemon.json. `own`: the host's own part."""
    anywhere = "[::]" if ":" in host + address else "0.0.0.0"
    earlier = facts.mark.get("settings", {})
    through_systemd = facts.engine is None or facts.is_brought or facts.uses_socket_unit
    if facts.unit and not earlier:  # the record is spoilt
        earlier = json.loads(facts.settings_text.strip() or "{}")
    socket = (
        earlier["hosts"][0] if "hosts" in earlier else "fd://" if through_systemd else "unix:///var/run/docker.sock"
    )
    must: dict[str, Any] = {
        "hosts": [socket, f"tcp://{anywhere}:{TLS_PORT}"],
        "tlsverify": True,
        "tlscacert": f"{TLS}/ca.pem",
        "tlscert": f"{TLS}/cert.pem",
        "tlskey": f"{TLS}/key.pem",
    }
    if own.get("live-restore"):
        must["live-restore"] = False  # a swarm does not go with it
    may: dict[str, Any] = {"mtu": facts.mtu(address)}
    isolating = {"no-new-privileges", "icc"}
    if isolating & earlier.keys() if earlier else not facts.own_containers:  # what others run there is not cut off
        may |= {"no-new-privileges": True, "icc": False}
    if "log-opts" not in own and own.get("log-driver", "json-file") == "json-file":
        may |= {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
    flags = {word.partition("=")[0].removeprefix("--") for word in facts.start_command}
    if flags & {"log-driver", "log-opt"}:
        flags |= {"log-driver", "log-opts"}
    return {**must, **{key: value for key, value in may.items() if key not in own and key not in flags}}


def _networks(facts: Facts, own: Mapping[str, Any]) -> dict[str, Any]:
    """The ranges for a new engine's networks; what an earlier run chose is kept unless something collides with it."""
    if "default-address-pools" in own or "bip" in own:
        return {}
    chosen = [pool["base"] for pool in facts.mark.get("settings", {}).get("default-address-pools", [])]
    return {"default-address-pools": [{"base": spare_network(facts.networks, [*chosen, *ENGINE_NETWORKS]), "size": 20}]}


def _unit(command: Sequence[str], course: str) -> bytes:
    text = f"# Of the course {course}, and removed with it. Where the engine listens is told by daemon.json.\n"
    return f"{text}[Service]\nExecStart=\nExecStart={' '.join(command)}\n".encode()


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def apply(connection: Connection, setup: Setup) -> None:
    """Does what the setup says; the engine starts once. Raises MachineError with the engine's own words."""
    what = "install" if setup.install else "keep"
    name = connection.target.name
    done = connection.run_root(_script("engine-up"), what, timeout=INSTALLING, data=tar(setup.files))
    if done.exit_code == TIMED_OUT:
        raise MachineError(f"{name}: its engine was not set up within {INSTALLING} s.", "Look at the machine: ps, df.")
    if done.exit_code:
        raise MachineError(f"{name}: {script_failure(done)}.", "Mend that there, then run again.")


def release(connection: Connection, facts: Facts) -> str:
    """Gives the engine back as it was, and returns what was done, in words. Raises MachineError."""
    name = connection.target.name
    done = connection.run_root(_script("engine-down"), timeout=RESTORING, data=_restored(facts, name))
    if done.exit_code:
        raise MachineError(f"{name}: {script_failure(done)}.", "Mend that there, then run again.")
    return "engine removed" if facts.is_brought else "engine as before"


def _restored(facts: Facts, name: str) -> bytes:
    """daemon.json without us: to the letter as it was, unless its owner has changed it since."""
    settings = _without(_settings(facts.settings_text, name), facts)
    if settings == json.loads(facts.settings_before.strip() or "{}"):
        return facts.settings_before.encode()
    return _json(settings)


def tar(files: Mapping[str, bytes]) -> bytes:
    """Files by path, root's own, as `tar -x -C FOLDER` takes them. What is secret is root's alone to read."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for path, data in files.items():
            member = tarfile.TarInfo(path.lstrip("/"))
            member.size, member.mtime = len(data), int(time.time())
            member.mode = 0o644 if path == UNIT else 0o600
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def _script(name: str) -> str:
    return resources.files("cloudscale.engines").joinpath("scripts", f"{name}.sh").read_text()
