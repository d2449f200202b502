"""What is specific to Jupyter: the server's configuration, the hash of its password, and what it says of itself."""

from __future__ import annotations

import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

from cloudscale.scripts import script
from cloudscale.units import MIB

CONFIG_PATH = "/etc/jupyter/jupyter_server_config.json"
CODE_PATH = "/etc/jupyter/jupyter_config.py"  # Jupyter runs it before it reads the other file
COOKIE_SECRET = "/tmp/cloudscale-cookie-secret"
PROBE_TIMEOUT = 5.0  # seconds for the whole answer
LONGEST_ANSWER = 65536  # bytes
LARGEST_BODY = 256 * MIB  # bytes of one request; JupyterLab uploads larger files in parts
PASS_HEADER = "X-Cloudscale-Seat"  # in which the gateway shows that it has checked the password
PROBE_HEADER = "X-Cloudscale-Probe"  # in which the tool shows the gateway that it is the tool
STATUS_HEADER = "X-Cloudscale-Status"  # in which the tool shows a server that it may know when it was last used
MOST_KERNELS = 9999  # that are believed; each is a process
CLOCKS_DIFFER = timedelta(minutes=5)  # by which a machine's clock may be ahead of this computer's
COOKIE_DAYS = 1.0  # a login counts for a day at most


def server_config(
    *, port: int, path: str, work: str, hashed_password: str, gateway_pass: str, as_root: bool = False
) -> bytes:
    """The server's configuration file: it listens on all addresses, under `path` alone, and asks for the password.

    Whoever shows `gateway_pass` is not asked: the gateway did so.
    """
    return json.dumps(
        {
            # the root folder is the work folder, so that what the browser saves is on the volume
            "ServerApp": {
                "ip": "0.0.0.0",
                "port": port,
                "port_retries": 0,
                "base_url": path,
                "max_body_size": LARGEST_BODY,
                "max_buffer_size": LARGEST_BODY,
                "open_browser": False,
                "root_dir": work,
                "allow_root": as_root,
                "trust_xheaders": True,  # of the gateway: https, and the address of who asks
                # Not on the volume: logins end when the seat restarts, so that none outlives its password.
                "cookie_secret_file": COOKIE_SECRET,
            },
            # a password hash turns the token off, except when JUPYTER_TOKEN is in the environment
            "IdentityProvider": {
                "token": "",
                # without a date of expiry the browser forgets the cookie when it is closed
                "cookie_options": {"expires_days": None, "samesite": "Lax"},
                "get_secure_cookie_kwargs": {"max_age_days": COOKIE_DAYS},
            },
            "PasswordIdentityProvider": {
                "hashed_password": hashed_password,
                "password_required": True,
                "allow_password_change": False,
            },
            "SeatIdentityProvider": {"gateway_pass": gateway_pass},  # of scripts/jupyter_config.py
        },
        indent=1,
    ).encode()


def server_code() -> bytes:
    """What each server runs before it starts: see scripts/jupyter_config.py. It holds no secret."""
    return script("seats", "jupyter_config.py").encode()


def hash_password(password: str, salt: bytes) -> str:
    """An argon2id hash in the format that jupyter_server checks, with the least cost that OWASP recommends.

    (OWASP's Password Storage Cheat Sheet.) That is enough: the passwords are random, with 50 bits, and a whole class
    logs in at the same time.
    """
    from argon2.low_level import Type, hash_secret

    return "argon2:" + hash_secret(
        password.encode(), salt, time_cost=2, memory_cost=19456, parallelism=1, hash_len=16, type=Type.ID
    ).decode("ascii")


def answers(url: str, timeout: float = PROBE_TIMEOUT, *, at: str = "", probe: str = "") -> bool:
    """Whether a Jupyter server answers at the address: `api` below it shows its version without a login.

    An empty address has none. Behind a gateway, `at` is the host to connect to, since that of the address
    may not lead there yet, and `probe` what the gateway knows the tool by.
    """
    return "version" in _object(url, "/api", timeout, at, {PROBE_HEADER: probe})


@dataclass(frozen=True)
class Activity:
    """How a server is used: its kernels, and when it last was (UTC). None: it does not say so, or what can't be."""

    kernels: int | None = None
    last: datetime | None = None


def activity(url: str, timeout: float = PROBE_TIMEOUT, *, at: str = "", probe: str = "", status: str = "") -> Activity:
    """What a server says of its use, which this question does not count as. `status`: what it knows the tool by.

    The rest as for `answers`. A server that does not answer, or started before it knew this question, says nothing.
    """
    answer = _object(url, "/api/status", timeout, at, {PROBE_HEADER: probe, STATUS_HEADER: status})
    kernels = answer.get("kernels")
    is_count = type(kernels) is int and 0 <= kernels <= MOST_KERNELS
    return Activity(kernels if is_count else None, _past(answer.get("last_activity")))


def _past(text: object) -> datetime | None:
    """A date that a server sent, if it is one that can be."""
    try:
        date = datetime.fromisoformat(str(text)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    now = datetime.now(UTC)
    return min(date, now) if date.year >= 2000 and date <= now + CLOCKS_DIFFER else None


def _object(url: str, path: str, timeout: float, at: str, headers: Mapping[str, str]) -> Mapping[str, Any]:
    """The JSON object that a server answers with; an empty one if it does not.

    A student's own program may answer anything instead, as slowly as it likes: after `timeout` seconds in all, or
    LONGEST_ANSWER bytes, what came counts.
    """
    if not url:  # else the name of no host would mean this computer
        return {}
    try:
        head, _, body = _get(url + path, timeout, at, headers).partition(b"\r\n\r\n")
        protocol, status = head.split(maxsplit=2)[:2]
        answer = json.loads(body)
    except (OSError, ValueError, RecursionError):
        return {}
    is_answer = protocol.startswith(b"HTTP/") and status == b"200" and isinstance(answer, dict)
    return answer if is_answer else {}


def _get(url: str, timeout: float, at: str, headers: Mapping[str, str]) -> bytes:
    address = urlsplit(url)
    port = address.port or (443 if address.scheme == "https" else 80)
    deadline = time.monotonic() + timeout
    answer = b""
    with socket.create_connection((at or address.hostname or "", port), timeout) as plain:
        connection = _encrypted(plain, address.hostname or "") if address.scheme == "https" else plain
        shown = "".join(f"{name}: {value}\r\n" for name, value in headers.items() if value)
        connection.sendall(f"GET {address.path} HTTP/1.0\r\nHost: {address.netloc}\r\n{shown}\r\n".encode())
        while len(answer) < LONGEST_ANSWER and (left := deadline - time.monotonic()) > 0:
            connection.settimeout(left)
            if not (part := connection.recv(LONGEST_ANSWER)):
                break
            answer += part
    return answer


def _encrypted(connection: socket.socket, host: str) -> socket.socket:
    """Whoever it is that answers: whether browsers trust it is another question, and no secret of a seat is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context.wrap_socket(connection, server_hostname=host)


def healthcheck(port: int) -> dict[str, object]:
    """A check that takes 20 ms of a core once a minute, and waits ten minutes for a server that starts slowly.

    The check of the docker-stacks images (every 3 s, two Python processes, at most 1 s) kills slow starters.
    Python is the only program that every image has. Times are in nanoseconds.
    """
    second = 10**9
    probe = (
        f"import socket,sys;s=socket.create_connection(('127.0.0.1',{port}),20);"
        # its path is nobody else's business, so any answer will do
        "s.sendall(b'GET / HTTP/1.0\\r\\n\\r\\n');sys.exit(not s.recv(64).startswith(b'HTTP/'))"
    )
    return {
        "Test": ["CMD", "python3", "-IS", "-c", probe],
        "Interval": 60 * second,
        "Timeout": 30 * second,
        "Retries": 5,
        "StartPeriod": 600 * second,
    }
