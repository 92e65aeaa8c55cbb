"""What is stamped by a clock that was set back afterwards holds nothing up for as long as it was set back."""

import psycopg
import pytest

from jobs.database import Database
from jobs.limits import KeyLimits, PostgresKeyUsage

pytestmark = pytest.mark.integration


def test_what_a_key_has_used_comes_back_after_the_clock_was_set_back(database_url: str) -> None:
    database = Database(database_url)
    usage, limits = PostgresKeyUsage(database), KeyLimits(requests_per_minute=10, tokens_per_minute=100)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("INSERT INTO key_usage VALUES ('key_1', 10, 100, now() + interval '30 seconds')")
        assert usage.spent("key_1", limits).tokens == pytest.approx(100, abs=1)
        connection.execute("UPDATE key_usage SET charged_at = now() + interval '1 hour'")
        assert (usage.spent("key_1", limits).requests, usage.spent("key_1", limits).tokens) == (0, 0)
    database.close()
