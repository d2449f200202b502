"""The gateway of a class: whether it has one, what of it is to change, and its removal."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cloudscale.cluster.state import Cluster, Host
from cloudscale.course.flags import Launch
from cloudscale.course.naming import natural
from cloudscale.course.session import Session
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.fanout import fan_out
from cloudscale.gateway import certificates, routes, service
from cloudscale.gateway.setup import GatewaySetup, trainers_files
from cloudscale.gateway.volume import remove_volumes
from cloudscale.model import Machine, Outcome, Outcomes
from cloudscale.networks import is_address
from cloudscale.seats.address import Entrance, Placed

Mode = Literal["none", "path", "subdomain", "auto"]


@dataclass(frozen=True)
class Wish:
    """The gateway that a launch is to end with. `machine`: its name, the course's first.

    `is_kept`: nobody has asked for a mode. `gathers`: machines that have public addresses of their own are to be
    reached through the first one. `spreads`: the other way round.
    """

    mode: Mode
    machine: str = ""
    is_kept: bool = False
    gathers: bool = False
    spreads: bool = False

    @property
    def is_wanted(self) -> bool:
        return self.mode != "none"


def wish(cluster: Cluster, session: Session, launch: Launch) -> Wish:
    """What the flag says, else the configuration; else what the class has stays. The driver learns of it."""
    settings = session.settings.gateway
    mode: Mode | None = launch.gateway or (settings.mode if "mode" in settings.model_fields_set else None)
    maker = cluster.maker
    has_one_address = maker.enter_by_first(None) if maker else False
    is_kept = mode is None
    if mode is None:  # of a class whose first machine is lost, only the addresses of the others say that it had one
        mode = cluster.gateway.mode if cluster.gateway else "auto" if has_one_address else "none"
    if mode == "subdomain" and not settings.domain:
        raise RequestError(
            "--gateway subdomain needs a domain name.",
            "Set gateway.domain to a name for which *.DOMAIN leads to the first machine; or use --gateway path.",
        )
    will_have_one = maker.enter_by_first(mode != "none") if maker else False
    return Wish(
        mode,
        is_kept=is_kept,
        gathers=will_have_one and not has_one_address,
        spreads=has_one_address and not will_have_one,
    )


def on_first(wish: Wish, cluster: Cluster, session: Session) -> Wish:
    """The wish, for the first of the course's machines. Raises RequestError if that one can't have it."""
    if not wish.is_wanted:
        return wish
    first = min(cluster.hosts, key=lambda host: natural(host.name)) if cluster.maker else cluster.hosts[0]
    settings = session.settings.gateway
    _check_port(first, cluster, settings.port)
    host = settings.domain or first.machine.address
    trainers_files(settings, host, by_name=wish.mode == "subdomain")
    if host:  # a machine that is not made yet has no address
        certificates.choose(settings, Entrance(host, settings.port))
    return replace(wish, machine=first.name)


def _check_port(first: Host, cluster: Cluster, port: int) -> None:
    taken = first.capacity.taken_ports if first.capacity else frozenset()
    has_gateway = cluster.gateway and first.node and cluster.gateway.node_id == first.node.id
    own = cluster.gateway.ports if cluster.gateway and has_gateway else ()
    for needed in service.listening(Entrance("", port)):
        if cluster.maker:
            cluster.maker.check_port(needed)
        if needed in taken and needed not in own:
            raise RequestError(
                f"Port {needed} of {first.name} is held by something else: the gateway can't have it.",
                f"Stop that (ss -ltnp 'sport = :{needed}' shows it), or set gateway.port in the configuration, such as"
                " 8443.",
            )


def say_change(wish: Wish, cluster: Cluster, session: Session) -> None:
    """Says what a launch changes of the gateway."""
    if change := _change(wish, cluster):
        session.progress.say(f"Gateway: {change}")


def _change(wish: Wish, cluster: Cluster) -> str:
    now = cluster.gateway.mode if cluster.gateway else "none"
    if now == wish.mode or (wish.mode == "auto" and now != "none"):  # what auto comes to is said once it is known
        return ""
    if not wish.is_wanted:
        restarts = "Machines that get a public address restart, and their seats with them."
        return (
            "it is removed; each seat is reached at its machine's address again."
            f" {restarts if wish.spreads else 'No seat restarts.'}"
        )
    if now == "none":
        others = any(host.is_made and host.name != wish.machine for host in cluster.hosts)
        given_back = " The other machines give back the floating IPs that they have." if wish.gathers and others else ""
        return f"one HTTPS address for all seats, on {wish.machine} ({wish.mode}). No seat restarts.{given_back}"
    return f"from {now} to {wish.mode}. No seat restarts; everybody logs in again."


# --- up --------------------------------------------------------------------------------------


def bring_up(cluster: Cluster, wish: Wish, seats: Iterable[Placed], session: Session) -> Cluster:
    """The gateway as it is wanted, with the way to these seats; and the course with it.

    Raises CloudscaleError where it can't be brought up.
    """
    if not wish.is_wanted:
        if cluster.gateway:
            left = remove(cluster, session).failed
            session.progress.say("Gateway: removed" if not left else f"Warning: {left[0].problem}")
        return _spread(cluster.with_gateway(None), wish, session)
    if wish.is_kept and cluster.gateway:  # which may not have been seen before its machine was up
        wish = replace(wish, mode=cluster.gateway.mode)
    try:
        entrance = _entrance(cluster, wish, session)
        return _converge(cluster, wish.machine, entrance, seats, session)
    except RequestError as error:  # machines have been made by now: not a request that changed nothing
        raise CloudscaleError(error.message, error.remedy) from None


def _spread(cluster: Cluster, wish: Wish, session: Session) -> Cluster:
    """Gives each machine an address of its own. The engine's certificate has to be for it, so the engine restarts."""
    if not cluster.maker or not wish.spreads:
        return cluster
    given = [Machine(name, address) for name, address in cluster.maker.settle_addresses().items()]
    seat = session.settings.seat
    engines = fan_out(lambda machine: cluster.driver.prepare(machine, seat), given, name=lambda m: m.name).get()
    hosts = {host.name: host for host in cluster.hosts}
    changed = [
        replace(hosts[machine.name], machine=machine, engine=engine)
        for machine, engine in zip(given, engines, strict=True)
    ]
    return cluster.with_hosts(changed)


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
        by_name = bool(leads) and bool(leads & addresses_of(address))
        why = f"*.{settings.domain} leads to {wish.machine}" if by_name else "no wildcard name leads to it"
        session.progress.say(f"Gateway: {'subdomain' if by_name else 'path'}, since {why} (--gateway says otherwise)")
    else:
        by_name = wish.mode == "subdomain"
    if wrong := name_fault(settings.domain, wish.machine, address, by_name=by_name):
        session.progress.say("Warning: " + " ".join(wrong))
    return Entrance(host, settings.port, by_name)


def name_fault(domain: str, machine: str, address: str, *, by_name: bool) -> tuple[str, ...]:
    """What is wrong with the domain name of the gateway, and what to do; nothing if it leads to the machine."""
    # an address may be that of a router before the machine
    if not domain or is_address(domain) or addresses_of(domain) & addresses_of(address):
        return ()
    also = f" for it and for *.{domain}" if by_name else ""
    return (
        f"the name {domain} does not lead to {machine} ({address}) yet.",
        f"Make it so at whoever manages the domain: an A record{also}.",
    )


def addresses_of(name: str) -> set[str]:
    """What a name leads to, or an address itself; nothing if it is not known."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError):
        return set()


def _converge(cluster: Cluster, machine: str, entrance: Entrance, seats: Iterable[Placed], session: Session) -> Cluster:
    setup = _setup(cluster, machine, session)
    names = session.course.names_key()
    assert names
    passwords = cluster.passwords(setup.key)
    ways = [routes.seat_route(passwords, names, seat, cluster.inner_address(seat.place.machine)) for seat in seats]
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


def settle(cluster: Cluster, session: Session) -> tuple[str, ...]:
    """Says who has signed for the gateway, and keeps what the next machine needs of that. Returns what went wrong.

    The other machines' public addresses are given back only here: this run has reached them there.
    """
    try:
        if cluster.gateway and (host := cluster.gateway_host):
            _setup(cluster, host.name, session).settle(cluster.gateway.entrance, host.machine.address)
            if cluster.maker:
                cluster.maker.settle_addresses()
    except CloudscaleError as error:  # the seats are ready, and their table is to be seen
        return (str(error),)
    return ()


def problems(cluster: Cluster) -> tuple[str, ...]:
    """Why students can't come in, if they can't."""
    if not cluster.gateway or service.is_running(cluster.manager, cluster.gateway):
        return ()
    where = cluster.gateway_host.name if cluster.gateway_host else "a machine that the course does not have any more"
    return (f"The gateway on {where} does not run: no student reaches a seat.\n  Run invoke themachine.",)


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
