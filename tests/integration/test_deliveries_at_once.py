"""Many deliverers at one moment: how many tries go to one receiver, and that its silence is nobody else's."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from jobs.database import Database
from jobs.job import Origin, Webhook
from jobs.store import PostgresJobStore
from jobs.webhooks.destination import Destinations
from jobs.webhooks.errands import PostgresErrands
from jobs.webhooks.sender import Sender
from jobs.webhooks.settings import WebhookSettings
from tests.fixtures.eventually import eventually
from tests.fixtures.jobs import new_job
from tests.fixtures.receiver import Receiver, receiving, silent_until
from worker.deliveries.courier import Courier

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

THREADS = 12


class UnderWay:
    """Answers 200, and knows how many it answered at once at the most."""

    def __init__(self) -> None:
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def answer(self, handler: Any) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        time.sleep(0.003)
        with self._lock:
            self._now -= 1
        handler.say(200)


@contextmanager
def deliverer(database_url: str, per_target: int, *receivers: Receiver) -> Iterator[tuple[PostgresErrands, Courier]]:
    database = Database(database_url, pool_size=THREADS)
    allowed = tuple(receiver.place for receiver in receivers)
    settings = WebhookSettings(allowed_hosts=allowed, per_target=per_target, timeout_s=60.0, lease_s=300.0)
    errands = PostgresErrands(database, settings)
    try:
        yield errands, Courier(errands, Sender(Destinations.of(settings), settings.timeout_s))
    finally:
        database.close()


def end_jobs(database_url: str, count: int, *urls: str) -> None:
    database = Database(database_url)
    store = PostgresJobStore(database)
    for _ in range(count):
        for url in urls:
            job_id = store.insert(new_job(origin=Origin(webhook=Webhook(url)))).id
            store.cancel(job_id)
    database.close()


def all_claims(errands: PostgresErrands) -> Iterator[str]:
    """Where each goes."""
    while (errand := errands.claim()) is not None:
        yield errand.url


def at_once(work: Callable[[], object]) -> list[threading.Thread]:
    start = threading.Barrier(THREADS)

    def run() -> None:
        start.wait()
        work()

    threads = [threading.Thread(target=run) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    return threads


def test_claims_of_the_same_moment_never_exceed_what_one_receiver_may_have_under_way(database_url: str) -> None:
    urls = ("https://one.example/hook", "https://two.example/hook")
    end_jobs(database_url, 8, *urls)
    with deliverer(database_url, 3) as (errands, _):
        for _ in range(40):
            claimed: list[str] = []
            for thread in at_once(lambda into=claimed: into.extend(all_claims(errands))):
                thread.join()
            assert Counter(claimed) == dict.fromkeys(urls, 3)
            assert errands.waiting(100) == []
            with psycopg.connect(database_url) as connection:
                connection.execute("UPDATE webhook_deliveries SET leased_until = NULL")


def test_receivers_get_everything_and_never_more_at_once_than_they_may(database_url: str) -> None:
    with receiving() as one, receiving() as two, deliverer(database_url, 2, one, two) as (_, courier):
        counts = {one: UnderWay(), two: UnderWay()}
        for receiver, count in counts.items():
            receiver.otherwise = count.answer
        end_jobs(database_url, 60, one.url, two.url)
        for thread in at_once(courier.answer):
            thread.join()
        courier.answer()
        for receiver, count in counts.items():
            assert len(receiver.received) == len(set(receiver.ids())) == 60
            assert count.most <= 2


def test_silent_receiver_keeps_its_tries_and_no_others(database_url: str) -> None:
    told = threading.Event()
    with receiving() as silent, receiving() as other, deliverer(database_url, 2, silent, other) as (errands, courier):
        silent.otherwise = silent_until(told)
        end_jobs(database_url, 30, silent.url, other.url)
        threads = at_once(courier.answer)
        try:
            eventually("all of the other's have arrived", lambda: len(other.received) == 30)
            assert len(silent.received) == 2 and errands.waiting(100) == []
        finally:
            told.set()
            for thread in threads:
                thread.join()
        courier.answer()
        assert len(set(silent.ids())) == 30
