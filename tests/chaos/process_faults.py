"""Faults of the installation's own processes: killed, frozen, terminated, hung."""

import contextlib
import random
import signal
import time
from datetime import datetime
from typing import Any

import psutil

from tests.chaos.quiet import until_quiet
from tests.chaos.stage import CANARY_S, Stage, since
from tests.fixtures.eventually import eventually

SERVES = "engine serves"
RENEWED_WITHIN_S = 3.0
"""More than two turns of a maintenance process."""


def kill_api(stage: Stage, dice: random.Random) -> float | None:
    return _dies_and_comes_back(stage, stage.some("api", dice), dice)


def kill_maintenance(stage: Stage, dice: random.Random) -> float | None:
    return _dies_and_comes_back(stage, stage.some("maintenance", dice), dice)


def kill_batches(stage: Stage, dice: random.Random) -> float | None:
    return _dies_and_comes_back(stage, stage.some("batches", dice), dice)


def kill_deliveries(stage: Stage, dice: random.Random) -> float | None:
    return _dies_and_comes_back(stage, stage.some("deliveries", dice), dice)


def _dies_and_comes_back(stage: Stage, name: str, dice: random.Random) -> None:
    stage.cluster.kill(name)
    time.sleep(dice.uniform(0, 2))
    stage.cluster.start(name)


def kill_worker(stage: Stage, dice: random.Random) -> float | None:
    """Until every job that it ran goes on elsewhere or has ended."""
    name = stage.working(dice)
    pickup = stage.held_by(name)
    began = time.monotonic()
    stage.cluster.kill(name)
    stage.cluster.start(name, wait=False)
    eventually(f"the jobs of {name} go on", pickup.done, CANARY_S)
    recovered = since(began)
    eventually(f"{name} is ready", lambda: stage.cluster.ready(name))
    return recovered if pickup.held else None


def kill_engine(stage: Stage, dice: random.Random) -> float | None:
    return _engine_gets(stage, dice, signal.SIGKILL)


def abort_engine(stage: Stage, dice: random.Random) -> float | None:
    """As a failed assertion in a library does."""
    return _engine_gets(stage, dice, signal.SIGABRT)


def hang_engine(stage: Stage, dice: random.Random) -> float | None:
    """It stands still for ever: the watchdog must notice."""
    return _engine_gets(stage, dice, signal.SIGSTOP)


def _engine_gets(stage: Stage, dice: random.Random, number: signal.Signals) -> float | None:
    name = stage.working(dice)
    engine = stage.cluster.engine(name)
    if engine is None:
        return None
    pickup, served = stage.held_by(name), len(_serving(stage, name))
    began = time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess):
        engine.send_signal(number)
    eventually(f"the jobs of {name} go on", pickup.done, CANARY_S)
    recovered = since(began)
    _note_start(stage, name, engine.pid, served)
    return recovered if pickup.held else None


def _another_engine(stage: Stage, name: str, pid: int) -> bool:
    engine = stage.cluster.engine(name)
    return engine is not None and engine.pid != pid


def start_engine(stage: Stage, name: str) -> None:
    """While nothing else happens: a worker's first engine is killed."""
    served = len(_serving(stage, name))
    engine = stage.cluster.engine(name)
    assert engine is not None, f"{name} has no engine"
    engine.kill()
    _note_start(stage, name, engine.pid, served)


def _serving(stage: Stage, name: str) -> list[datetime]:
    """When the engines of a worker began to serve, by its log."""
    lines = stage.cluster.running[name].output().splitlines()
    return [datetime.strptime(line[:23], "%Y-%m-%d %H:%M:%S,%f").astimezone() for line in lines if SERVES in line]


def _note_start(stage: Stage, name: str, dead: int, served: int) -> None:
    """Of the engine that replaces the dead one, when so many had served before. On a machine that does other things it
    takes longer."""
    eventually(f"{name} has another engine", lambda: _another_engine(stage, name, dead), CANARY_S)
    eventually(f"the engine of {name} serves", lambda: len(_serving(stage, name)) > served, CANARY_S)
    engine = stage.cluster.engine(name)
    if engine is not None:
        with contextlib.suppress(psutil.NoSuchProcess):
            stage.engine_start_s = _serving(stage, name)[-1].timestamp() - engine.create_time()


def drain_worker(stage: Stage, dice: random.Random) -> float | None:
    """SIGTERM in the middle of its work: it leaves in good order, another takes over."""
    name = stage.working(dice)
    pickup = stage.held_by(name)
    began = time.monotonic()
    code = stage.cluster.running[name].terminate(60)
    assert code == 0, f"{name} left with {code}"
    stage.cluster.start(name, wait=False)
    eventually(f"the jobs of {name} go on", pickup.done, CANARY_S)
    recovered = since(began)
    eventually(f"{name} is ready", lambda: stage.cluster.ready(name))
    return recovered if pickup.held else None


def zombie_worker(stage: Stage, dice: random.Random) -> float | None:
    """Frozen for longer than its lease, then awake again in the belief that its jobs are its own."""
    return _zombie(stage, dice, alone=False)


def zombie_beside_its_engine(stage: Stage, dice: random.Random) -> float | None:
    """The same while its engine goes on: what wakes up has its answers whole, and hurries to write them down."""
    return _zombie(stage, dice, alone=True)


def _zombie(stage: Stage, dice: random.Random, alone: bool) -> float | None:
    name = stage.working(dice)
    pickup = stage.held_by(name)
    began = time.monotonic()
    engine = stage.cluster.engine(name)
    with stage.cluster.frozen(name, alone):
        eventually(f"the jobs of {name} go on", pickup.done, CANARY_S)
        recovered = since(began)
        if alone and engine is not None:
            with contextlib.suppress(AssertionError):
                until_quiet([engine])
        time.sleep(max(0.0, stage.cluster.times.lease_s + 1 - since(began)))
    return recovered if pickup.held else None


def freeze_api(stage: Stage, dice: random.Random) -> float | None:
    with stage.cluster.frozen(stage.some("api", dice)):
        time.sleep(dice.uniform(2, 6))
    return None


def freeze_maintenance(stage: Stage, dice: random.Random) -> float | None:
    """Whoever leads stands still, and with it the sweeping: the other must take over."""
    for name in [name for name in stage.cluster.parts if name.startswith("maintenance")]:
        began = time.monotonic()
        with stage.cluster.frozen(name):
            first = _lead(stage)
            time.sleep(RENEWED_WITHIN_S)
            now = _lead(stage)
            if now["holder"] == first["holder"] and now["renewed_at"] > first["renewed_at"]:
                continue  # the lead is renewed: it was the other's
            _until_another_leads(stage, first["holder"])
            return since(began)
    raise AssertionError("the lead is renewed whichever maintenance process stands still")


def _until_another_leads(stage: Stage, holder: str) -> None:
    eventually("the other leads", lambda: _lead(stage)["holder"] != holder, CANARY_S)


def _lead(stage: Stage) -> dict[str, Any]:
    rows = stage.ledger.patiently("SELECT holder, renewed_at FROM leaders WHERE name = 'maintenance'")
    assert rows, "nobody has ever led"
    return rows[0]
