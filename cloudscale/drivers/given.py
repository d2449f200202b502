"""What drivers have in common that make no machines: theirs are there before a course and after it."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from cloudscale.model import Machine, Order, Outcomes, Survey


class GivenMachines:
    makes_machines = False

    def kind(self) -> None:
        return None

    def order(self, count: int, former: Collection[str]) -> Order:
        return Order()

    def bring(self, machine: Machine) -> Survey:
        raise NotImplementedError("no machine is ever to come")

    def open_ports(self, ports: Mapping[str, Collection[int]]) -> None:
        pass  # their network is their owner's

    def resources(self) -> str:
        return ""

    def sweep(self, only: Collection[str] | None = None) -> Outcomes[str]:
        return Outcomes()
