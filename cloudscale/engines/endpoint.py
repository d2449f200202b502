"""Which engine is the trainer's own: decided once, as the docker command decides it, and used for everything."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from docker.errors import DockerException
from docker.utils import parse_host

from cloudscale.errors import RequestError
from cloudscale.outside import home_path, parse_object

DEFAULT = "unix:///var/run/docker.sock"
HOST = "DOCKER_HOST"
TLS = ("DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")
HERE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Endpoint:
    """The address of an engine. `source`: what names it (DOCKER_HOST, a context); empty: nothing does.

    `certificates`: the folder with ca.pem, cert.pem and key.pem, if it is reached with TLS.
    """

    url: str = DEFAULT
    source: str = ""
    certificates: Path | None = None
    verify: bool = True

    @property
    def host(self) -> str:
        """The host, if that is another computer, else ""."""
        url = urlsplit(self.url)
        host = url.hostname if url.scheme in ("tcp", "http", "https", "ssh") else None
        return "" if host in HERE else host or ""

    @property
    def name(self) -> str:
        joined = "=" if self.source == HOST else ": "
        return f"this computer ({self.source}{joined}{self.url})" if self.source else "this computer"

    @property
    def way_back(self) -> str:
        """How to use this computer's own engine instead."""
        return f"unset {HOST}" if self.source == HOST else "docker context use default (and unset DOCKER_CONTEXT)"

    @property
    def note(self) -> str:
        """What the user should know, if the engine is not the one that is expected here."""
        is_expected = not self.source or (self.source == HOST and not self.host)
        return "" if is_expected else f"The Docker Engine is that of {self.source}: {self.url}"

    @property
    def environment(self) -> dict[str, str]:
        """The same as the environment variables that docker-py reads."""
        if not self.certificates:
            return {"DOCKER_HOST": self.url}
        verify = "1" if self.verify else ""
        return {"DOCKER_HOST": self.url, "DOCKER_CERT_PATH": str(self.certificates), "DOCKER_TLS_VERIFY": verify}


def own_endpoint() -> Endpoint:
    """DOCKER_HOST, else DOCKER_CONTEXT, else the active `docker context`, else the default socket.

    Raises RequestError if it can't be an engine, or if it is half named.
    """
    if host := os.environ.get(HOST, ""):
        return _of_host(host)
    name = os.environ.get("DOCKER_CONTEXT") or str(_json(_folder() / "config.json").get("currentContext") or "")
    if name not in ("", "default"):
        return _of_context(name)
    if rest := [variable for variable in TLS if os.environ.get(variable)]:
        raise RequestError(
            f"{' and '.join(rest)}: set, but DOCKER_HOST is not. They are for an engine elsewhere.",
            f"Unset what is left over: unset {' '.join(rest)}. Or set DOCKER_HOST to that engine.",
        )
    return Endpoint()


def _of_host(host: str) -> Endpoint:
    try:
        parse_host(host)
    except (DockerException, ValueError) as error:
        raise RequestError(
            f"DOCKER_HOST is {host!r}, which is not the address of an engine: {error}.",
            "Set it to unix:///run/docker.sock, tcp://HOST:PORT or ssh://USER@HOST, or unset it.",
        ) from None
    endpoint = Endpoint(host, HOST)
    with_tls = [variable for variable in TLS if os.environ.get(variable)]
    if not with_tls or urlsplit(host).scheme not in ("tcp", "http", "https"):
        return endpoint
    folder = home_path(os.environ.get("DOCKER_CERT_PATH") or _folder())
    verify = bool(os.environ.get("DOCKER_TLS_VERIFY"))
    for file in (*(["ca.pem"] if verify else []), "cert.pem", "key.pem"):
        if not (folder / file).is_file():
            raise RequestError(
                f"{' and '.join(with_tls)}: set, so {folder / file} is needed, and there is no such file.",
                "Set DOCKER_CERT_PATH to the folder with the certificates; or unset both, if the engine has no TLS:"
                f" unset {' '.join(with_tls)}.",
            )
    return Endpoint(host, HOST, folder, verify)


def _of_context(name: str) -> Endpoint:
    """The endpoint of a `docker context` (docs.docker.com/engine/manage-resources/contexts)."""
    id = hashlib.sha256(name.encode()).hexdigest()
    contexts = _folder() / "contexts"
    endpoints = _json(contexts / "meta" / id / "meta.json").get("Endpoints")
    docker = endpoints.get("docker") if isinstance(endpoints, Mapping) else None
    host = str(docker.get("Host") or "") if isinstance(docker, Mapping) else ""
    try:
        parse_host(host or "none")
    except (DockerException, ValueError):
        raise RequestError(
            f"The Docker context {name!r} is in use, and it does not exist or names no engine ({host or 'no host'}).",
            "docker context ls lists the contexts; docker context use default goes back to this computer's engine."
            " DOCKER_CONTEXT, if set, goes before that.",
        ) from None
    certificates = contexts / "tls" / id / "docker"
    assert isinstance(docker, Mapping)
    verify = not docker.get("SkipTLSVerify")
    return Endpoint(
        host, f"the Docker context {name!r}", certificates if (certificates / "cert.pem").is_file() else None, verify
    )


def _folder() -> Path:
    return home_path(os.environ.get("DOCKER_CONFIG") or "~/.docker")


def _json(path: Path) -> Mapping[str, object]:
    """A file of the docker command; what can't be read counts as empty, as it does there."""
    try:
        return parse_object(path.read_text())
    except (OSError, ValueError):
        return {}
