"""All faults by name, the schedule that a seed makes of them, and how long each may take to recover."""

import random
from collections.abc import Sequence

from tests.chaos.cluster import Times
from tests.chaos.machine_faults import (
    blob_store_full,
    clock_set_back,
    network_cut_from_services,
    network_cut_towards_services,
)
from tests.chaos.poison import poisonous_job
from tests.chaos.postgres_faults import (
    postgres_killed,
    postgres_out_of_connections,
    postgres_restarts,
    postgres_stands_still,
    postgres_table_locked,
)
from tests.chaos.process_faults import (
    abort_engine,
    drain_worker,
    freeze_api,
    freeze_maintenance,
    hang_engine,
    kill_api,
    kill_batches,
    kill_deliveries,
    kill_engine,
    kill_maintenance,
    kill_worker,
    zombie_beside_its_engine,
    zombie_worker,
)
from tests.chaos.redis_faults import (
    redis_connections_cut,
    redis_out_of_memory,
    redis_restarts_empty,
    redis_restarts_with_its_file,
    redis_stands_still,
)
from tests.chaos.stage import Fault

FAULTS: dict[str, Fault] = {
    "API killed": kill_api,
    "worker killed": kill_worker,
    "engine killed": kill_engine,
    "engine aborted": abort_engine,
    "engine hangs": hang_engine,
    "maintenance killed": kill_maintenance,
    "batch process killed": kill_batches,
    "deliverer killed": kill_deliveries,
    "worker terminated": drain_worker,
    "worker frozen beyond its lease": zombie_worker,
    "worker frozen beside its engine": zombie_beside_its_engine,
    "API frozen": freeze_api,
    "maintenance frozen": freeze_maintenance,
    "Redis restarted empty": redis_restarts_empty,
    "Redis restarted with its file": redis_restarts_with_its_file,
    "Redis stands still": redis_stands_still,
    "Redis out of memory": redis_out_of_memory,
    "Redis connections cut": redis_connections_cut,
    "PostgreSQL restarted": postgres_restarts,
    "PostgreSQL killed": postgres_killed,
    "PostgreSQL stands still": postgres_stands_still,
    "PostgreSQL out of connections": postgres_out_of_connections,
    "PostgreSQL table locked": postgres_table_locked,
    "network cut towards the services": network_cut_towards_services,
    "network cut from the services": network_cut_from_services,
    "blob store full": blob_store_full,
    "clock set back": clock_set_back,
    "poisonous job": poisonous_job,
}


_LEASE = (
    "worker killed",
    "worker frozen beyond its lease",
    "worker frozen beside its engine",
    "maintenance frozen",
    "clock set back",
)
_ENGINE = ("engine killed", "engine aborted", "engine hangs")


def bar_s(fault: str, times: Times, engine_start_s: float) -> float | None:
    """At most this long may it take to recover: after a lease, after an engine's start, after a service is back. None
    where nobody waits for the fault's end, or its length is its own."""
    if fault in _LEASE or fault.startswith("network cut"):
        return times.lease_s + 5
    if fault in _ENGINE:
        noticed_s = times.engine_silence_s if fault == "engine hangs" else 0.0
        return noticed_s + engine_start_s + 2
    if fault.startswith(("Redis", "PostgreSQL", "blob store")):
        return 5.0
    return None


def schedule(seed: int, count: int, names: Sequence[str] = ()) -> list[str]:
    """The faults of a run in their order: every one once before any comes again."""
    dice = random.Random(seed)
    known = list(names or FAULTS)
    drawn: list[str] = []
    while len(drawn) < count:
        round_ = list(known)
        dice.shuffle(round_)
        drawn += round_
    return drawn[:count]
