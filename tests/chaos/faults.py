"""What is done to the installation, fault by fault: strike, hold, heal, and how long until it was as before.

Each fault is a function of the cluster and of dice; it returns the seconds of its recovery, None when it has none to
measure. What it needs and cannot have here it says with `NotHere`.
"""

import contextlib
import os
import random
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
import psycopg
import redis

from tests.chaos.cluster import MODEL, Cluster
from tests.chaos.ledger import Ledger
from tests.chaos.wire import Direction
from tests.fixtures.eventually import eventually

CANARY_S = 90.0
LEADING = "worker.maintenance: leading"


class NotHere(Exception):
    """The machine does not allow this fault."""


@dataclass(frozen=True, slots=True)
class Stage:
    """What a fault may touch."""

    cluster: Cluster
    ledger: Ledger

    def canary(self) -> None:
        """Returns when a new job comes through, from the door to its answer."""
        body = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
        urls = self.cluster.urls

        def sings() -> bool:
            for url in urls:
                with contextlib.suppress(httpx2.TransportError):
                    if httpx2.post(f"{url}/v1/chat/completions", json=body, timeout=CANARY_S).status_code == 200:
                        return True
            return False

        eventually("a new job comes through", sings, CANARY_S)

    def workers(self) -> list[str]:
        return [name for name in self.cluster.parts if name.startswith("worker")]

    def some(self, kind: str, dice: random.Random) -> str:
        return dice.choice([name for name in self.cluster.parts if name.startswith(kind)])


Fault = Callable[[Stage, random.Random], float | None]


def _since(began: float) -> float:
    return time.monotonic() - began


def _dies_and_comes_back(stage: Stage, name: str, dice: random.Random) -> None:
    stage.cluster.kill(name)
    time.sleep(dice.uniform(0, 2))
    stage.cluster.start(name)


def kill_api(stage: Stage, dice: random.Random) -> float | None:
    _dies_and_comes_back(stage, stage.some("api", dice), dice)
    return None


def kill_maintenance(stage: Stage, dice: random.Random) -> float | None:
    _dies_and_comes_back(stage, stage.some("maintenance", dice), dice)
    return None


def kill_batches(stage: Stage, dice: random.Random) -> float | None:
    _dies_and_comes_back(stage, stage.some("batches", dice), dice)
    return None


def kill_deliveries(stage: Stage, dice: random.Random) -> float | None:
    _dies_and_comes_back(stage, stage.some("deliveries", dice), dice)
    return None


def kill_worker(stage: Stage, dice: random.Random) -> float | None:
    """Until every job that it ran runs elsewhere or has ended."""
    name = stage.some("worker", dice)
    held = stage.ledger.running_on(stage.cluster.running[name].popen.pid)
    began = time.monotonic()
    stage.cluster.kill(name)
    stage.cluster.start(name, wait=False)
    eventually(f"the jobs of {name} go on", lambda: stage.ledger.moved_on(held), CANARY_S)
    recovered = _since(began)
    eventually(f"{name} is ready", lambda: stage.cluster.ready(name))
    return recovered if held else None


def kill_engine(stage: Stage, dice: random.Random) -> float | None:
    return _engine_gets(stage, dice, signal.SIGKILL)


def abort_engine(stage: Stage, dice: random.Random) -> float | None:
    """As a failed assertion in a library does."""
    return _engine_gets(stage, dice, signal.SIGABRT)


def hang_engine(stage: Stage, dice: random.Random) -> float | None:
    """It stands still for ever: the watchdog must notice."""
    return _engine_gets(stage, dice, signal.SIGSTOP)


def _engine_gets(stage: Stage, dice: random.Random, number: signal.Signals) -> float | None:
    name = stage.some("worker", dice)
    engine = stage.cluster.engine(name)
    if engine is None:
        return None
    held = stage.ledger.running_on(stage.cluster.running[name].popen.pid)
    began = time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess):
        engine.send_signal(number)
    if not held and number is signal.SIGSTOP:
        # The watchdog looks at engines that owe something; this one gets work, and must be replaced then.
        stage.canary()
    eventually(f"the jobs of {name} go on", lambda: stage.ledger.moved_on(held), CANARY_S)
    recovered = _since(began)
    eventually(f"{name} has another engine", lambda: _another_engine(stage, name, engine.pid), CANARY_S)
    return recovered if held else None


def _another_engine(stage: Stage, name: str, pid: int) -> bool:
    engine = stage.cluster.engine(name)
    return engine is not None and engine.pid != pid


def drain_worker(stage: Stage, dice: random.Random) -> float | None:
    """SIGTERM in the middle of its work: it leaves in good order, another takes over."""
    name = stage.some("worker", dice)
    held = stage.ledger.running_on(stage.cluster.running[name].popen.pid)
    began = time.monotonic()
    code = stage.cluster.running[name].terminate(60)
    assert code == 0, f"{name} left with {code}"
    stage.cluster.start(name, wait=False)
    eventually(f"the jobs of {name} go on", lambda: stage.ledger.moved_on(held), CANARY_S)
    recovered = _since(began)
    eventually(f"{name} is ready", lambda: stage.cluster.ready(name))
    return recovered if held else None


def zombie_worker(stage: Stage, dice: random.Random) -> float | None:
    """Frozen for longer than its lease, then awake again in the belief that its jobs are its own."""
    name = stage.some("worker", dice)
    held = stage.ledger.running_on(stage.cluster.running[name].popen.pid)
    began = time.monotonic()
    stage.cluster.signal(name, signal.SIGSTOP)
    try:
        eventually(f"the jobs of {name} go on", lambda: stage.ledger.moved_on(held), CANARY_S)
        recovered = _since(began)
        time.sleep(max(0.0, stage.cluster.times.lease_s + 1 - _since(began)))
    finally:
        stage.cluster.signal(name, signal.SIGCONT)
    return recovered if held else None


def freeze_api(stage: Stage, dice: random.Random) -> float | None:
    return _freeze(stage, stage.some("api", dice), dice)


def freeze_maintenance(stage: Stage, dice: random.Random) -> float | None:
    """Whoever leads stands still, and with it the sweeping: the other must take over."""
    names = [name for name in stage.cluster.parts if name.startswith("maintenance")]
    leader = max(names, key=lambda name: _led_last(stage.cluster, name))
    (other,) = set(names) - {leader}
    before = stage.cluster.running[other].output().count(LEADING)
    began = time.monotonic()
    stage.cluster.signal(leader, signal.SIGSTOP)
    try:
        eventually("the other leads", lambda: stage.cluster.running[other].output().count(LEADING) > before, CANARY_S)
        return _since(began)
    finally:
        stage.cluster.signal(leader, signal.SIGCONT)


def _led_last(cluster: Cluster, name: str) -> str:
    """The time of its last line that says so."""
    lines = [line for line in cluster.running[name].output().splitlines() if line.endswith(LEADING)]
    return lines[-1][:23] if lines else ""


def _freeze(stage: Stage, name: str, dice: random.Random) -> None:
    stage.cluster.signal(name, signal.SIGSTOP)
    time.sleep(dice.uniform(2, 6))
    stage.cluster.signal(name, signal.SIGCONT)


# -- Redis


def redis_restarts_empty(stage: Stage, dice: random.Random) -> float | None:
    return _redis_restarts(stage, dice, empty=True)


def redis_restarts_with_its_file(stage: Stage, dice: random.Random) -> float | None:
    return _redis_restarts(stage, dice, empty=False)


def _redis_restarts(stage: Stage, dice: random.Random, empty: bool) -> float:
    valkey = stage.cluster.services.valkey
    valkey.kill()
    time.sleep(dice.uniform(0, 4))
    valkey.start(empty=empty)
    return _comes_through(stage)


def redis_stands_still(stage: Stage, dice: random.Random) -> float | None:
    pid = stage.cluster.services.valkey.process.pid
    os.kill(pid, signal.SIGSTOP)
    time.sleep(dice.uniform(3, 8))
    os.kill(pid, signal.SIGCONT)
    return _comes_through(stage)


def redis_out_of_memory(stage: Stage, dice: random.Random) -> float | None:
    with redis.Redis.from_url(stage.cluster.settings.redis_url) as client:
        client.config_set("maxmemory", 1)
        time.sleep(dice.uniform(2, 6))
        client.config_set("maxmemory", 0)
    return _comes_through(stage)


def redis_connections_cut(stage: Stage, dice: random.Random) -> float | None:
    with redis.Redis.from_url(stage.cluster.settings.redis_url) as client:
        for kind in ("normal", "pubsub"):
            client.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    return _comes_through(stage)


# -- PostgreSQL


def postgres_restarts(stage: Stage, dice: random.Random) -> float | None:
    postgres = stage.cluster.services.postgres
    postgres.stop()
    time.sleep(dice.uniform(0, 3))
    postgres.start()
    return _comes_through(stage)


def postgres_killed(stage: Stage, dice: random.Random) -> float | None:
    postgres = stage.cluster.services.postgres
    postgres.kill()
    time.sleep(dice.uniform(0, 3))
    postgres.start()
    return _comes_through(stage)


def postgres_stands_still(stage: Stage, dice: random.Random) -> float | None:
    server = psutil.Process(stage.cluster.services.postgres.process.pid)
    frozen = [server, *server.children(recursive=True)]
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.suspend()
    time.sleep(dice.uniform(3, 8))
    for process in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.resume()
    return _comes_through(stage)


def postgres_out_of_connections(stage: Stage, dice: random.Random) -> float | None:
    taken: list[psycopg.Connection[object]] = []
    with contextlib.suppress(psycopg.OperationalError):
        for _ in range(400):
            taken.append(psycopg.connect(stage.cluster.settings.database_url))
    time.sleep(dice.uniform(2, 5))
    for connection in taken:
        connection.close()
    return _comes_through(stage)


def postgres_table_locked(stage: Stage, dice: random.Random) -> float | None:
    with psycopg.connect(stage.cluster.settings.database_url) as connection:
        connection.execute("LOCK TABLE jobs IN ACCESS EXCLUSIVE MODE")
        time.sleep(dice.uniform(2, 6))
    return _comes_through(stage)


# -- between and below


def network_cut_towards_services(stage: Stage, dice: random.Random) -> float | None:
    return _cut(stage, dice, Direction.OUT)


def network_cut_from_services(stage: Stage, dice: random.Random) -> float | None:
    return _cut(stage, dice, Direction.BACK)


def _cut(stage: Stage, dice: random.Random, direction: Direction) -> float:
    """Host b loses the services in one direction for longer than the lease: its jobs must go on elsewhere."""
    held = stage.ledger.running_on(stage.cluster.running["worker-b"].popen.pid)
    network = stage.cluster.network
    for wire in stage.cluster.wires:
        network.cut(wire, direction)
    time.sleep(stage.cluster.times.lease_s + dice.uniform(1, 4))
    for wire in stage.cluster.wires:
        network.heal(wire)
    began = time.monotonic()
    eventually("the jobs of worker-b go on", lambda: stage.ledger.moved_on(held), CANARY_S)
    return _since(began)


def blob_store_full(stage: Stage, dice: random.Random) -> float | None:
    if not stage.cluster.tmpfs:
        raise NotHere("a file system of its own for the blob store needs the right to mount one")
    filler = Path(stage.cluster.settings.blob_url) / "filler"
    with filler.open("wb") as out, contextlib.suppress(OSError):
        while True:
            out.write(b"\0" * 65536)
            out.flush()
    time.sleep(dice.uniform(2, 6))
    filler.unlink()
    return _comes_through(stage)


def clock_set_back(stage: Stage, dice: random.Random) -> float | None:
    """By minutes, and while it is behind, a worker dies: its lease must end all the same. Then it jumps ahead again."""
    clock = stage.cluster.clock
    if not clock.settable:
        raise NotHere("setting the processes' clock needs a C compiler")
    clock.set(-dice.randrange(60, 900))
    try:
        time.sleep(dice.uniform(0, 3))
        return kill_worker(stage, dice)
    finally:
        clock.set(0)


def poisonous_job(stage: Stage, dice: random.Random) -> float | None:
    """A job that costs every engine its memory: whoever runs it is killed, until the job is put away. It can be given
    back, and is done then."""
    url = stage.cluster.urls[0]
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Poison"}], "max_tokens": 400, "ignore_eos": True}
    job_id = _insist("POST", f"{url}/v1/jobs", 201, json=body)["id"]
    began = time.monotonic()
    seen = 0
    while _since(began) < CANARY_S and (state := _state(stage, job_id)) in ("queued", "in_progress"):
        # A token more than last time: it is in an engine now, not only claimed by a worker.
        if (tokens := _tokens(url, job_id, enough=seen + 1)) > seen:
            _kill_engine_of(stage, job_id)
            time.sleep(0.5)
            seen = max(tokens, _tokens(url, job_id, enough=10**9))
        time.sleep(0.05)
    assert state == "failed", f"the poisonous job is {state}"
    recovered = _since(began)
    _insist("POST", f"{url}/v1/jobs/{job_id}/requeue", 200)
    eventually("the job that was given back ends", lambda: _state(stage, job_id) == "incomplete", CANARY_S)
    return recovered


def _kill_engine_of(stage: Stage, job_id: str) -> None:
    (row,) = stage.ledger.patiently("SELECT worker FROM jobs WHERE id = %s", job_id)
    for name in stage.workers():
        if f":{stage.cluster.running[name].popen.pid}:" in (row["worker"] or ""):
            engine = stage.cluster.engine(name)
            with contextlib.suppress(psutil.NoSuchProcess):
                if engine is not None:
                    engine.kill()


def _state(stage: Stage, job_id: str) -> str:
    (row,) = stage.ledger.patiently("SELECT state FROM jobs WHERE id = %s", job_id)
    return str(row["state"])


def _tokens(url: str, job_id: str, enough: int) -> int:
    """How many its log has by now, counted up to `enough`; what comes after a pause is left for the next count."""
    deltas = 0
    patience = httpx2.Timeout(5, read=0.2)
    with (
        contextlib.suppress(httpx2.TransportError),
        httpx2.stream("GET", f"{url}/v1/jobs/{job_id}/events", timeout=patience) as answer,
    ):
        for line in answer.iter_lines():
            deltas += line.startswith("event: job.delta")
            if deltas >= enough:
                break
    return deltas


def _insist(method: str, url: str, status: int, **more: Any) -> dict[str, Any]:
    """The answer, once it is the right one."""
    answers: list[httpx2.Response] = []

    def done() -> bool:
        with contextlib.suppress(httpx2.TransportError):
            answers.append(httpx2.request(method, url, timeout=30, **more))
            return answers[-1].status_code == status
        return False

    eventually(f"{method} {url} answers {status}", done, CANARY_S)
    return dict(answers[-1].json())


def _comes_through(stage: Stage) -> float:
    began = time.monotonic()
    stage.canary()
    return _since(began)


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
