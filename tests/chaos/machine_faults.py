"""Faults of what lies between and below the processes: the network, the disk, the clock."""

import contextlib
import random
import time
from pathlib import Path

from tests.chaos.far_host import broken
from tests.chaos.process_faults import kill_worker
from tests.chaos.stage import CANARY_S, NotHere, Stage, since
from tests.chaos.wire import Direction
from tests.fixtures.eventually import eventually


def network_cut_towards_services(stage: Stage, dice: random.Random) -> float | None:
    return _cut(stage, dice, Direction.OUT)


def network_cut_from_services(stage: Stage, dice: random.Random) -> float | None:
    return _cut(stage, dice, Direction.BACK)


def _cut(stage: Stage, dice: random.Random, direction: Direction) -> float | None:
    """Host b loses the services in one direction for longer than the lease: its jobs must go on elsewhere meanwhile."""
    pickup = stage.held_by(stage.working(dice, "worker-b"))
    held_s = stage.cluster.times.lease_s + dice.uniform(1, 4)
    began = time.monotonic()
    with broken(stage.cluster.far, direction):
        eventually("the jobs of worker-b go on", pickup.done, CANARY_S)
        recovered = since(began)
        time.sleep(max(0.0, held_s - recovered))
    return recovered if pickup.held else None


def blob_store_full(stage: Stage, dice: random.Random) -> float | None:
    if stage.cluster.no_disk:
        raise NotHere(stage.cluster.no_disk)
    filler = Path(stage.cluster.settings.blob_url) / "filler"
    try:
        with filler.open("wb") as out, contextlib.suppress(OSError):
            while True:
                out.write(b"\0" * 65536)
                out.flush()
        time.sleep(dice.uniform(2, 6))
    finally:
        filler.unlink(missing_ok=True)
    return stage.comes_through()


def clock_set_back(stage: Stage, dice: random.Random) -> float | None:
    """By minutes, and while it is behind, a worker dies: its lease must end all the same. Then it jumps ahead again."""
    clock = stage.cluster.clock
    if clock.obstacle:
        raise NotHere(clock.obstacle)
    clock.set(-dice.randrange(60, 900))
    try:
        time.sleep(dice.uniform(0, 3))
        return kill_worker(stage, dice)
    finally:
        clock.set(0)
