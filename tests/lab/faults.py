"""What goes wrong between a client and a cloud: a proxy before the real services, which fails when a test says so."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

from openstack.config import OpenStackConfig

from tests.lab.cloud_config import PORTS
from tests.lab.namespace import Namespace

SERVICES = ("identity", "compute", "network", "image")
VERSIONS = {"identity": "/v3", "compute": "/v2.1"}  # these two have it in the catalogue, too
FORWARDING = 300  # seconds for the real answer
OF_ONE_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "host"}


@dataclass(frozen=True)
class Fault:
    """A rule for requests whose path (without the query) has what is looked for.

    `what`: a status such as "503", which is answered in place of the service; "drop_before" and "drop_after" close the
    connection without an answer, before or after the service has done what was asked; "timeout" does so after `seconds`
    in which nothing happens. The first `after` such requests pass; then it happens `times` times (None: each time).
    """

    method: str
    path: str
    what: str
    times: int | None = 1
    after: int = 0
    retry_after: int | None = None
    seconds: float = 600


class Request(NamedTuple):
    """What came by. `answer`: the service's status, or what has been done to it in its place."""

    method: str
    path: str
    answer: str
    query: str = ""


class FaultyCloud:
    """Listens in the namespace for each service, as long as it is open. `clouds_yaml` names it to clients."""

    def __init__(self, clouds_yaml: Path, namespace: Namespace) -> None:
        self.requests: list[Request] = []
        self.faults: dict[Fault, int] = {}
        self.ended = threading.Event()
        self._passed: dict[Fault, int] = {}
        self._lock = threading.Lock()
        self._servers: dict[str, ThreadingHTTPServer] = {}
        with namespace.entered():  # so are the threads that are started here
            for service in SERVICES:
                server = _Server(self, PORTS[service])
                self._servers[service] = server
                threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        self._bases = {service: f"http://127.0.0.1:{server.server_port}" for service, server in self._servers.items()}
        self.urls = {service: base + VERSIONS.get(service, "") for service, base in self._bases.items()}
        self.clouds_yaml = clouds_yaml.with_name(f"faulty-{self._servers['identity'].server_port}.yaml")
        self.clouds_yaml.write_text(self._clouds(clouds_yaml))

    def add(self, *faults: Fault) -> None:
        """They happen from now on; of several that fit, the first."""
        with self._lock:
            for fault in faults:
                self.faults[fault] = self._passed[fault] = 0

    def clear(self) -> None:
        """No more faults, and no memory of requests."""
        with self._lock:
            for memory in (self.faults, self._passed, self.requests):
                memory.clear()

    def close(self) -> None:
        self.ended.set()
        for server in self._servers.values():
            server.shutdown()
            server.server_close()
        self.clouds_yaml.unlink()

    def asked(self, method: str, path: str) -> list[Request]:
        """The requests so far with this method, and with what is looked for in the path."""
        with self._lock:
            return [request for request in self.requests if request.method == method and re.search(path, request.path)]

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self._lock:
            for fault, fired in self.faults.items():
                if fault.method != method or not re.search(fault.path, path) or fired == fault.times:
                    continue
                if self._passed[fault] < fault.after:
                    self._passed[fault] += 1
                    continue
                self.faults[fault] += 1
                return fault
        return None

    def record(self, request: Request) -> None:
        with self._lock:
            self.requests.append(request)

    def redirected(self, text: str) -> str:
        """The services' answers name each other, and themselves: with that clients would get past this."""
        for service, base in self._bases.items():
            text = re.sub(rf"http://(127\.0\.0\.1|localhost):{PORTS[service]}\b", base, text)
        return text

    def _clouds(self, clouds_yaml: Path) -> str:
        clouds = OpenStackConfig(config_files=[str(clouds_yaml)], load_envvars=False).cloud_config["clouds"]
        for cloud in clouds.values():
            cloud["auth"]["auth_url"] = self.urls["identity"]
            for service, url in self.urls.items():
                cloud[f"{service}_endpoint_override"] = url
        return json.dumps({"clouds": clouds}, indent=1)  # which is YAML, too


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, cloud: FaultyCloud, real_port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.cloud = cloud
        self.real_port = real_port


class _Handler(BaseHTTPRequestHandler):
    """One connection, with one request."""

    server: _Server
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        self.raw_requestline = self.rfile.readline()
        asked = self.raw_requestline and self.parse_request()
        self.close_connection = True
        if asked:
            with contextlib.suppress(OSError):  # the client has gone
                self._handle()

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        cloud = self.server.cloud
        target = urlsplit(self.path)
        body = self._body()
        fault = cloud.fault_for(self.command, target.path)
        if fault and fault.what != "drop_after":
            cloud.record(Request(self.command, target.path, fault.what, target.query))
            if fault.what == "timeout":
                cloud.ended.wait(fault.seconds)
            elif fault.what != "drop_before":
                self._fail(int(fault.what), fault.retry_after)
            return
        try:
            status, headers, answer = self._forward(body)
        except (OSError, http.client.HTTPException):  # the service is down, which is a connection that breaks
            return cloud.record(Request(self.command, target.path, "down", target.query))
        cloud.record(Request(self.command, target.path, fault.what if fault else str(status), target.query))
        if not fault:
            self._answer(status, headers, answer)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.real_port, timeout=FORWARDING)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() not in OF_ONE_HOP}
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            return response.status, response.getheaders(), response.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: Iterable[tuple[str, str]], body: bytes) -> None:
        cloud = self.server.cloud
        self.send_response_only(status)
        kind = ""
        for name, value in headers:
            if name.lower() not in OF_ONE_HOP:
                self.send_header(name, cloud.redirected(value))
            if name.lower() == "content-type":
                kind = value
        if "json" in kind:
            body = cloud.redirected(body.decode()).encode()
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def _fail(self, status: int, retry_after: int | None) -> None:
        answer = {"error": {"code": status, "title": http.client.responses.get(status, ""), "message": "a fault"}}
        headers = [("Content-Type", "application/json")]
        if retry_after is not None:
            headers.append(("Retry-After", str(retry_after)))
        self._answer(status, headers, json.dumps(answer).encode())
