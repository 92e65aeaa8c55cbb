"""`python -m bench.receivers`: what a dead receiver of webhooks costs those who send jobs. Asserts nothing.

The same jobs in three ways, in turn, on one running system: without a webhook, each with a webhook to a receiver that
answers, and each with one to a receiver that accepts connections and never answers. The dead one already has many
deliveries due when its turn begins. Every turn has a deliverer of its own, so that no try outlives its turn.
"""

import argparse
import asyncio
import contextlib
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any

import psycopg

from bench.http_client import Connection, follow, submit
from bench.path import texts
from bench.running import running_system
from tests.acceptance.system import MODEL, System
from tools.tiny_model import TINY, write_checkpoint

NONE, LIVE, DEAD = "none", "live", "dead"
CASES = (NONE, LIVE, DEAD)
LEAD_IN_S = 1.0
MOST_JOBS = 10_000

BACKLOG = """
    INSERT INTO webhook_deliveries (id, tenant, url, target, event_id, event_type, subject, state)
    SELECT 'whd_old_' || n, 'default', %(place)s || '/hook', %(place)s, 'evt_old_' || n, 'response.completed',
           'job_old_' || n, 'pending'
    FROM generate_series(1, %(count)s) AS n"""


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):  # a deliverer that ended with its turn
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        await writer.drain()
    writer.close()


async def _never_answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read(-1)
    writer.close()


def _receive(pipe: Pipe) -> None:
    """Both receivers, in a process of their own: tells their ports, and ends with the other side."""

    async def both() -> None:
        servers = [await asyncio.start_server(how, "127.0.0.1", 0) for how in (_answer, _never_answer)]
        pipe.send([server.sockets[0].getsockname()[1] for server in servers])
        await asyncio.to_thread(pipe.poll, None)

    asyncio.run(both())


@contextlib.contextmanager
def receivers() -> Iterator[dict[str, str]]:
    """Where each kind of receiver listens: `http://host:port`."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_receive, args=(theirs,), daemon=True)
    process.start()
    live, dead = ours.recv()
    try:
        yield {LIVE: f"http://127.0.0.1:{live}", DEAD: f"http://127.0.0.1:{dead}"}
    finally:
        ours.send("end")
        process.join(30)


@dataclass
class Turn:
    """Seconds of each job, and what came of the deliveries when the last job had ended. The first second only leads
    in: bells ring, the first tries begin."""

    submit_s: list[float] = field(default_factory=list)
    whole_s: list[float] = field(default_factory=list)
    elapsed_s: float = 0.0
    tries: int = 0
    delivered: int = 0

    @property
    def jobs_per_s(self) -> float:
        return len(self.whole_s) / self.elapsed_s


MEASURED: dict[str, Callable[[Turn], float]] = {
    "POST p50, ms": lambda turn: _ms(turn.submit_s, 0.5),
    "POST p99, ms": lambda turn: _ms(turn.submit_s, 0.99),
    "whole p50, ms": lambda turn: _ms(turn.whole_s, 0.5),
    "whole p99, ms": lambda turn: _ms(turn.whole_s, 0.99),
    "jobs/s": lambda turn: turn.jobs_per_s,
    "tries": lambda turn: turn.tries,
    "delivered": lambda turn: turn.delivered,
}
COMPARED = [name for name in MEASURED if name not in ("tries", "delivered")]


def _ms(values: Sequence[float], share: float) -> float:
    return 1000 * sorted(values)[round(share * (len(values) - 1))]


@dataclass(frozen=True, slots=True)
class Load:
    """So many clients, each sending its next job when the last has ended, for so many seconds."""

    running: System
    places: dict[str, str]
    seconds: float
    clients: int
    backlog: int

    def turn(self, case: str, seed: int) -> Turn:
        """Forgets all deliveries, and starts a deliverer."""
        with psycopg.connect(self.running.settings.database_url) as connection:
            connection.execute("TRUNCATE webhook_deliveries CASCADE")
            if case == DEAD:
                connection.execute(BACKLOG, {"place": self.places[DEAD], "count": self.backlog})
        deliverer = self.running.start_deliveries()
        try:
            return self._measured(case, seed)
        finally:
            deliverer.kill()

    def _measured(self, case: str, seed: int) -> Turn:
        turn = Turn()
        more = {} if case == NONE else {"webhook": self.places[case] + "/hook"}
        asyncio.run(self._send([_job(text) | more for text in texts(MOST_JOBS, seed)], turn))
        with psycopg.connect(self.running.settings.database_url) as connection:
            counts = "SELECT count(*), count(*) FILTER (WHERE status_code = 200) FROM webhook_attempts"
            turn.tries, turn.delivered = connection.execute(counts).fetchone() or (0, 0)
        return turn

    async def _send(self, bodies: Iterable[dict[str, Any]], turn: Turn) -> None:
        port = int(self.running.url.rsplit(":", 1)[1])
        left = iter(bodies)
        begin = time.perf_counter() + LEAD_IN_S

        async def one() -> None:
            connection = Connection(port)
            while (start := time.perf_counter()) < begin + self.seconds:
                job_id = await submit(connection, next(left))
                accepted = time.perf_counter()
                assert await follow(port, job_id) in ("job.completed", "job.incomplete")
                if start >= begin:
                    turn.submit_s.append(accepted - start)
                    turn.whole_s.append(time.perf_counter() - start)
            await connection.close()

        await asyncio.gather(*(one() for _ in range(self.clients)))
        turn.elapsed_s = time.perf_counter() - begin


def _job(text: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "messages": messages, "temperature": 0, "max_tokens": 8, "ignore_eos": True}


def report(turns: dict[str, list[Turn]]) -> None:
    print("\nwebhook of each job, medians of the turns")
    print(f"{'':<14}" + "".join(f"{name:>15}" for name in MEASURED))
    for case in CASES:
        print(f"{case:<14}" + "".join(f"{statistics.median(map(of, turns[case])):>15.1f}" for of in MEASURED.values()))
    for above, below in ((LIVE, NONE), (DEAD, NONE), (DEAD, LIVE)):
        ratios = [_ratio(MEASURED[name], turns[above], turns[below]) for name in COMPARED]
        print(f"{above + ' / ' + below:<14}" + "".join(f"{ratio:>15.2f}" for ratio in ratios))
    noise = [_noise(MEASURED[name], turns[NONE]) for name in COMPARED]
    print(f"{'noise of none':<14}" + "".join(f"{share:>15}" for share in noise))


def _ratio(of: Callable[[Turn], float], above: Sequence[Turn], below: Sequence[Turn]) -> float:
    return statistics.median(of(a) / of(b) for a, b in zip(above, below, strict=True))


def _noise(of: Callable[[Turn], float], turns: Sequence[Turn]) -> str:
    """The least and the greatest turn, beside the median."""
    values = [of(turn) for turn in turns]
    middle = statistics.median(values)
    return f"{min(values) / middle:.2f}-{max(values) / middle:.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.receivers", description="What a dead receiver costs.")
    parser.add_argument("--seconds", type=float, default=5.0, help="of one turn")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=6, help="of three turns each")
    parser.add_argument("--backlog", type=int, default=1000, help="deliveries that are due at the dead one anyway")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="vlmq-bench-") as folder, receivers() as places:
        checkpoint = write_checkpoint(Path(folder) / "model", TINY)
        allowed = ",".join(place.removeprefix("http://") for place in places.values())
        with running_system(checkpoint, Path(folder), VLMQ_WEBHOOKS_ALLOWED_HOSTS=allowed) as it:
            it.start_worker()
            load = Load(it, places, options.seconds, options.clients, options.backlog)
            turns: dict[str, list[Turn]] = {case: [] for case in CASES}
            for number in range(-1, options.rounds):
                order = CASES[number % 3 :] + CASES[: number % 3]
                for case in order:
                    turn = load.turn(case, seed=number)
                    if number >= 0:  # the first warms up
                        turns[case].append(turn)
                if number >= 0:
                    rates = {case: round(done[-1].jobs_per_s) for case, done in turns.items()}
                    print(f"{number + 1}/{options.rounds}: jobs/s {rates}", flush=True)
        report(turns)


if __name__ == "__main__":
    main()
