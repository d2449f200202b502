"""What a launch gives up for good: machines whose students move to others, and a swarm that has lost its quorum."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from cloudscale.cluster.state import Cluster
from cloudscale.course.flags import Launch
from cloudscale.course.session import Session
from cloudscale.fanout import fan_out
from cloudscale.swarm import leaving
from cloudscale.swarm.nodes import balance_managers, remove_node, swarm_nodes
from cloudscale.waiting import poll

NOTICING = 40.0  # seconds for a swarm to notice that a machine is gone: three missed heartbeats


@dataclass(frozen=True)
class Recovery:
    """Decided once, before anything is changed. `replaces_lost`: machines are given up that may come back, too.

    `machines`: those whose students move to others, as it looks before anything is changed.
    """

    machines: frozenset[str]
    replaces_lost: bool
    replaces_swarm: bool

    def give_up_swarm(self, cluster: Cluster, session: Session) -> None:
        """Takes engines out of a swarm without a quorum, so that they can create a new one. Raises EngineError."""
        if cluster.quorum_is_gone and self.replaces_swarm:
            session.progress.say(
                "The swarm's managers were deleted: a new swarm is created on the machines that are left"
            )
        if self.replaces_swarm or self.replaces_lost:
            fan_out(leaving.leave, cluster.without_quorum.values(), name=lambda engine: engine.name).get()

    def remove_lost_nodes(self, cluster: Cluster, working: Collection[str], session: Session) -> frozenset[str]:
        """Removes the nodes of lost machines, once the swarm itself has noticed that they are gone.

        With `replaces_lost` also nodes that are down and have no machine's name: those of machines that half joined.
        Returns the machines that are given up: their students move. `working`: machines that are not lost.
        """
        if cluster.driver.adopts_swarm:
            return frozenset()
        lost = _lost(cluster, working, session, self.replaces_lost)
        gone = _noticed(cluster, lost, session) if lost else frozenset()
        takes_unnamed = self.replaces_lost and session.selection.uses("", cluster.addresses)
        for node in cluster.swarm.values():
            if node.machine in gone or (takes_unnamed and not node.machine and not node.is_up):
                remove_node(cluster.manager, node.id)
        balance_managers(cluster.manager)
        return gone


def decide(cluster: Cluster, usable: Collection[str], session: Session, launch: Launch) -> Recovery:
    """What has to be given up. Changes nothing. Raises CloudscaleError where the user has to decide."""
    asleep = any(host.is_asleep for host in cluster.hosts if host.name in usable)  # they will be started
    replaces_swarm = cluster.quorum_is_gone and cluster.maker is not None and not asleep and not cluster.unusable
    if not (replaces_swarm or launch.replace_lost or asleep):
        cluster.check_quorum("Bring those machines back; or give up their seats, and start again with --replace-lost.")
    answering = {host.name for host in cluster.hosts if host.survey}
    machines = _lost(cluster, {*answering, *usable}, session, launch.replace_lost)
    return Recovery(machines, launch.replace_lost, replaces_swarm)


def _lost(cluster: Cluster, working: Collection[str], session: Session, replaces_lost: bool) -> frozenset[str]:
    """The machines that the swarm has and that do not work: with `replaces_lost` also those that may come back."""
    if cluster.driver.adopts_swarm:  # what else is in it is its owner's
        return frozenset()
    lost = {name for name in cluster.swarm_machines - {*working} if session.selection.uses(name, cluster.addresses)}
    return frozenset(lost if replaces_lost else lost & cluster.deleted)


def _noticed(cluster: Cluster, lost: frozenset[str], session: Session) -> frozenset[str]:
    """Those of the lost machines that the swarm takes for down, too, within NOTICING seconds."""
    say = session.progress.say
    say(f"Lost: {', '.join(sorted(lost))}; waiting until the swarm has noticed")

    def down() -> frozenset[str]:
        return lost & {node.machine for node in swarm_nodes(cluster.manager) if not node.is_up}

    poll(lambda: down() == lost, timeout=NOTICING, interval=1)
    gone = down()
    if still := sorted(lost - gone):
        say(f"Warning: the swarm still has {', '.join(still)}: their seats stay")
    return gone
