"""The delivering process with the maintenance process that rings for it, over real services, killed in mid-try."""

from pathlib import Path

import psycopg
import pytest

from jobs import connect
from jobs.job import Origin, Webhook
from jobs.settings import ServiceSettings
from tests.acceptance.system import eventually, system
from tests.fixtures.jobs import new_job
from tests.fixtures.receiver import receiving, silence

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


def test_killed_deliverers_try_is_made_by_the_next_with_the_same_id(
    service_settings: ServiceSettings, tmp_path: Path
) -> None:
    with (
        receiving() as receiver,
        system(
            service_settings,
            tmp_path,
            VLMQ_WEBHOOKS_ALLOWED_HOSTS=receiver.place,
            VLMQ_WEBHOOKS_TIMEOUT_S="30",
            VLMQ_WEBHOOKS_LEASE_S="60",
            VLMQ_MAINTENANCE_SWEEP_S="0.1",
        ) as running,
    ):
        database = connect.database(service_settings, pool_size=1)
        store = connect.job_store(database)

        def end() -> str:
            job_id = store.insert(new_job(origin=Origin(webhook=Webhook(receiver.url)))).id
            store.cancel(job_id)
            return job_id

        receiver.script = [silence(20.0)]
        first = end()
        deliverer = running.start_deliveries()
        running.start_maintenance()
        eventually("the first try", lambda: len(receiver.received) == 1)
        deliverer.kill()
        second = end()
        with psycopg.connect(service_settings.database_url) as connection:
            connection.execute("UPDATE webhook_deliveries SET leased_until = now() WHERE leased_until IS NOT NULL")
        successor = running.start_deliveries()
        eventually("both have arrived", lambda: len(receiver.received) == 3)
        told = [(one.id, one.event["data"]["id"]) for one in receiver.received]
        assert {subject for _, subject in told} == {first, second} and len(set(told)) == 2
        assert successor.terminate() == 0
        database.close()
