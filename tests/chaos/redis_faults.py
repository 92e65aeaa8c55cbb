"""Faults of Redis: lost with all it held, restarted, standing still, full, cut off."""

import os
import random
import signal
import time

import redis

from tests.chaos.stage import Stage


def redis_restarts_empty(stage: Stage, dice: random.Random) -> float | None:
    return _redis_restarts(stage, dice, empty=True)


def redis_restarts_with_its_file(stage: Stage, dice: random.Random) -> float | None:
    return _redis_restarts(stage, dice, empty=False)


def _redis_restarts(stage: Stage, dice: random.Random, empty: bool) -> float:
    valkey = stage.cluster.services.valkey
    valkey.kill()
    time.sleep(dice.uniform(0, 4))
    valkey.start(empty=empty)
    return stage.comes_through()


def redis_stands_still(stage: Stage, dice: random.Random) -> float | None:
    pid = stage.cluster.services.valkey.process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(dice.uniform(3, 8))
    finally:
        os.kill(pid, signal.SIGCONT)
    return stage.comes_through()


def redis_out_of_memory(stage: Stage, dice: random.Random) -> float | None:
    with redis.Redis.from_url(stage.cluster.settings.redis_url) as client:
        client.config_set("maxmemory", 1)
        time.sleep(dice.uniform(2, 6))
        client.config_set("maxmemory", 0)
    return stage.comes_through()


def redis_connections_cut(stage: Stage, dice: random.Random) -> float | None:
    with redis.Redis.from_url(stage.cluster.settings.redis_url) as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    return stage.comes_through()
