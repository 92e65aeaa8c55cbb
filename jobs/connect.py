"""Builds the adapters of the ports from settings, in one place. Connections open with the first call, not here."""

from jobs.database import Database
from jobs.settings import ServiceSettings, SettingsError
from jobs.store import PostgresJobStore


def database(settings: ServiceSettings, pool_size: int = 5) -> Database:
    """Raises SettingsError when no database is named."""
    if not settings.database_url:
        raise SettingsError("database_url (environment VLMQ_DATABASE_URL) is not set: a postgresql:// URL is required")
    return Database(settings.database_url, pool_size=pool_size)


def job_store(settings: ServiceSettings, pool_size: int = 5, patience_s: float = 0.0) -> PostgresJobStore:
    """With a pool of its own; build it from `database` where other adapters share the pool."""
    return PostgresJobStore(database(settings, pool_size), patience_s)
