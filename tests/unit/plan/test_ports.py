from __future__ import annotations

from cloudscale.model import Machine, Node, Place
from cloudscale.plan.ports import PortLedger, PortRange


def node(name: str, address: str, *taken: int) -> Node:
    return Node(Machine(name, address), "", 4, 2**34, frozenset(taken))


def test_the_lowest_port_that_nobody_has_is_given_once() -> None:
    ledger = PortLedger([node("m1", "192.0.2.1", 4322)], [Place("m1", 4321)], PortRange(4321), {})
    assert ledger.lowest("m1") == Place("m1", 4323)
    assert ledger.lowest("m1") == Place("m1", 4324)
    assert ledger.warnings() == ["Port 4322 of m1 is held by something else and was passed over."]


def test_a_place_is_taken_once_and_within_the_range_only() -> None:
    ledger = PortLedger([node("m1", "192.0.2.1")], [], PortRange(4321, 4322), {})
    assert ledger.take(Place("m1", 4322))
    assert not ledger.take(Place("m1", 4322))
    assert not ledger.take(Place("m1", 4323))
    assert ledger.lowest("m1") == Place("m1", 4321)
    assert ledger.lowest("m1") is None


def test_machines_behind_one_address_share_its_ports() -> None:
    nodes = [node("vm-1", "127.0.0.1", 4323), node("vm-2", "127.0.0.1")]
    ledger = PortLedger(nodes, [Place("lost", 4321)], PortRange(4321), {"lost": "127.0.0.1"})
    assert [ledger.lowest(name) for name in ("vm-1", "vm-2")] == [Place("vm-1", 4322), Place("vm-2", 4324)]
