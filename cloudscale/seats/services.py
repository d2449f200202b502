"""Seats: what is wanted against what runs → create, update, remove."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from docker.errors import APIError, NotFound

from cloudscale.course import naming
from cloudscale.course.passwords import Passwords
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import RequestError, SeatError
from cloudscale.fanout import fan_out
from cloudscale.model import Node, Outcome, Outcomes, Place, Seat, Student
from cloudscale.outside import PORT, formed
from cloudscale.seats import jupyter
from cloudscale.seats.containers import clear_orphans, let_count, wait_gone
from cloudscale.seats.spec import SeatFile, Server, Spec, Template, covers, server_of, started, wanted_spec, with_files
from cloudscale.waiting import retry

AGREEING = 30.0  # seconds for a change of a service that the swarm changes, too


# what is needed of an engine's answer about a seat
CONTAINER = {
    "Image": str,
    "Env?": [str],
    "Mounts": [{"VolumeOptions?": {"Labels?": {"*": str}}}],
    "Secrets?": [{"SecretID": str, "SecretName": str}],
}
SERVICE = {
    "ID": str,
    "Version": {"Index": int},
    "Spec": {
        "Name": str,
        "Labels": {"*": str},
        "TaskTemplate": {"Placement?": {"Constraints?": [str]}, "ContainerSpec": CONTAINER},
        "EndpointSpec?": {"Ports?": [{"PublishedPort": PORT}]},
    },
}


@dataclass(frozen=True)
class RunningSeat:
    """A seat's service as the swarm has it: a planned seat's student and place, and what Swarm knows of it.

    The place's machine is empty where the swarm does not have its node any more. `student`: the full name is its name.
    """

    student: Student
    place: Place
    service_id: str
    name: str
    node_id: str
    version: int
    spec: Spec = field(repr=False)

    @property
    def environment(self) -> frozenset[str]:
        """The names of the variables that the trainer gave it."""
        entries = self.spec["TaskTemplate"]["ContainerSpec"].get("Env") or []
        return frozenset(entry.partition("=")[0] for entry in entries)


@dataclass(frozen=True)
class Change:
    """What a run did to a seat: `created`, `updated` or `unchanged`; its service, and what a task of it looks like."""

    what: str
    service_id: str
    task_template: Spec = field(repr=False)


def running_seats(
    manager: Engine, course: str, machines: Mapping[str, str] = MappingProxyType({})
) -> list[RunningSeat]:
    """The seats of the course, read back from the swarm, in a stable order. `machines`: their names by node id."""
    with engine_errors(manager.name):
        services = formed(
            manager.api.services(filters={"label": f"{naming.MARK}={course}"}), [{"Spec": {"Labels": dict}}]
        )
        seats = [_running_seat(each, machines) for each in services if naming.STUDENT in each["Spec"]["Labels"]]
    return sorted(seats, key=lambda seat: (seat.node_id, seat.place.port, seat.name))


def _running_seat(service: Mapping[str, Any], machines: Mapping[str, str]) -> RunningSeat:
    spec = formed(service, SERVICE)["Spec"]
    labels, constraints = spec["Labels"], (spec["TaskTemplate"].get("Placement") or {}).get("Constraints") or []
    pins = [constraint for constraint in constraints if constraint.startswith("node.id==")]
    ports = (spec.get("EndpointSpec") or {}).get("Ports") or []
    node_id = pins[0].removeprefix("node.id==") if pins else ""
    return RunningSeat(
        student=Student(labels[naming.STUDENT], labels.get(naming.NAME, ""), email=labels.get(naming.EMAIL, "")),
        place=Place(machines.get(node_id, ""), ports[0]["PublishedPort"] if ports else 0),
        service_id=service["ID"],
        name=spec["Name"],
        node_id=node_id,
        version=service["Version"]["Index"],
        spec=spec,
    )


def check_key(seats: Iterable[RunningSeat], key: bytes | None, folder: object) -> None:
    """Raises RequestError where the seats were made with another key than this one: all passwords would change."""
    own = naming.key_id(key) if key else None
    if any(seat.spec["Labels"].get(naming.KEY) != own for seat in seats):
        raise RequestError(
            f"The course's seats were made with another key than {folder} has: every password would change.",
            "Copy the course's folder from the computer that made them,"
            " or clear the seats first (invoke containers_reset; the students' volumes stay).",
        )


class SeatServices:
    """Brings the seats of one course to what is wanted. `manager` speaks for the whole swarm."""

    def __init__(self, manager: Engine, course: str) -> None:
        self._manager = manager
        self._api = manager.api
        self.course = course
        # each takes 19 MiB, which its thread keeps, and all of a core: as many threads as the computer has cores
        self._hashing = ThreadPoolExecutor(os.cpu_count())

    def bringing(
        self, nodes: Mapping[str, Node], running: Iterable[RunningSeat], template: Template
    ) -> Callable[[Seat], Change]:
        """What brings a seat to what is wanted, in any thread: it creates what is missing and updates what differs.

        What is right is not touched. `running`: the seats that there are. Raises EngineError, and so does the result.
        """
        present = {seat.student.id: seat for seat in running}
        with engine_errors(self._manager.name):
            secrets = {secret["Spec"]["Name"]: secret["ID"] for secret in self._secrets()}
            code = self._ensure_code(secrets)

        def bring(seat: Seat) -> Change:
            with engine_errors(self._manager.name):
                running, node = present.get(seat.student.id), nodes[seat.place.machine]
                name = running.name if running else naming.seat_name(self.course, seat.student)
                server = Server(template.port, template.image.work, template.image.uid == 0)
                config = self._ensure_config(seat.student.id, server, template.passwords, name, secrets)
                files = [config, code]
                return self._ensure(running, wanted_spec(seat, node, template, name, files))

        return bring

    def _ensure(self, present: RunningSeat | None, wanted: Spec) -> Change:
        if present is None:
            service_id = self._create(wanted)
            return Change("created", service_id, wanted["TaskTemplate"])
        if covers(present.spec, wanted):
            return Change("unchanged", present.service_id, wanted["TaskTemplate"])
        self._update(present.service_id, present.version, wanted)
        return Change("updated", present.service_id, wanted["TaskTemplate"])

    def _update(self, service_id: str, version: int, wanted: Spec) -> None:
        self._api.update_service(
            service_id,
            version,
            name=wanted["Name"],
            task_template=wanted["TaskTemplate"],
            labels=wanted["Labels"],
            mode=wanted["Mode"],
            endpoint_spec=wanted["EndpointSpec"],
        )

    def _create(self, wanted: Spec) -> str:
        try:
            created = self._api.create_service(
                name=wanted["Name"],
                task_template=wanted["TaskTemplate"],
                labels=wanted["Labels"],
                mode=wanted["Mode"],
                endpoint_spec=wanted["EndpointSpec"],
            )
        except APIError as error:
            if error.status_code != 409:
                raise
            raise SeatError(
                f"A service {wanted['Name']} exists that does not carry this course's mark.",
                f"Remove it (docker service rm {wanted['Name']}) or choose another --course.",
            ) from None
        return str(created["ID"])

    def _ensure_code(self, secrets: Mapping[str, str]) -> SeatFile:
        """What all servers run. It is no secret; but as one it comes and goes like the other file."""
        code = jupyter.server_code()
        secret = naming.secret_name(naming.code_name(self.course), hashlib.sha256(code).hexdigest())
        if (secret_id := secrets.get(secret)) is None:
            secret_id = self._api.create_secret(secret, code, naming.labels(self.course))["ID"]
        return SeatFile(jupyter.CODE_PATH, str(secret_id), secret)

    def _ensure_config(
        self, student_id: str, server: Server, passwords: Passwords, name: str, secrets: Mapping[str, str]
    ) -> SeatFile:
        """The server's own configuration. The content of a secret can't be read back."""
        key, password = passwords.key, passwords.of(student_id)

        # what the content is made of decides the name; hashing (slow on purpose) only where it is new
        def config(hashed: str) -> bytes:
            return jupyter.server_config(
                port=server.port,
                path=naming.seat_path(key, student_id),
                work=server.work,
                hashed_password=hashed,
                gateway_pass=passwords.gateway_pass(student_id),
                as_root=server.as_root,
            )

        fingerprint = naming.keyed_digest(key, "secret", student_id, password, config("").decode()).hex()
        secret = naming.secret_name(name, fingerprint)
        if secret in secrets:
            return SeatFile(jupyter.CONFIG_PATH, secrets[secret], secret)
        salt = naming.keyed_digest(key, "salt", student_id)[:16]
        hashed = self._hashing.submit(jupyter.hash_password, password, salt).result()
        created = self._api.create_secret(secret, config(hashed), naming.student_labels(self.course, student_id))
        return SeatFile(jupyter.CONFIG_PATH, str(created["ID"]), secret)

    # --- one seat ----------------------------------------------------------------------------

    def change(self, service_id: str, wanted: Callable[[Spec], Spec]) -> Change:
        """Changes a seat: from what it is now to what is wanted. Raises EngineError."""

        def attempt() -> Change:
            now = self._api.inspect_service(service_id)
            changed = wanted(now["Spec"])
            if changed != now["Spec"]:
                self._update(service_id, now["Version"]["Index"], changed)
            # the engine adds Runtime to a service, and not to its tasks
            form = {key: value for key, value in changed["TaskTemplate"].items() if key != "Runtime"}
            return Change("unchanged" if changed == now["Spec"] else "updated", service_id, form)

        with engine_errors(self._manager.name):
            return retry(attempt, when=_is_outdated, timeout=AGREEING)

    def set_password(self, seat: RunningSeat, passwords: Passwords) -> Change:
        """Gives a seat the password that it should have, and starts it if it is stopped. Raises EngineError."""
        with engine_errors(self._manager.name):
            secrets = {secret["Spec"]["Name"]: secret["ID"] for secret in self._secrets()}
            config = self._ensure_config(seat.student.id, server_of(seat.spec), passwords, seat.name, secrets)
            files = [config, self._ensure_code(secrets)]
        return self.change(seat.service_id, lambda spec: started(with_files(spec, files)))

    # --- the end of seats --------------------------------------------------------------------

    def remove(self, seats: Iterable[RunningSeat]) -> Outcomes[str]:
        """Removes the seats' services, side by side. Volumes stay: they are the student's, not the seat's."""

        def one(seat: RunningSeat) -> str:
            with engine_errors(self._manager.name), contextlib.suppress(NotFound):
                self._api.remove_service(seat.service_id)
            return "removed"

        return fan_out(one, seats, name=lambda seat: seat.name)

    def remove_completely(self, seats: Sequence[RunningSeat], engines: Collection[Engine]) -> Outcomes[str]:
        """Removes services and waits until their containers are gone from the engines: ports and volumes are free."""
        # where a seat is pinned is known for the last time
        fan_out(lambda engine: let_count(engine, self.course, _on(engine, seats)), engines, name=lambda e: e.name)
        outcomes = self.remove(seats)
        students = {seat.student.id: seat.name for seat in seats}
        waits = fan_out(lambda engine: wait_gone(engine, self.course, students), engines, name=lambda e: e.name)
        self._clear_orphans(engines, but=seats)
        lingering = {students[left.target]: left.error for each in waits.values.values() for left in each}
        return Outcomes(
            [
                *(Outcome(o.target, error=lingering[o.target]) if o.target in lingering else o for o in outcomes),
                *(Outcome[str](name, error=error) for name, error in waits.errors.items()),
            ]
        )

    def finish_removals(self, engines: Collection[Engine]) -> None:
        """What is left to do of removals that were cut off."""
        self._clear_orphans(engines)
        self.remove_unused_secrets()

    def _clear_orphans(self, engines: Collection[Engine], but: Sequence[RunningSeat] = ()) -> None:
        left = {seat.name for seat in (*running_seats(self._manager, self.course), *but)}
        fan_out(lambda engine: clear_orphans(engine, self.course, left), engines, name=lambda engine: engine.name)

    def remove_unused_secrets(self) -> None:
        """Removes the course's secrets that no seat refers to any more."""
        with engine_errors(self._manager.name):
            used = {
                reference["SecretID"]
                for seat in running_seats(self._manager, self.course)
                for reference in seat.spec["TaskTemplate"]["ContainerSpec"].get("Secrets") or []
            }
            for secret in self._secrets():
                if secret["ID"] not in used:
                    # a task that is still stopping holds it: the next run removes it
                    with contextlib.suppress(APIError):
                        self._api.remove_secret(secret["ID"])

    def _secrets(self) -> list[Any]:
        return list(self._api.secrets(filters={"label": f"{naming.MARK}={self.course}"}))


def _on(engine: Engine, seats: Iterable[RunningSeat]) -> set[str]:
    """The students whose seats are on this machine."""
    return {seat.student.id for seat in seats if seat.place.machine == engine.name}


def _is_outdated(error: Exception) -> bool:
    """Whether the swarm has changed a service since it was read: it notes how far an update has come."""
    return isinstance(error, APIError) and "out of sequence" in str(error.explanation)
