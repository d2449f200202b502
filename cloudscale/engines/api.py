"""docker-py's client, for engines that may say anything: no answer is without an end, in its size or in time."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import docker
import requests

from cloudscale.outside import PIECE, OtherForm, parse_json, pieces, read_body
from cloudscale.units import MIB

IMAGE_TIMEOUT = 1800  # seconds for one answer of an engine that saves, loads, pulls or builds an image
# an engine writes a whole image to its disk, or unpacks it, without a word
SLOW = re.compile(r"/images/(load|[^?]*/get)(\?|$)")
LONGEST_ANSWER = 64 * MIB  # bytes; the lists of a course with a thousand seats are a few
LONGEST_REPORT = 256 * MIB  # bytes that an engine says of a pull, a load or a build
LONGEST_LINE = MIB  # bytes of it
REPORTING = 6 * 3600.0  # seconds


class Api(docker.APIClient):
    """docker-py's low-level client, with more patience where an engine needs it, and limits where it has none."""

    def send(self, request: requests.PreparedRequest, **settings: Any) -> requests.Response:
        timeout = settings.get("timeout") or IMAGE_TIMEOUT  # docker-py waits for a pull and a build without limit
        if SLOW.search(request.path_url):
            timeout = max(timeout, IMAGE_TIMEOUT)
        asked = {**settings, "timeout": timeout, "stream": True, "allow_redirects": False}
        answer = super().send(request, **asked)
        if not settings.get("stream") or answer.status_code >= 400:
            answer._content = read_body(answer, LONGEST_ANSWER, timeout)
            answer._content_consumed = True  # type: ignore[attr-defined]
        return answer

    def _stream_helper(self, response: requests.Response, decode: bool = False) -> Iterator[Any]:
        """What the engine reports of its work: lines, each of which is a value of JSON."""
        self._raise_for_status(response)  # type: ignore[attr-defined]
        rest = b""
        for piece in pieces(response, LONGEST_REPORT, REPORTING):
            *lines, rest = (rest + piece).split(b"\n")
            if max(map(len, (rest, *lines))) > LONGEST_LINE:
                raise OtherForm(f"it has a line of more than {LONGEST_LINE // MIB} MiB")
            yield from (_value(line) if decode else line for line in lines if line.strip())
        if rest.strip():
            yield _value(rest) if decode else rest

    def _multiplexed_response_stream_helper(self, response: requests.Response) -> Iterator[bytes]:
        """The output of a container that runs, at its end."""
        response._content = read_body(response, LONGEST_ANSWER, IMAGE_TIMEOUT)
        yield from self._multiplexed_buffer_helper(response)  # type: ignore[attr-defined]

    def _stream_raw_result(
        self, response: requests.Response, chunk_size: int = PIECE, decode: bool = True
    ) -> Iterator[bytes]:
        """An archive, or an image: of any size, but docker-py would wait for the next piece without limit."""
        self._raise_for_status(response)  # type: ignore[attr-defined]
        yield from pieces(response)


def _value(line: bytes) -> Any:
    try:
        return parse_json(line)
    except ValueError as error:
        raise OtherForm(f"it has a line that is no JSON: {error}") from None


class Client(docker.DockerClient):
    def __init__(self, *where: Any, **settings: Any) -> None:
        self.api = Api(*where, **settings)
