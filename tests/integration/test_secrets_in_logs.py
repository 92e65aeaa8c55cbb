"""What the programs say when their addresses are wrong, and to whom they speak over TLS."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import redis

from jobs import connect
from jobs.settings import ServiceSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.tls import tls_listener

pytestmark = pytest.mark.integration

PROGRAMS = [
    "api",
    "worker",
    "worker.maintenance",
    "worker.deliveries",
    "worker.flower",
    "api.batch_process",
    "jobs.schema",
]
NOBODY = "127.0.0.1:1"
WRONG = {
    "nobody listens": {"DATABASE": f"postgresql://u:SEC-RET@{NOBODY}/d", "REDIS": f"redis://:SEC-RET@{NOBODY}/0"},
    "not encoded": {"DATABASE": f"postgresql://u:SEC/RET@{NOBODY}/d", "REDIS": f"redis://:SEC/RET@{NOBODY}/0"},
    "misspelt": {"DATABASES": f"postgresql://u:SEC-RET@{NOBODY}/d", "REDIS": f"redis://:SEC-RET@{NOBODY}/0"},
}


def told_of(running: subprocess.Popen[bytes], log: Path) -> bool:
    return running.poll() is not None or bool(re.search(b"rror|refused", log.read_bytes()))


@pytest.mark.parametrize("addresses", WRONG.values(), ids=WRONG.keys())
def test_no_program_shows_a_password_of_a_wrong_address(
    addresses: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    told = {f"VLMQ_{name}_URL": url for name, url in addresses.items()}
    told |= {"VLMQ_WORKER_MODEL": "vlmq-tiny", "VLMQ_WORKER_PATH": str(tiny_model), "VLMQ_API_PORT": "0"}
    told |= {"FLOWER_PORT": "0", "FLOWER_ADDRESS": "127.0.0.1", "FLOWER_BASIC_AUTH": "u:SEC-RET"}
    for program in PROGRAMS:
        log = tmp_path / program
        with log.open("wb") as out:
            running = subprocess.Popen(
                [sys.executable, "-m", program], env=os.environ | told, stdout=out, stderr=subprocess.STDOUT
            )
        try:
            eventually(f"{program} says what is wrong", partial(told_of, running, log), 60)
        finally:
            running.kill()
            running.wait()
        said = log.read_text(errors="replace")
        assert "SEC" not in said and "RET" not in said, f"{program}:\n{said}"
        assert said, program


def url(port: int, query: str) -> ServiceSettings:
    return ServiceSettings(redis_url=f"rediss://:secret@127.0.0.1:{port}/0{query}")


@pytest.mark.parametrize("query", ["", "?ssl_cert_reqs=required", "?ssl_check_hostname=false"])
def test_neither_client_of_redis_speaks_to_a_server_with_a_foreign_certificate(query: str) -> None:
    with tls_listener() as (port, heard):
        queue = connect.queue(url(port, query))
        assert queue.ring("tiny", "job_1") is False
        assert queue.waiting("tiny") is None
        queue.close()
        client = connect.redis_client(url(port, query))
        with pytest.raises(redis.ConnectionError, match="certificate verify failed"):
            client.ping()
        client.close()
        assert heard == []


def test_both_clients_speak_to_any_server_when_the_url_says_so() -> None:
    with tls_listener() as (port, heard):
        queue = connect.queue(url(port, "?ssl_cert_reqs=none"))
        assert queue.ring("tiny", "job_1") is False
        eventually("Celery has spoken", lambda: heard)
        said = len(heard)
        assert queue.waiting("tiny") is None
        eventually("redis-py has spoken", lambda: len(heard) > said)
        queue.close()
