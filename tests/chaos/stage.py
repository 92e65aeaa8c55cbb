"""What a fault may touch, and what all faults need: dice, waiting, the words for what is not possible here."""

import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import httpx2

from tests.chaos.cluster import MODEL, Cluster
from tests.chaos.ledger import Ledger
from tests.chaos.pickup import Pickup
from tests.fixtures.eventually import eventually

CANARY_S = 90.0
WORK_S = 5.0
"""How long a fault waits for somebody to be at work."""


class NotHere(Exception):
    """The machine does not allow this fault."""


@dataclass(slots=True)
class Stage:
    cluster: Cluster
    ledger: Ledger
    engine_start_s: float = 0.0
    """How long the last engine took that was started, from its process's beginning until it served."""

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

    def comes_through(self) -> float:
        """Seconds from now until a new job does."""
        began = time.monotonic()
        self.canary()
        return since(began)

    def workers(self) -> list[str]:
        return [name for name in self.cluster.parts if name.startswith("worker")]

    def some(self, kind: str, dice: random.Random) -> str:
        return dice.choice([name for name in self.cluster.parts if name.startswith(kind)])

    def working(self, dice: random.Random, *among: str) -> str:
        """A worker, of those `among` which it shall be, that runs something, as soon as there is one: to strike an
        idle one proves little."""
        names = list(among) or self.workers()
        dice.shuffle(names)
        end = time.monotonic() + WORK_S
        while time.monotonic() < end:
            for name in names:
                if self.ledger.running_on(self.cluster.running[name].popen.pid):
                    return name
            time.sleep(0.05)
        return names[0]

    def held_by(self, worker: str) -> Pickup:
        """The jobs that it runs now."""
        held = self.ledger.running_on(self.cluster.running[worker].popen.pid)
        return Pickup(held, self.ledger, self.cluster.settings)


Fault = Callable[[Stage, random.Random], float | None]
"""Strikes, holds, heals; returns the seconds of its recovery, None when nothing had to recover. Raises NotHere."""


def since(began: float) -> float:
    return time.monotonic() - began
