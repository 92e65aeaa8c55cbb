"""Brings a database to the newest schema: `python -m jobs.schema`. Safe when several processes do it at once."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy import text

from jobs.database import engine, errors_as_ours
from jobs.settings import ServiceSettings, SettingsError, load

MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
LOCK = 0x766C6D71
"""The advisory lock of whoever migrates ("vlmq" in ASCII)."""


def migrate(database_url: str) -> None:
    """Runs the migrations that are missing, all in one transaction. Raises StoreUnavailable."""
    # Statements of a migration may take as long as they need; so may waiting for another process's.
    connections = engine(database_url, pool_size=1, connect_timeout_s=10.0, statement_timeout_s=0.0)
    try:
        whole = connections.execution_options(isolation_level="READ COMMITTED")
        with errors_as_ours(), whole.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            config = Config()
            config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    finally:
        connections.dispose()


def main() -> None:
    settings = load(ServiceSettings)
    if not settings.database_url:
        raise SettingsError("database_url (environment VLMQ_DATABASE_URL) is not set")
    migrate(settings.database_url)


if __name__ == "__main__":
    main()
