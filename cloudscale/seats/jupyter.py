"""What is specific to Jupyter: the server's configuration, the hash of its password, and how to see that it runs."""

from __future__ import annotations

import http.client
import json

CONFIG_PATH = "/etc/jupyter/jupyter_server_config.json"
PROBE_TIMEOUT = 5  # seconds


def server_config(*, port: int, work: str, hashed_password: str, as_root: bool = False) -> bytes:
    """The server's configuration file: it listens on all addresses and asks for the password."""
    return json.dumps(
        {
            # the root folder is the work folder, so that what the browser saves is on the volume
            "ServerApp": {
                "ip": "0.0.0.0",
                "port": port,
                "port_retries": 0,
                "open_browser": False,
                "root_dir": work,
                "allow_root": as_root,
            },
            # a password hash turns the token off, except when JUPYTER_TOKEN is in the environment
            "IdentityProvider": {"token": ""},
            "PasswordIdentityProvider": {
                "hashed_password": hashed_password,
                "password_required": True,
                "allow_password_change": False,
            },
        },
        indent=1,
    ).encode()


def hash_password(password: str, salt: bytes) -> str:
    """An argon2id hash in the format that jupyter_server checks, with the least cost that OWASP recommends.

    (OWASP's Password Storage Cheat Sheet.) That is enough: the passwords are random, with 50 bits, and a whole class
    logs in at the same time.
    """
    from argon2.low_level import Type, hash_secret

    return "argon2:" + hash_secret(
        password.encode(), salt, time_cost=2, memory_cost=19456, parallelism=1, hash_len=16, type=Type.ID
    ).decode("ascii")


def answers(host: str, port: int, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether a Jupyter server answers at the address: `/api` shows its version without a login."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/api")
        response = connection.getresponse()
        if response.status != 200:
            return False
        answer = json.loads(response.read(65536))
        return isinstance(answer, dict) and "version" in answer
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return False  # a student's own program may answer anything instead
    finally:
        connection.close()


def healthcheck(port: int) -> dict[str, object]:
    """A check that takes 20 ms of a core once a minute, and waits ten minutes for a server that starts slowly.

    The check of the docker-stacks images (every 3 s, two Python processes, at most 1 s) kills slow starters.
    Python is the only program that every image has. Times are in nanoseconds.
    """
    second = 10**9
    probe = (
        f"import socket,sys;s=socket.create_connection(('127.0.0.1',{port}),20);"
        "s.sendall(b'GET /api HTTP/1.0\\r\\n\\r\\n');sys.exit(b' 200 ' not in s.recv(64))"
    )
    return {
        "Test": ["CMD", "python3", "-IS", "-c", probe],
        "Interval": 60 * second,
        "Timeout": 30 * second,
        "Retries": 5,
        "StartPeriod": 600 * second,
    }
