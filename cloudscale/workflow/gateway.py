"""The gateway of a class: whether it has one, what of it is to change, and its removal."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.session import Session
from cloudscale.course.settings import Launch
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.gateway import routes, service
from cloudscale.gateway.setup import GatewaySetup, trainers_files
from cloudscale.gateway.volume import remove_volumes
from cloudscale.model import Outcome, Outcomes
from cloudscale.seats.address import Entrance, Placed

Mode = Literal["none", "path", "subdomain", "auto"]


@dataclass(frozen=True)
class Wish:
    """The gateway that a launch is to end with. `machine`: its name, the course's first."""

    mode: Mode
    machine: str = ""

    @property
    def is_wanted(self) -> bool:
        return self.mode != "none"


def wish(cluster: Cluster, session: Session, launch: Launch) -> Wish:
    """What the flag says, else the configuration; if neither does, what the class has stays.

    Raises RequestError for what can't be, as far as it is known before the machines are up.
    """
    settings = session.settings.gateway
    mode: Mode = launch.gateway or settings.mode
    if not launch.gateway and "mode" not in settings.model_fields_set and cluster.gateway:
        mode = cluster.gateway.mode
    if mode == "none":
        return Wish(mode)
    if mode == "subdomain" and not settings.domain:
        raise RequestError(
            "--gateway subdomain needs a domain name.",
            "Set gateway.domain to a name for which *.DOMAIN leads to the first machine; or use --gateway path.",
        )
    first = cluster.hosts[0]
    _check_port(first, cluster, settings.port)
    trainers_files(settings, settings.domain or first.machine.address, by_name=mode == "subdomain")
    return Wish(mode, first.name)


def _check_port(first: Host, cluster: Cluster, port: int) -> None:
    held = first.capacity.taken_ports if first.capacity else frozenset()
    has_gateway = cluster.gateway and first.node and cluster.gateway.node_id == first.node.id
    if port in held and not (has_gateway and cluster.gateway and cluster.gateway.entrance.port == port):
        raise RequestError(
            f"Port {port} of {first.name} is held by something else: the gateway can't have it.",
            f"Stop that (ss -ltnp 'sport = :{port}' shows it), or set gateway.port in the configuration, such as 8443.",
        )


def say_change(wish: Wish, cluster: Cluster, session: Session) -> None:
    """Says what a launch changes of the gateway."""
    if change := _change(wish, cluster):
        session.progress.say(f"Gateway: {change}")


def _change(wish: Wish, cluster: Cluster) -> str:
    now = cluster.gateway.mode if cluster.gateway else "none"
    if now == wish.mode:
        return ""
    if not wish.is_wanted:
        return "it is removed; each seat is reached at its machine's address again. No seat restarts."
    if now == "none":
        return f"one HTTPS address for all seats, on {wish.machine} ({wish.mode}). No seat restarts."
    return f"from {now} to {wish.mode}. No seat restarts; everybody logs in again."


# --- up --------------------------------------------------------------------------------------


def bring_up(cluster: Cluster, wish: Wish, seats: Iterable[Placed], session: Session) -> Cluster:
    """The gateway as it is wanted, with the way to these seats; and the course with it.

    Raises CloudscaleError where it can't be brought up.
    """
    if not wish.is_wanted:
        if cluster.gateway:
            remove(cluster, session)
            session.progress.say("Gateway: removed")
        return cluster.with_gateway(None)
    entrance = _entrance(cluster, wish, session)
    return _converge(cluster, wish.machine, entrance, seats, session)


def follow(
    cluster: Cluster, seats: Sequence[Placed], session: Session, *, leaving: Collection[str] = ()
) -> tuple[Cluster, Outcomes[str]]:
    """The gateway with the way to these seats alone; with the last of them, or with its machine, it is removed.

    Returns the course with it, and what went wrong.
    """
    host = cluster.gateway_host
    if not cluster.gateway:
        return cluster, Outcomes()
    if not seats or not host or host.name in leaving:
        return cluster.with_gateway(None), remove(cluster, session).failed
    try:
        return _converge(cluster, host.name, cluster.gateway.entrance, seats, session), Outcomes()
    except CloudscaleError as error:
        return cluster, Outcomes([Outcome("gateway", error=error)])


def _entrance(cluster: Cluster, wish: Wish, session: Session) -> Entrance:
    settings = session.settings.gateway
    address = cluster.addresses[wish.machine]
    host = settings.domain or address
    if wish.mode == "auto":
        leads = addresses_of(f"cloudscale-{secrets.token_hex(4)}.{settings.domain}") if settings.domain else set()
        by_name = bool(leads & addresses_of(address))
        why = f"*.{settings.domain} leads to {wish.machine}" if by_name else "no wildcard name leads to it"
        session.progress.say(f"Gateway: {'subdomain' if by_name else 'path'}, since {why} (--gateway says otherwise)")
    else:
        by_name = wish.mode == "subdomain"
    if settings.domain and not addresses_of(settings.domain) & addresses_of(address):
        session.progress.say(
            f"Warning: the name {settings.domain} does not lead to {wish.machine} ({address}) yet."
            f" Make it so at whoever manages the domain: an A record{' for it and for *.' if by_name else ''}"
            f"{settings.domain if by_name else ''}."
        )
    return Entrance(host, settings.port, by_name)


def addresses_of(name: str) -> set[str]:
    """What a name leads to, or an address itself; nothing if it is not known."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _converge(cluster: Cluster, machine: str, entrance: Entrance, seats: Iterable[Placed], session: Session) -> Cluster:
    setup = _setup(cluster, machine, session)
    ways = [routes.seat_route(setup.key, seat, cluster.inner_address(seat.place.machine)) for seat in seats]
    done = setup.converge(cluster.manager, cluster.gateway, entrance, ways)
    others = [engine for name, engine in cluster.engines.items() if name != machine]
    fan_out(lambda engine: remove_volumes(engine, setup.course), others, name=lambda engine: engine.name)
    session.progress.say(f"Gateway: {done}; {entrance.url}")
    return cluster.with_gateway(service.running_gateway(cluster.manager, setup.course))


def _setup(cluster: Cluster, machine: str, session: Session) -> GatewaySetup:
    host = next((host for host in cluster.hosts if host.name == machine), None)
    if not host or not host.engine or not host.node:
        cause = f" {host.error}" if host and host.error else ""
        raise CloudscaleError(
            f"{machine}: it has the gateway, and can't be used.{cause}", "Without it, no student reaches a seat."
        )
    key = session.course.key()
    assert key
    return GatewaySetup(
        engine=host.engine,
        node_id=host.node.id,
        # where no launch has looked for the class's image: that of the gateway that runs
        image=host.image or (cluster.gateway.image if cluster.gateway else ""),
        course=session.settings.course,
        folder=session.course.folder,
        key=key,
        settings=session.settings.gateway,
        say=session.progress.say,
    )


# --- after -----------------------------------------------------------------------------------


def settle(cluster: Cluster, session: Session) -> None:
    """Says who has signed for the gateway, and keeps what the next machine needs of that."""
    if cluster.gateway and (host := cluster.gateway_host):
        _setup(cluster, host.name, session).settle(cluster.gateway.entrance, host.machine.address)


def remove(cluster: Cluster, session: Session) -> Outcomes[str]:
    """Removes the gateway: its service, and its volume wherever there is one."""
    if cluster.gateway and cluster.in_swarm:
        service.remove(cluster.manager, cluster.gateway)
    course = session.settings.course
    return fan_out(
        lambda engine: remove_volumes(engine, course),
        cluster.engines.values(),
        name=lambda each: each.name,
    )
