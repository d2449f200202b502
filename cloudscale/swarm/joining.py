"""Machines join a swarm as soon as their engines answer, side by side and in any order."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
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
CREATING = 3000.0  # seconds to wait for the first machine: its engine may have to be installed
JOINING = 60.0  # seconds for one attempt
FINDING = 180.0  # seconds for a manager to find the others again: TCP sends rarely after a minute without an answer
ATTEMPTS = 3
REMEMBERED = 3  # tasks of each seat: the one that runs, and two that ended, whose containers take disk
UNCLEAR = ("pending", "leaderless")  # states that may end by themselves


@dataclass(frozen=True)
class JoinRequest:
    """What an engine joins with: its own address, the token of its role, and the managers that it can join through."""

    address: str
    token: str
    managers: Sequence[str]


class SwarmJoin:
    """Brings the machines of a launch into the course's swarm; each may come in a thread of its own.

    `order`: the machines' names, the first one creates the swarm. `pool`: the range for the swarm's networks.
    `manager`: an engine that manages the swarm already. `adopts`: an existing swarm is used, whoever created it.
    """

    def __init__(
        self, course: str, order: Sequence[str], *, pool: str, manager: Engine | None = None, adopts: bool = False
    ) -> None:
        self._course = course
        self._creators = list(order)  # the first one creates the swarm
        self._managers = frozenset(order[: MANAGERS if len(order) >= MANAGERS else 1])
        self._pool = pool
        self._manager = manager
        self._adopts = adopts
        self._changed = threading.Condition()
        self._one_manager = threading.Lock()

    def give_up(self, name: str) -> None:
        """A machine will not join: the others do not wait for it to create the swarm."""
        with self._changed:
            if name in self._creators:
                self._creators.remove(name)
            self._changed.notify_all()

    def join(self, engine: Engine, address: str) -> str:
        """Brings one engine into the swarm: `created`, `joined` or `unchanged`. Raises SwarmError, EngineError.

        `address`: where the other machines reach it (a fixed one, never a floating IP).
        """
        current = membership(engine)
        # an engine whose node was removed while it was away stays unclear forever
        if not self._manager or self._is_known(self._manager, current.node_id):
            current = _settled(engine, current, others_decide=bool(self._manager))
        with self._changed:
            is_usable = current.is_active and current.manages and (self._adopts or current.mark == self._course)
            if is_usable and not self._manager:
                self._join_through(engine)  # an earlier run created the swarm
            elif self._adopts:
                check_usable(engine.name, current)
            self._changed.wait_for(lambda: self._manager or self._is_creator(engine), timeout=CREATING)
            if self._manager is None:
                if not self._is_creator(engine):
                    raise SwarmError(
                        f"{engine.name}: no other machine created the swarm within {CREATING:.0f} s.",
                        "Fix what failed on the other machines, then run again.",
                    )
                check_ours(engine.name, current, self._course, [])
                self._create(engine, address, current)
                self._join_through(engine)
                return "created"
            manager = self._manager
        return "unchanged" if self._adopts else self._ensure_joined(manager, engine, address, current)

    def _is_creator(self, engine: Engine) -> bool:
        return self._creators[:1] == [engine.name]

    def _join_through(self, manager: Engine) -> None:
        self._manager = manager
        self._changed.notify_all()

    def _is_known(self, manager: Engine, node_id: str) -> bool:
        return bool(node_id) and any(node.id == node_id for node in swarm_nodes(manager))

    def _labels(self, engine: Engine, address: str) -> dict[str, str]:
        return {**naming.labels(self._course), MACHINE: engine.name, ADDRESS: address}

    def _create(self, engine: Engine, address: str, current: Membership) -> None:
        with engine_errors(engine.name):
            _leave(engine, current)
            bridge = _bridge_label(engine)
            engine.api.init_swarm(
                advertise_addr=address,
                listen_addr=endpoint(address, SWARM_PORT),
                data_path_addr=address,
                default_addr_pool=[self._pool],
                swarm_spec=engine.api.create_swarm_spec(
                    labels=naming.labels(self._course), task_history_retention_limit=REMEMBERED
                ),
            )
            node_id = engine.api.info()["Swarm"]["NodeID"]
            update_node(engine, node_id, labels={**self._labels(engine, address), **bridge})

    def _ensure_joined(self, manager: Engine, engine: Engine, address: str, current: Membership) -> str:
        nodes = {node.id: node for node in swarm_nodes(manager)}
        check_ours(engine.name, current, self._course, nodes)
        node = nodes.get(current.node_id)
        if current.is_active and node and (manager.name == engine.name or node.address in ("", address)):
            if (node.machine, node.address) != (engine.name, address):
                with engine_errors(manager.name):
                    update_node(manager, node.id, labels=self._labels(engine, address))
            return "unchanged"
        # the swarm does not know the node (it was removed), or this machine is a clone of it, or its address changed
        self._join(manager, engine, address, current, nodes)
        return "joined"

    def _join(
        self, manager: Engine, engine: Engine, address: str, current: Membership, nodes: Mapping[str, SwarmNode]
    ) -> None:
        role = self._role(engine, nodes.values())
        with engine_errors(engine.name):
            bridge = _bridge_label(engine)
            _leave(engine, current)
        # the machine's former nodes must not be joined through; the original of a clone has another name
        for node in nodes.values():
            if node.machine == engine.name:
                remove_node(manager, node.id)
        with engine_errors(manager.name):
            token = manager.api.inspect_swarm()["JoinTokens"][role]
            request = JoinRequest(address, token, _reachable_managers(manager, address))
        # the managers take one new manager at a time
        lock = self._one_manager if role == "Manager" else contextlib.nullcontext()
        joined, abandoned = _try_to_join(engine, request, lock)
        with engine_errors(manager.name):
            update_node(manager, joined.node_id, labels={**self._labels(engine, address), **bridge})
        _remove_abandoned(manager, {current.node_id, *abandoned} - {joined.node_id, ""})

    def _role(self, engine: Engine, nodes: Collection[SwarmNode]) -> str:
        others = sum(node.is_manager and node.machine != engine.name for node in nodes)
        return "Manager" if engine.name in self._managers and others < MANAGERS else "Worker"


def _reachable_managers(manager: Engine, address: str) -> list[str]:
    """The managers' addresses, with their ports, except the machine's own."""
    statuses = [node.get("ManagerStatus", {}) for node in manager.api.nodes(filters={"role": "manager"})]
    own = endpoint(address, SWARM_PORT)
    return [s["Addr"] for s in statuses if s.get("Reachability") == "reachable" and s["Addr"] != own]


def _try_to_join(
    engine: Engine, request: JoinRequest, lock: contextlib.AbstractContextManager[object]
) -> tuple[Membership, set[str]]:
    """Joins, in several attempts; returns also the ids of the nodes that failed attempts left behind."""
    abandoned: set[str] = set()
    for _ in range(ATTEMPTS - 1):
        with contextlib.suppress(SwarmError), lock:
            return _attempt(engine, request), abandoned
        current = _settled(engine, membership(engine))
        abandoned.add(current.node_id)
        with engine_errors(engine.name):
            _leave(engine, current)
    with lock:
        return _attempt(engine, request), abandoned


def _attempt(engine: Engine, request: JoinRequest) -> Membership:
    refusal = ""
    with engine_errors(engine.name):
        try:
            engine.api.join_swarm(
                remote_addrs=list(request.managers),
                join_token=request.token,
                listen_addr=endpoint(request.address, SWARM_PORT),
                advertise_addr=request.address,
                data_path_addr=request.address,
            )
        except APIError as error:
            # the engine may go on in the background, so its state in the end counts
            refusal = str(error.explanation)
    joined = _membership_once(engine, lambda state: state in ("active", "inactive", "error"))
    if not joined.is_active:
        raise SwarmError(
            f"{engine.name}: it can't join the swarm ({refusal or joined.problem or joined.state}).",
            f"Open the ports {SWARM_PORT}, 7946 and 4789 between the machines, then run again.",
        )
    return joined


def _remove_abandoned(manager: Engine, node_ids: Collection[str]) -> None:
    """Removes nodes of failed attempts, unless somebody uses them."""
    for node in swarm_nodes(manager) if node_ids else ():
        if node.id in node_ids and not node.machine and not node.is_up:
            remove_node(manager, node.id)


def _settled(engine: Engine, current: Membership, *, others_decide: bool = False) -> Membership:
    """The engine's membership once its state is clear: managers that just restarted need a while to elect a leader.

    `others_decide`: the other managers have one, which this one finds again, if its network was cut. Raises SwarmError
    if the swarm can neither be used nor left without harm.
    """
    patience = FINDING if others_decide else JOINING
    if current.state in UNCLEAR:
        current = _membership_once(engine, lambda state: state not in UNCLEAR, patience)
    if current.state == "leaderless":
        raise SwarmError(
            f"{engine.name}: its swarm has had no leader for {patience:.0f} s ({current.problem}).",
            "The other managers have one: run again in some minutes; if it is the same then, restart its engine (sudo"
            " systemctl restart docker)."
            if others_decide
            else "Start its other managers again. If they are lost for good, add --replace-lost.",
        )
    if current.state == "locked":
        check_usable(engine.name, current)
    return current


def _membership_once(engine: Engine, is_clear: Callable[[str], bool], patience: float = JOINING) -> Membership:
    """The engine's membership as soon as its state is clear, or as it is after `patience` seconds."""

    def look() -> Membership | None:
        current = membership(engine)
        return current if is_clear(current.state) else None

    return poll(look, timeout=patience) or membership(engine)


def _leave(engine: Engine, current: Membership) -> None:
    if current.state != "inactive":
        engine.api.leave_swarm(force=True)


def _bridge_label(engine: Engine) -> dict[str, str]:
    return {} if engine.api.networks(names=[BRIDGE]) else {BRIDGE_LABEL: "made"}
