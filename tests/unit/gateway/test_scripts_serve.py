"""The process of the gateway, with another program in the place of Caddy."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.gateway.login_service import SCRIPTS

LIMIT = 60  # seconds
RUN = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import serve
folder = Path(sys.argv[2])
serve.CADDY, serve.STATE = folder / "caddy", folder / "state"
serve.CONFIG, serve.TABLE = folder / "caddy.json", folder / "login.json"
serve.LOGIN_SOCKET, serve.ADMIN_SOCKET = str(folder / "login.sock"), str(folder / "caddy.sock")
sys.exit(asyncio.run(serve.main()))
"""
TABLE = {"title": "Bio", "mode": "path", "address": "192.0.2.7", "salt": "00", "seats": []}


@pytest.mark.usefixtures("processes")
@pytest.mark.parametrize(
    ("said", "error"),
    [
        ('"x" * 3_000_000 + "\\n" + "y\\n" * 500_000 + "no port\\n"', "no port"),
        ('"x" * 3_000_000', "x" * 500),
        ('\'{"level":"error","msg":"no certificate"}\\n{"level":"warn","msg":"y"}\'', "no certificate"),
        ('"[" * 60_000', "[" * 500),
        ('""', "Caddy ended"),
    ],
    ids=["lines", "no end", "JSON", "deep", "nothing"],
)
def test_whatever_the_proxy_says_is_taken_from_it_and_its_last_error_is_kept(
    tmp_path: Path, said: str, error: str
) -> None:
    (tmp_path / "caddy.json").write_text("{}")
    (tmp_path / "login.json").write_text(json.dumps(TABLE))
    caddy = tmp_path / "caddy"
    caddy.write_text(f"#!{sys.executable}\nimport sys\nsys.stderr.write({said})\nsys.exit(3)\n")
    caddy.chmod(0o755)
    command = [sys.executable, "-c", RUN, str(SCRIPTS), str(tmp_path)]
    ended = subprocess.run(command, capture_output=True, timeout=LIMIT, check=False)
    assert ended.returncode == 3
    assert json.loads((tmp_path / "state").read_text())["error"] == error
    assert len(ended.stderr) >= len(eval(said))
