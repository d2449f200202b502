"""Asks a registry whether it has an image, where no engine can be asked yet (OCI Distribution Specification 1.1)."""

from __future__ import annotations

import re

import requests
from docker.auth import INDEX_NAME, resolve_repository_name
from docker.utils import parse_repository_tag
from urllib3.exceptions import HTTPError

from cloudscale.images.on_engine import not_pulled
from cloudscale.outside import LONGEST_CAUSE, OtherForm, parse_object, read_body

HUB = "registry-1.docker.io"  # the host of docker.io's API
OFFICIAL = "library/"  # where it has images whose name has one part
ANSWERING = 2.0  # seconds
LONGEST_TOKEN = 64 * 1024  # bytes
KINDS = (  # of manifests, for one or for several architectures
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
REFUSALS = (401, 403, 404)  # an image that does not exist may be one that only some may pull
PARAMETER = re.compile(r'(\w+)="([^"]*)"')  # of a WWW-Authenticate header (RFC 9110, 11.6.1)


def check_in_registry(reference: str) -> str:
    """Raises ImageError where the registry does not give the image to everybody: nobody's account is used.

    Returns why that is not known; "" if it is, and all is well.
    """
    repository, tag = parse_repository_tag(reference)
    host, name = resolve_repository_name(repository)
    if host == INDEX_NAME:
        host, name = HUB, name if "/" in name else OFFICIAL + name
    url = f"https://{host}/v2/{name}/manifests/{tag or 'latest'}"
    try:
        answer = _head(url)
        if answer.status_code == 401 and (token := _token(answer)):
            answer = _head(url, token)
    except (requests.RequestException, HTTPError, OSError, OtherForm, ValueError) as error:
        return f"{host} gives no answer ({type(error).__name__})"
    said = f"{host} says {answer.status_code} {str(answer.reason)[:LONGEST_CAUSE]}"
    if answer.status_code in REFUSALS:
        raise not_pulled(reference, said, "this computer")
    return "" if answer.ok else said


def _head(url: str, token: str = "") -> requests.Response:
    headers = {"Accept": ", ".join(KINDS)} | ({"Authorization": f"Bearer {token}"} if token else {})
    return requests.head(url, headers=headers, timeout=ANSWERING, allow_redirects=True)


def _token(refusal: requests.Response) -> str:
    """The token for anybody, from where the registry says (Token Authentication Specification)."""
    given = dict(PARAMETER.findall(refusal.headers.get("WWW-Authenticate", "")))
    if not given.get("realm", "").startswith("https://"):
        return ""
    wanted = {name: value for name, value in given.items() if name in ("service", "scope")}
    # what leads elsewhere would be read without limit
    answer = requests.get(given["realm"], params=wanted, timeout=ANSWERING, stream=True, allow_redirects=False)
    answer.raise_for_status()
    token = parse_object(read_body(answer, LONGEST_TOKEN, ANSWERING))
    return str(token.get("token") or token.get("access_token") or "")
