"""The load: a seeded list of operations, done by several clients at once, one after another each."""

import queue
import random
import threading
import time
from collections.abc import Sequence

from tests.chaos.client import Client, GaveUp, Seen
from tests.chaos.operations import OPERATIONS, Refused, Turn
from tests.chaos.requests import Request

WEIGHTS = {
    "follow": 5,
    "chat": 3,
    "chat-stream": 4,
    "poll": 4,
    "background": 4,
    "cancel": 3,
    "deadline": 2,
    "twice": 2,
    "webhook": 4,
    "batch": 1,
}

LEAVE_S = 60.0
"""For clients to notice that nobody waits any longer: more than any call of theirs takes."""


def turns(seed: int, count: int, requests: Sequence[Request], hook: str, kinds: Sequence[str] = ()) -> list[Turn]:
    """The operations of a run. The same seed gives the same ones."""
    dice = random.Random(seed)
    known = {kind: weight for kind, weight in WEIGHTS.items() if not kinds or kind in kinds}
    drawn = dice.choices(list(known), list(known.values()), k=count)
    return [Turn(k, kind, dice.choice(requests), dice.getrandbits(32), hook) for k, kind in enumerate(drawn)]


class Load:
    """Runs from `start`; `finish` waits for what is under way, `abandon` does not."""

    def __init__(self, urls: list[str], plan: Sequence[Turn], clients: int) -> None:
        self.seen: list[Seen] = []
        self.faults: list[str] = []
        """What went wrong with the harness itself."""
        self._urls = urls
        self._plan: queue.Queue[Turn] = queue.Queue()
        for turn in plan:
            self._plan.put(turn)
        self._closing = threading.Event()
        self._abandon = threading.Event()
        self._threads = [threading.Thread(target=self._work, name=f"client-{k}", daemon=True) for k in range(clients)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    @property
    def done(self) -> int:
        return len(self.seen)

    def finish(self, within_s: float) -> None:
        """Begins nothing more, and waits for the rest. What does not come is a complaint."""
        self._closing.set()
        end = time.monotonic() + within_s
        for thread in self._threads:
            thread.join(max(0.1, end - time.monotonic()))
        self.abandon()

    def abandon(self) -> None:
        """Nobody waits any longer. Harmless when nothing is under way."""
        self._closing.set()
        self._abandon.set()
        end = time.monotonic() + LEAVE_S
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.1, end - time.monotonic()))

    def _work(self) -> None:
        while not self._closing.is_set():
            try:
                turn = self._plan.get_nowait()
            except queue.Empty:
                return
            self._do(turn)

    def _do(self, turn: Turn) -> None:
        dice = random.Random(turn.seed)
        client = Client(self._urls, dice, self._abandon.is_set)
        try:
            self.seen.append(OPERATIONS[turn.kind](client, turn, dice))
        except (GaveUp, Refused) as exc:
            lost = turn.seen()
            lost.complain(str(exc)[:500])
            self.seen.append(lost)
        except Exception as exc:  # noqa: BLE001  a thread's edge: a fault of the harness must not pass as silence
            self.faults.append(f"{turn.name}: {type(exc).__name__}: {exc}")
        finally:
            client.close()
