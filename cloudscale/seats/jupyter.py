"""What is Jupyter's own: the server's configuration, the form of its password, how it says that it is there."""

from __future__ import annotations

import http.client
import json

CONFIG_PATH = "/etc/jupyter/jupyter_server_config.json"
PROBE_TIMEOUT = 5  # seconds


def server_config(*, port: int, work: str, hashed_password: str, as_root: bool = False) -> bytes:
    """The server's configuration file: it listens, and lets in whoever knows the password."""
    return json.dumps(
        {
            # what the browser saves lies on the volume: the root folder is the work folder
            "ServerApp": {
                "ip": "0.0.0.0",
                "port": port,
                "port_retries": 0,
                "open_browser": False,
                "root_dir": work,
                "allow_root": as_root,
            },
            # the token is off when there is a hash, but not when JUPYTER_TOKEN is in the environment
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
    """argon2id, in the form that jupyter_server checks, at the least cost that OWASP's cheat sheet on password
    storage advises: ours are random, of 50 bits, and a class logs in all at once."""
    from argon2.low_level import Type, hash_secret

    return "argon2:" + hash_secret(
        password.encode(), salt, time_cost=2, memory_cost=19456, parallelism=1, hash_len=16, type=Type.ID
    ).decode("ascii")


def answers(host: str, port: int, timeout: float = PROBE_TIMEOUT) -> bool:
    """Whether a Jupyter server answers at the address: `/api` tells its version, to anybody."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/api")
        response = connection.getresponse()
        if response.status != 200:
            return False
        told = json.loads(response.read(65536))
        return isinstance(told, dict) and "version" in told
    except (OSError, http.client.HTTPException, ValueError, RecursionError):
        return False  # whatever a student's own program answers in its place
    finally:
        connection.close()


def healthcheck(port: int) -> dict[str, object]:
    """A check that costs 20 ms of a core twice a minute, and has no patience to lose while a server starts.

    The images' own (docker-stacks: every 3 s, two Python processes, 1 s of time) kills slow starters.
    Python is the one program that is sure to be there. Times are nanoseconds.
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
