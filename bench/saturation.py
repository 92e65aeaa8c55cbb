"""Tenants that always have jobs waiting, sent through the door of a running system, and what each of them has had."""

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import httpx2
import psycopg

from jobs import connect
from tests.acceptance.system import MODEL, System
from tests.fixtures.pictures import data_url, picture

AHEAD = 600
"""Jobs of each tenant that wait: more than a fast worker does while the same number of others is sent."""
_LOOK_S = 0.1

# What has ended counts as it came to, what runs as far as it is: its prompt is taken to be as those of the tenant's
# other jobs.
_HAD = """
    SELECT tenant, count(*) FILTER (WHERE usage IS NOT NULL) AS jobs, CAST(
        coalesce(sum(CAST(usage ->> 'prompt_tokens' AS int) + CAST(usage ->> 'completion_tokens' AS int)), 0)
        + coalesce(sum(token_count) FILTER (WHERE state = 'in_progress'), 0)
        + count(*) FILTER (WHERE state = 'in_progress' AND prepared_at IS NOT NULL)
        * coalesce(avg(CAST(usage ->> 'prompt_tokens' AS int)), 0) AS int) AS tokens
    FROM jobs WHERE tenant = ANY(%s) GROUP BY tenant"""
_WAITING = "SELECT count(*) FROM jobs WHERE state = 'queued' AND tenant = %s"


@dataclass(frozen=True, slots=True)
class Tenant:
    """What it is due and what its jobs are like: words of the question, a picture's width and height or none, tokens of
    the answer, from half to one and a half of which each job has its own, so that places become free one by one."""

    name: str
    weight: float
    words: int
    picture: tuple[int, int] | None
    answer_tokens: int

    def body(self, number: int) -> dict[str, Any]:
        content: list[dict[str, Any]] = [
            {"type": "text", "text": f"Number {number}: " + "what is red here? " * self.words}
        ]
        if self.picture is not None:
            url = data_url(picture(*self.picture))
            content.insert(0, {"type": "image_url", "image_url": {"url": url}})
        return {
            "model": MODEL,
            # Instead of the model's own, which is longer than all of the rest.
            "messages": [{"role": "system", "content": "."}, {"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": self.answer_tokens // 2 + 1 + number * 37 % self.answer_tokens,
            "ignore_eos": True,
        }


@dataclass(frozen=True, slots=True)
class Had:
    """Jobs that have ended, and tokens of prompts and answers of these and of those that run."""

    jobs: int = 0
    tokens: int = 0

    def since(self, before: "Had") -> "Had":
        return Had(self.jobs - before.jobs, self.tokens - before.tokens)


@dataclass(frozen=True, slots=True)
class Share:
    """Of the tokens that all tenants had together; `due` is what its weight says."""

    share: float
    due: float

    @property
    def deviation(self) -> float:
        return self.share / self.due - 1


def shares(tenants: Sequence[Tenant], had: Mapping[str, Had]) -> dict[str, Share]:
    """By tenant, in their order."""
    total, weights = max(1, sum(each.tokens for each in had.values())), sum(tenant.weight for tenant in tenants)
    return {tenant.name: Share(had[tenant.name].tokens / total, tenant.weight / weights) for tenant in tenants}


class Saturation:
    """Keeps AHEAD jobs of each tenant waiting while the context lasts. The system has a worker, and no keys yet."""

    def __init__(self, system: System, tenants: Sequence[Tenant]) -> None:
        self._system = system
        self._tenants = tenants
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(len(tenants))
        self._feeding: list[Future[None]] = []
        self._filled: set[str] = set()
        self._database = psycopg.connect(system.settings.database_url, autocommit=True)
        self.least_waiting: dict[str, int] = {}
        """The fewest jobs of each tenant that were seen waiting, after everybody's first ones."""

    def __enter__(self) -> Self:
        # Whatever starts with the first job of a kind must not hold back those of one tenant: processes for pictures.
        for tenant in self._tenants:
            self._system.wait(self._system.submit(tenant.body(0)))
        pool = connect.database(self._system.settings, pool_size=1)
        for tenant in self._tenants:
            connect.tenants(pool).set(tenant.name, tenant.weight)
            self._feeding.append(self._pool.submit(self._feed, tenant, self._system.key(tenant.name)))
        pool.close()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stop.set()
        self._pool.shutdown()
        self._database.close()

    def full(self) -> bool:
        """Whether everybody's first jobs wait. Raises what went wrong in sending them."""
        self._check()
        return len(self._filled) == len(self._tenants)

    def had(self) -> dict[str, Had]:
        """By tenant. Raises what went wrong in sending jobs."""
        self._check()
        rows = self._database.execute(_HAD, [[tenant.name for tenant in self._tenants]]).fetchall()
        return {tenant.name: Had() for tenant in self._tenants} | {name: Had(*counts) for name, *counts in rows}

    def _check(self) -> None:
        for feeding in self._feeding:
            if feeding.done():
                feeding.result()

    def _feed(self, tenant: Tenant, key: str) -> None:
        sent = 0
        head = {"authorization": f"Bearer {key}"}
        with (
            psycopg.connect(self._system.settings.database_url, autocommit=True) as database,
            httpx2.Client(base_url=self._system.url, headers=head, timeout=60) as client,
        ):
            while not self._stop.is_set():
                (waiting,) = database.execute(_WAITING, [tenant.name]).fetchone() or (0,)
                if len(self._filled) == len(self._tenants):
                    self.least_waiting[tenant.name] = min(waiting, self.least_waiting.get(tenant.name, AHEAD))
                for _ in range(AHEAD - waiting):
                    client.post("/v1/jobs", json=tenant.body(sent)).raise_for_status()
                    sent += 1
                self._filled.add(tenant.name)
                self._stop.wait(_LOOK_S)
