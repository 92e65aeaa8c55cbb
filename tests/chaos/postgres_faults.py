"""Faults of PostgreSQL: restarted, killed, standing still, out of connections, a table locked."""

import contextlib
import random
import time

import psutil
import psycopg

from tests.chaos.stage import Stage


def postgres_restarts(stage: Stage, dice: random.Random) -> float | None:
    postgres = stage.cluster.services.postgres
    postgres.stop()
    time.sleep(dice.uniform(0, 3))
    postgres.start()
    return stage.comes_through()


def postgres_killed(stage: Stage, dice: random.Random) -> float | None:
    postgres = stage.cluster.services.postgres
    postgres.kill()
    time.sleep(dice.uniform(0, 3))
    postgres.start()
    return stage.comes_through()


def postgres_stands_still(stage: Stage, dice: random.Random) -> float | None:
    server = psutil.Process(stage.cluster.services.postgres.process.pid)
    frozen = [server, *server.children(recursive=True)]
    try:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.suspend()
        time.sleep(dice.uniform(3, 8))
    finally:
        for process in frozen:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.resume()
    return stage.comes_through()


def postgres_out_of_connections(stage: Stage, dice: random.Random) -> float | None:
    taken: list[psycopg.Connection[object]] = []
    with contextlib.suppress(psycopg.OperationalError):
        for _ in range(400):
            taken.append(psycopg.connect(stage.cluster.settings.database_url))
    time.sleep(dice.uniform(2, 5))
    for connection in taken:
        connection.close()
    return stage.comes_through()


def postgres_table_locked(stage: Stage, dice: random.Random) -> float | None:
    with psycopg.connect(stage.cluster.settings.database_url) as connection:
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        time.sleep(dice.uniform(2, 6))
    return stage.comes_through()
