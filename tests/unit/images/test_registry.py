from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import requests

from cloudscale.errors import ImageError
from cloudscale.images.registry import LONGEST_TOKEN, check_in_registry
from tests.unit.fakes import http_answer

LAB = "quay.io/jupyter/lab:1"


def answer(status: int, body: bytes = b"", **headers: str) -> requests.Response:
    made = http_answer(body, status)
    made.reason = {404: "Not Found"}.get(status, "")
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


class Registries:
    """What registries answer: `head` for a manifest, the token `t` from where the first answer says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str]] = []
        self.tokens: list[tuple[str, Any]] = []
        self.token = b'{"token": "t"}'
        self.head: Callable[[str], requests.Response] = lambda token: answer(200)
        monkeypatch.setattr(requests, "head", self._head)
        monkeypatch.setattr(requests, "get", self._get)

    def _head(self, url: str, headers: dict[str, str], timeout: float, allow_redirects: bool) -> requests.Response:
        assert 0 < timeout <= 5 and allow_redirects and "index.v1+json" in headers["Accept"]
        token = headers.get("Authorization", "")
        self.asked.append((url, token))
        return self.head(token)

    def _get(
        self, url: str, params: dict[str, str], timeout: float, stream: bool, allow_redirects: bool
    ) -> requests.Response:
        assert 0 < timeout <= 5 and stream and not allow_redirects
        self.tokens.append((url, params))
        return answer(200, self.token)

    def want_a_token(self, then: int) -> None:
        bearer = 'Bearer realm="https://auth.example.org/token",service="quay.io",scope="repository:jupyter/lab:pull"'
        self.head = lambda token: answer(then) if token else answer(401, WWW_Authenticate=bearer)


@pytest.fixture
def registries(monkeypatch: pytest.MonkeyPatch) -> Registries:
    return Registries(monkeypatch)


@pytest.mark.parametrize(
    ("reference", "url"),
    [
        (LAB, "https://quay.io/v2/jupyter/lab/manifests/1"),
        ("python", "https://registry-1.docker.io/v2/library/python/manifests/latest"),
        ("jupyter/lab:2", "https://registry-1.docker.io/v2/jupyter/lab/manifests/2"),
        ("docker.io/jupyter/lab", "https://registry-1.docker.io/v2/jupyter/lab/manifests/latest"),
        ("example.org:5000/lab@sha256:" + "a" * 64, f"https://example.org:5000/v2/lab/manifests/sha256:{'a' * 64}"),
    ],
)
def test_the_manifest_of_an_image_is_asked_for(registries: Registries, reference: str, url: str) -> None:
    assert check_in_registry(reference) == ""
    assert registries.asked == [(url, "")]


def test_a_registry_that_wants_a_token_gets_one_for_anybody(registries: Registries) -> None:
    registries.want_a_token(then=200)
    assert check_in_registry(LAB) == ""
    assert [token for _, token in registries.asked] == ["", "Bearer t"]
    scope = {"service": "quay.io", "scope": "repository:jupyter/lab:pull"}
    assert registries.tokens == [("https://auth.example.org/token", scope)]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_an_image_that_not_everybody_gets_is_refused(registries: Registries, status: int) -> None:
    registries.want_a_token(then=status)
    with pytest.raises(ImageError, match=f"quay.io/jupyter/lab:1 .* quay.io says {status}"):
        check_in_registry(LAB)


def test_a_token_is_fetched_over_https_alone(registries: Registries) -> None:
    registries.head = lambda token: answer(401, WWW_Authenticate='Bearer realm="http://auth.example.org/token"')
    with pytest.raises(ImageError):
        check_in_registry(LAB)
    assert registries.tokens == []


@pytest.mark.parametrize(
    "token", [b'["t"]', b"[" * 20_000, b"x", b'{"token": "' + b"t" * LONGEST_TOKEN + b'"}', b'{"token": "a\\nb"}']
)
def test_a_token_that_is_none_leaves_it_open(
    registries: Registries, monkeypatch: pytest.MonkeyPatch, token: bytes
) -> None:
    registries.want_a_token(200)
    registries.token = token
    head = registries._head

    def checked(url: str, headers: dict[str, str], **settings: Any) -> requests.Response:
        requests.Request("HEAD", url, headers).prepare()
        return head(url, headers, **settings)

    monkeypatch.setattr(requests, "head", checked)
    assert check_in_registry(LAB).startswith("quay.io gives no answer")


def test_a_registry_that_is_busy_leaves_it_open(registries: Registries) -> None:
    registries.head = lambda token: answer(429)
    assert check_in_registry(LAB).startswith("quay.io says 429")


def test_a_registry_that_is_not_reached_leaves_it_open(registries: Registries, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(url: str, **more: object) -> requests.Response:
        raise requests.ConnectionError("no route to host")

    monkeypatch.setattr(requests, "head", unreachable)
    assert check_in_registry(LAB) == "quay.io gives no answer (ConnectionError)"
