from __future__ import annotations

import shlex
import sys

import pytest

from cloudscale.errors import ConnectionFailed, LoginRefused
from cloudscale.hosts.proxy import ProxyCommand

pytestmark = pytest.mark.usefixtures("processes")


def test_input_and_output_of_the_command_are_the_connection() -> None:
    with ProxyCommand("host", "cat") as proxy:
        proxy.socket.sendall(b"SSH-")
        assert proxy.socket.recv(10) == b"SSH-"
    assert proxy._process.returncode is not None


def test_a_command_that_does_not_end_is_ended() -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(60)"
    )
    proxy = ProxyCommand("host", shlex.join([sys.executable, "-c", stubborn]))
    with proxy, proxy.socket.makefile("rb") as output:
        assert output.readline() == b"1\n"
    assert proxy._process.returncode == -9


def test_a_command_that_ended_is_the_cause_and_its_last_words_are_shown() -> None:
    with (
        pytest.raises(ConnectionFailed, match=r"host: the ProxyCommand .* ended \(no such gate\)") as raised,
        ProxyCommand("host", "sh -c 'echo no such gate >&2; exit 3'"),
    ):
        raise ConnectionFailed("host: EOFError.")
    assert "sh -c" in raised.value.remedy
    with pytest.raises(ConnectionFailed, match="exit code 3"), ProxyCommand("host", "sh -c 'exit 3'"):
        raise ConnectionFailed("host: EOFError.")


def test_a_refused_login_stays_one() -> None:
    with pytest.raises(LoginRefused), ProxyCommand("host", "true"):
        raise LoginRefused("host: the login was refused.")
