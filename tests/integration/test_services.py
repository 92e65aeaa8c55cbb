"""The embedded servers: in one folder, for one owner, whatever became of the last one."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis

from cli.services import Services, ServicesError
from tests.fixtures.services import open_folder

pytestmark = pytest.mark.integration

OWNER = """
import sys, time
from cli.services import Services
services = Services(sys.argv[1], durable=False)
services.start()
print(services.postgres.process.pid, services.valkey.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """One data folder for the tests of this file: making a new database takes the most time."""
    with open_folder() as path:
        yield path


def remember(services: Services, value: int) -> None:
    with psycopg.connect(services.database_url) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS seen (value int)")
        connection.execute("INSERT INTO seen VALUES (%s)", (value,))
    with redis.Redis.from_url(services.redis_url) as client:
        client.set("seen", value)


def recall(services: Services) -> tuple[set[int], bytes | None]:
    with psycopg.connect(services.database_url) as connection:
        values = {value for (value,) in connection.execute("SELECT value FROM seen")}
    with redis.Redis.from_url(services.redis_url) as client:
        found = client.get("seen")
    assert found is None or isinstance(found, bytes)
    return values, found


def test_data_outlives_a_stop_and_no_server_does(folder: Path) -> None:
    with Services(folder, durable=False) as services:
        remember(services, 1)
        pids = [services.postgres.process.pid, services.valkey.process.pid]
        assert services.dead() == []
    assert not any(psutil.pid_exists(pid) for pid in pids)
    with Services(folder, durable=False) as services:
        assert recall(services) == ({1}, b"1")


def test_a_second_owner_of_the_folder_is_refused_and_the_first_undisturbed(folder: Path) -> None:
    with Services(folder, durable=False) as services:
        remember(services, 2)
        with pytest.raises(ServicesError, match=f"{folder} are run by process {os.getpid()} already"):
            Services(folder).start()
        assert services.dead() == []
        assert recall(services)[1] == b"2"


def test_a_folder_whose_owner_was_killed_is_taken_over(folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER, str(folder)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    left = [int(pid) for pid in owner.stdout.readline().split()]
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    assert all(psutil.pid_exists(pid) for pid in left)
    with Services(folder, durable=False) as services:
        assert not any(psutil.pid_exists(pid) for pid in left)
        remember(services, 3)


def test_pid_files_that_name_a_foreign_process_harm_nobody(folder: Path) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    for pid_file in (folder / "postgres/data/postmaster.pid", folder / "valkey/valkey.pid"):
        pid_file.write_text(f"{bystander.pid}\n")
    with Services(folder, durable=False) as services:
        assert services.dead() == []
    assert bystander.poll() is None
    bystander.kill()
    bystander.wait()


def test_servers_listen_on_private_sockets_only(folder: Path) -> None:
    with Services(folder, durable=False) as services:
        for server in (services.postgres, services.valkey):
            process = psutil.Process(server.process.pid)
            assert process.net_connections("inet") == []
            assert stat.S_IMODE(server.sockets.stat().st_mode) == 0o700


def test_a_killed_valkey_is_named_dead_and_starts_again_with_or_without_its_data(folder: Path) -> None:
    with Services(folder, durable=False) as services:
        remember(services, 4)
        services.valkey.stop()
        assert services.dead() == [services.valkey.process.name]
        services.valkey.start()
        assert recall(services)[1] == b"4"
        services.valkey.kill()
        services.valkey.start(empty=True)
        assert recall(services)[1] is None


def test_a_path_too_long_for_a_socket_is_worked_round() -> None:
    with open_folder() as short:
        deep = short / ("long" * 25) / "data"
        with Services(deep, durable=False) as services:
            remember(services, 5)
            sockets = Path((deep / "sockets").read_text().strip())
            assert services.valkey.sockets.parent == sockets
        assert not sockets.exists()
        assert not (deep / "sockets").exists()


def test_a_server_that_does_not_start_says_why(folder: Path) -> None:
    version = folder / "postgres/data/PG_VERSION"
    known = version.read_text()
    version.write_text("9.6\n")
    with pytest.raises(ServicesError, match=r"initialized by PostgreSQL version 9\.6"):
        Services(folder).start()
    version.write_text(known)
    with Services(folder, durable=False) as services:
        assert services.dead() == []
