"""Brings a gateway up, and to what is wanted: its files, its program, its service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cloudscale.course import naming
from cloudscale.course.folder import STORE_COPY
from cloudscale.course.settings import GatewaySettings
from cloudscale.engines.client import Engine
from cloudscale.files import replace_file
from cloudscale.gateway import certificates, program, routes, service
from cloudscale.gateway.authority import ROOT, WebAuthority, is_ours, is_valid, web_authority
from cloudscale.gateway.routes import Route
from cloudscale.gateway.service import Gateway
from cloudscale.gateway.volume import GatewayVolume, OpenVolume
from cloudscale.model import Say
from cloudscale.seats.address import Entrance
from cloudscale.waiting import poll

ISSUING = 60.0  # seconds for an authority on the internet to sign
HANDSHAKES = 10.0  # seconds for the course's own


@dataclass(frozen=True)
class GatewaySetup:
    """The gateway of a course on one machine.

    `engine`, `node_id`: of the machine. `image`: one that it has. `folder`: the course's.
    """

    engine: Engine
    node_id: str
    image: str
    course: str
    folder: Path
    key: bytes = field(repr=False)
    settings: GatewaySettings
    say: Say

    @property
    def volume(self) -> GatewayVolume:
        return GatewayVolume(self.engine, self.course, self.image)

    def converge(self, manager: Engine, present: Gateway | None, entrance: Entrance, ways: Sequence[Route]) -> str:
        """Brings it up with the ways to these seats: `created`, `updated` or `unchanged`. Raises CloudscaleError."""
        with self.volume.opened() as files:
            signed = self._fill(files, entrance)
            digests = self._configure(files, entrance, ways, signed)
            # with another port comes another container: the one before would take the new files over, and then end
            code = program.identify({**program.login_program(), "port": str(entrance.port).encode()})
            wanted = service.wanted_spec(self.course, entrance, self.node_id, self.image, code)
            done = service.ensure(manager, present, wanted)
            service.take_effect(manager, files, self.volume, digests, code)
        return done

    def settle(self, entrance: Entrance, address: str) -> None:
        """Says who has signed for it, and keeps what a machine that takes its place would have to ask for again.

        `address`: of its machine.
        """
        source = certificates.choose(self.settings, entrance)
        if source.source == "files":
            return
        asks = source.source == "acme"

        # there is none until the first authority has signed, or has not
        found = poll(lambda: certificates.shown(address, entrance), timeout=ISSUING if asks else HANDSHAKES)
        if asks and found and not is_ours(found):
            self._keep_store()
            return
        why = f"Why: docker service logs {self.volume.name}"
        if not found:
            self.say(f"Warning: the gateway has no certificate for {entrance.host} yet. {why}")
            return
        if asks:
            self.say(
                f"Warning: {source.acme} has signed no certificate for {entrance.host} yet. The course's own authority"
                f" stands in, and the gateway goes on asking. {why}"
            )
        self.say(
            f"Gateway: browsers warn of its certificate once, unless they trust {self.folder / ROOT}"
            f" (SHA-256 {self.authority().fingerprint})"
        )

    def _keep_store(self) -> None:
        with self.volume.opened() as files:
            if store := files.read_archive("store"):
                replace_file(self.folder / STORE_COPY, store)

    def _fill(self, files: OpenVolume, entrance: Entrance) -> str:
        """What the gateway runs, and what it keeps from an earlier machine. Returns what identifies its certificate."""
        is_new = files.read(program.NOTE) is None
        program.ensure_caddy(self.engine, self.course, files, self.say)
        kept = self.folder / STORE_COPY
        if is_new and kept.exists():
            files.write_archive(kept.read_bytes())
        chain, written = self._tls_files(files, entrance)
        files.write({**program.login_program(), **written})
        return routes.digest(chain)[:16]

    def _tls_files(self, files: OpenVolume, entrance: Entrance) -> tuple[bytes, dict[str, bytes]]:
        """The certificates that it signs with or shows, and the files of them that are new."""
        if own := trainers_files(self.settings, entrance.host, by_name=entrance.by_name):
            if own.warning:
                self.say(f"Warning: {own.warning}")
            return own.chain, {"tls/certificate.pem": own.chain, "tls/key.pem": own.key}
        authority = self.authority()
        trusted = {"tls/roots.pem": certificates.trusted_roots()}
        certificate = files.read("tls/intermediate.pem")
        if certificate and is_valid(certificate, authority, entrance.host):
            return certificate, {"tls/root.pem": authority.pem, **trusted}
        certificate, key = authority.intermediate([entrance.host])
        written = {"root.pem": authority.pem, "intermediate.pem": certificate, "intermediate.key": key}
        return certificate, {**{f"tls/{name}": data for name, data in written.items()}, **trusted}

    def authority(self) -> WebAuthority:
        return web_authority(self.folder, self.course)

    def _configure(self, files: OpenVolume, entrance: Entrance, ways: Sequence[Route], signed: str) -> dict[str, str]:
        """Writes both configurations, and returns their digests."""
        source = replace(certificates.choose(self.settings, entrance), version=signed)
        salt = naming.keyed_digest(self.key, "gateway")
        written = {
            "caddy": routes.caddy_config(entrance, ways, source, probe=naming.gateway_probe(self.key)),
            "login": routes.login_table(self.course, entrance, ways, salt),
        }
        encoded = {name: json.dumps(config, indent=1).encode() for name, config in written.items()}
        files.write({**{f"{name}.json": data for name, data in encoded.items()}, "state.json": b"{}"})
        return {name: routes.digest(data) for name, data in encoded.items()}


def trainers_files(settings: GatewaySettings, host: str, *, by_name: bool) -> certificates.Files | None:
    """The trainer's own certificate, if gateway.tls names one. Raises RequestError if it is not for the address."""
    if not settings.files:
        return None
    names = [host, *([f"x.{host}"] if by_name else [])] if host else []
    return certificates.read_files(*settings.files, names)
