from __future__ import annotations

from cloudscale.cluster.look import look
from tests.unit.cluster.sessions import session
from tests.unit.fakes import FakeDriver
from tests.unit.seats.services import ANN, Swarm


def test_a_seat_on_a_machine_that_is_gone_has_no_machine() -> None:
    swarm = Swarm()
    swarm.converge([ANN])
    swarm.api.rename_node("another")
    cluster = look(session(), FakeDriver(swarm.api))
    assert cluster.seats[0].place.machine == ""
