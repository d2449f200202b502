"""A swarm comes together: machines enter as soon as their engines answer, side by side, in whatever order."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from docker.errors import APIError

from cloudscale.course import naming
from cloudscale.engines.client import Engine, engine_errors
from cloudscale.errors import SwarmError
from cloudscale.networks import endpoint
from cloudscale.swarm.nodes import (
    ADDRESS,
    BRIDGE,
    BRIDGE_LABEL,
    MACHINE,
    MANAGERS,
    Membership,
    SwarmNode,
    check_ours,
    check_usable,
    membership,
    remove_node,
    swarm_nodes,
    update_node,
)
from cloudscale.waiting import poll

SWARM_PORT = 2377
FOUNDING = 3000.0  # seconds to wait for the first machine: its engine may have to be installed
JOINING = 60.0  # seconds for one attempt
ATTEMPTS = 3
UNCLEAR = ("pending", "leaderless")


@dataclass(frozen=True)
class Member:
    """An engine, and the address that its neighbours reach it by (a fixed one, never a floating IP)."""

    engine: Engine
    address: str

    @property
    def name(self) -> str:
        return self.engine.name


class SwarmJoin:
    """The way into the course's swarm. `order`: the machines' names, the first one founds it.

    `pool` is the range for the swarm's own networks; `adopts`: a swarm that a machine manages
    already is used, whoever made it.
    """

    def __init__(
        self, course: str, order: Sequence[str], *, pool: str, manager: Engine | None = None, adopts: bool = False
    ) -> None:
        self._course = course
        self._founders = list(order)
        self._managers = frozenset(order[: MANAGERS if len(order) >= MANAGERS else 1])
        self._pool = pool
        self._gate = manager
        self._adopts = adopts
        self._changed = threading.Condition()
        self._one_manager = threading.Lock()

    def give_up(self, name: str) -> None:
        """A machine that will not come: nobody waits for it to found the swarm."""
        with self._changed:
            if name in self._founders:
                self._founders.remove(name)
            self._changed.notify_all()

    def enter(self, member: Member) -> str:
        """Brings one engine into the swarm: `founded`, `joined` or `there`. Raises SwarmError, EngineError."""
        engine = member.engine
        found = membership(engine)
        # one that was struck off while it was away waits for what will not come
        if not self._gate or self._knows(self._gate, found.node_id):
            found = _settled(engine, found)
        with self._changed:
            if found.manages and found.is_active and (self._adopts or found.mark == self._course) and not self._gate:
                self._gate = engine  # an earlier run made it
                self._changed.notify_all()
            elif self._adopts:
                check_usable(engine.name, found)
            self._changed.wait_for(lambda: self._gate or self._founders[:1] == [engine.name], timeout=FOUNDING)
            if self._gate is None:
                if self._founders[:1] != [engine.name]:
                    raise SwarmError(f"{engine.name}: no other machine has founded the swarm in {FOUNDING:.0f} s.")
                check_ours(engine.name, found, self._course, [])
                self._found(member, found)
                self._gate = engine
                self._changed.notify_all()
                return "founded"
            gate = self._gate
        if self._adopts:
            return "there"
        nodes = {node.id: node for node in swarm_nodes(gate)}
        check_ours(engine.name, found, self._course, nodes)
        node = nodes.get(found.node_id)
        if found.is_active and node and (gate.name == engine.name or node.address in ("", member.address)):
            if (node.machine, node.address) != (member.name, member.address):
                with engine_errors(gate.name):
                    update_node(gate, node.id, labels=self._labels(member))
            return "there"
        # the node is unknown (it was struck off), or this is a clone of it, or it has another address by now
        self._join(gate, member, found, nodes)
        return "joined"

    def _knows(self, gate: Engine, node_id: str) -> bool:
        return bool(node_id) and any(node.id == node_id for node in swarm_nodes(gate))

    def _labels(self, member: Member) -> dict[str, str]:
        return {**naming.labels(self._course), MACHINE: member.name, ADDRESS: member.address}

    def _found(self, member: Member, found: Membership) -> None:
        engine = member.engine
        with engine_errors(engine.name):
            if found.state != "inactive":
                engine.api.leave_swarm(force=True)
            bridge = _bridge_label(engine)
            engine.api.init_swarm(
                advertise_addr=member.address,
                listen_addr=endpoint(member.address, SWARM_PORT),
                data_path_addr=member.address,
                default_addr_pool=[self._pool],
                swarm_spec=engine.api.create_swarm_spec(labels=naming.labels(self._course)),
            )
            node_id = engine.api.info()["Swarm"]["NodeID"]
            update_node(engine, node_id, labels={**self._labels(member), **bridge})

    def _join(self, gate: Engine, member: Member, found: Membership, nodes: Mapping[str, SwarmNode]) -> None:
        engine = member.engine
        others = sum(node.is_manager and node.machine != member.name for node in nodes.values())
        role = "Manager" if member.name in self._managers and others < MANAGERS else "Worker"
        tried = {found.node_id}
        with engine_errors(engine.name):
            bridge = _bridge_label(engine)
            if found.state != "inactive":
                engine.api.leave_swarm(force=True)
        # what it was before is void, and not to be joined through; what it is a clone of has another name
        for former in nodes.values():
            if former.machine == member.name:
                remove_node(gate, former.id)
        with engine_errors(gate.name):
            token = gate.api.inspect_swarm()["JoinTokens"][role]
            remotes = _reachable_managers(gate, member)
        for attempt in range(ATTEMPTS):
            try:
                if role == "Manager":  # one change of the managers' circle at a time
                    with self._one_manager:
                        found = _joined(member, token, remotes)
                else:
                    found = _joined(member, token, remotes)
                break
            except SwarmError:
                if attempt + 1 == ATTEMPTS:
                    raise
                found = _settled(engine, membership(engine))
                tried.add(found.node_id)
                with engine_errors(engine.name):
                    if found.state != "inactive":
                        engine.api.leave_swarm(force=True)
        with engine_errors(gate.name):
            update_node(gate, found.node_id, labels={**self._labels(member), **bridge})
        half_joined = tried - {found.node_id, ""}  # what it was in attempts that came to nothing
        for former in swarm_nodes(gate) if half_joined else ():
            if former.id in half_joined and not former.machine and not former.is_up:
                remove_node(gate, former.id)


def _reachable_managers(gate: Engine, member: Member) -> list[str]:
    """Where a machine can join: the other managers' addresses, with their ports."""
    statuses = [node.get("ManagerStatus", {}) for node in gate.api.nodes()]
    own = endpoint(member.address, SWARM_PORT)
    return [s["Addr"] for s in statuses if s.get("Reachability") == "reachable" and s["Addr"] != own]


def _settled(engine: Engine, found: Membership) -> Membership:
    """The engine's membership once it is clear: managers that have just restarted need a while to find each other.

    Raises SwarmError where it can't be used, nor left without harm.
    """
    if found.state in UNCLEAR:
        poll(lambda: membership(engine).state not in UNCLEAR, timeout=JOINING)
        found = membership(engine)
    if found.state == "leaderless":
        raise SwarmError(
            f"{engine.name}: its swarm has had no leader for {JOINING:.0f} s ({found.problem}).",
            "Bring its other managers back, or give it up: --replace-lost.",
        )
    if found.state == "locked":
        check_usable(engine.name, found)
    return found


def _joined(member: Member, token: str, remotes: Sequence[str]) -> Membership:
    engine = member.engine
    said = ""
    with engine_errors(engine.name):
        try:
            engine.api.join_swarm(
                remote_addrs=list(remotes),
                join_token=token,
                listen_addr=endpoint(member.address, SWARM_PORT),
                advertise_addr=member.address,
                data_path_addr=member.address,
            )
        except APIError as error:
            # it may go on in the background, so what the engine is in the end counts
            said = str(error.explanation)
    poll(lambda: membership(engine).state in ("active", "inactive", "error"), timeout=JOINING)
    found = membership(engine)
    if not found.is_active:
        raise SwarmError(
            f"{engine.name}: it can't join the swarm ({said or found.problem or found.state}).",
            f"Are the ports {SWARM_PORT}, 7946 and 4789 open between the machines?",
        )
    return found


def _bridge_label(engine: Engine) -> dict[str, str]:
    return {} if engine.api.networks(names=[BRIDGE]) else {BRIDGE_LABEL: "made"}
