"""Where the gateway's certificates come from: the choice by gateway.tls, and the trainer's own files."""

from __future__ import annotations

import datetime
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import requests
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from cloudscale.course.settings import GatewaySettings
from cloudscale.errors import CloudscaleError, RequestError
from cloudscale.gateway.authority import ROOT, is_ours
from cloudscale.networks import is_address, is_public
from cloudscale.seats.address import HTTPS, Entrance

SYSTEM_ROOTS = "/etc/ssl/certs/ca-certificates.crt"  # of Debian
HANDSHAKE = 5.0  # seconds
SOON = datetime.timedelta(days=14)  # files that expire within these are reported


@dataclass(frozen=True)
class Certificates:
    """Where the certificates come from: an authority on the internet, that of the course, or files of the trainer's.

    `acme`: the authority's directory; `short`: its certificates are for an address, which live for a few days only.
    `version`: changes with their files, so that they are read again.
    """

    source: Literal["acme", "internal", "files"]
    acme: str = ""
    email: str = ""
    short: bool = False
    version: str = ""


def choose(settings: GatewaySettings, entrance: Entrance) -> Certificates:
    """By gateway.tls. Raises RequestError if no authority on the internet would sign for that address."""
    if settings.files:
        return Certificates("files")
    is_name = not is_address(entrance.host)
    is_known = is_name or is_public(entrance.host)
    if settings.tls == "acme" and not is_known:
        raise RequestError(
            f"gateway.tls is acme, and {entrance.host} is no address of the internet: nobody signs for it.",
            "Set gateway.domain to a name of yours, or gateway.tls to internal.",
        )
    # the authority comes to port 443 or 80 to see who has the name
    if settings.tls == "acme" or (settings.tls == "auto" and is_known and entrance.port == HTTPS):
        return Certificates("acme", settings.acme, settings.email, short=not is_name)
    return Certificates("internal")


def trusted_roots() -> bytes:
    """Whom this computer trusts: the gateway's image need not have any, and a company's own authority is among them."""
    named = (os.environ.get("REQUESTS_CA_BUNDLE"), os.environ.get("SSL_CERT_FILE"), SYSTEM_ROOTS)
    found = next(
        (Path(path) for path in named if path and Path(path).is_file()), Path(requests.utils.DEFAULT_CA_BUNDLE_PATH)
    )
    try:
        return found.read_bytes()
    except OSError as error:
        raise RequestError(f"{found} can't be read: {error.strerror}.", "It says which authorities to trust.") from None


def browsers_trust(settings: GatewaySettings, entrance: Entrance, folder: Path) -> ssl.SSLContext:
    """Whose certificates count at the gateway: what a student's browser accepts, if only after a warning.

    That is the course's own authority, which signs or stands in; else those on the internet, and the trainer's own
    files. `folder`: the course's. Raises CloudscaleError if the authority can't be read.
    """
    source = choose(settings, entrance).source
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # the trainer's own need not lead to an authority
    try:
        trusted = b"" if source == "internal" else trusted_roots()
        if source == "internal" or (source == "acme" and (folder / ROOT).exists()):
            trusted += b"\n" + (folder / ROOT).read_bytes()
        if settings.files and settings.files[0].is_file():  # it may be on another trainer's computer
            trusted += b"\n" + settings.files[0].read_bytes()
        context.load_verify_locations(cadata=trusted.decode("ascii", errors="ignore"))
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise CloudscaleError(
            f"The authority that signs for the gateway can't be read ({error}).",
            f"It is {ROOT} in the course's folder {folder}, or the certificate that gateway.tls names.",
        ) from None
    return context


def own_stands_in(settings: GatewaySettings, entrance: Entrance, address: str) -> bool:
    """Whether the gateway, at this address, shows a certificate of the course's own authority, and should not."""
    found = shown(address, entrance) if choose(settings, entrance).source == "acme" else None
    return found is not None and is_ours(found)


def shown(address: str, entrance: Entrance) -> x509.Certificate | None:
    """The certificate that browsers get at this address; None if there is none yet."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        with (
            socket.create_connection((address, entrance.port), HANDSHAKE) as plain,
            context.wrap_socket(plain, server_hostname=entrance.host) as connection,
        ):
            return x509.load_der_x509_certificate(connection.getpeercert(binary_form=True) or b"")
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Files:
    """The trainer's certificate and its key (PEM); and what is to be said of them."""

    chain: bytes
    key: bytes
    warning: str


def read_files(certificate: Path, key: Path, names: Iterable[str]) -> Files:
    """The trainer's certificate and key, for these names. Raises RequestError if they are wrong."""
    try:
        chain = certificate.read_bytes()
        private = key.read_bytes()
    except OSError as error:
        raise RequestError(f"gateway.tls: {error.filename} can't be read: {error.strerror}.") from None
    try:
        own = x509.load_pem_x509_certificates(chain)[0]
        loaded = serialization.load_pem_private_key(private, password=None)
    except (ValueError, TypeError) as error:
        raise RequestError(
            f"gateway.tls: {certificate} and {key} are not a certificate and its key: {error}.",
            "Both should be PEM files; the key without a passphrase.",
        ) from None
    if loaded.public_key() != own.public_key():
        raise RequestError(f"gateway.tls: {key} is not the key of {certificate}.")
    if missing := [name for name in names if not _covers(own, name)]:
        raise RequestError(
            f"gateway.tls: {certificate} is not for {', '.join(missing)}.",
            "Browsers would refuse it. Set gateway.domain to a name that it is for.",
        )
    left = own.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    if left <= datetime.timedelta():
        raise RequestError(f"gateway.tls: {certificate} expired on {own.not_valid_after_utc:%Y-%m-%d}.")
    warning = f"{certificate} expires on {own.not_valid_after_utc:%Y-%m-%d}." if left < SOON else ""
    return Files(chain, private, warning)


def _covers(certificate: x509.Certificate, name: str) -> bool:
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    if is_address(name):
        return ipaddress.ip_address(name) in names.get_values_for_type(x509.IPAddress)
    wildcard = f"*.{name.partition('.')[2]}"
    known = {each.lower() for each in names.get_values_for_type(x509.DNSName)}
    return name.lower() in known or wildcard.lower() in known
