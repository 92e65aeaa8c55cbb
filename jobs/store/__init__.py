"""The store of jobs on PostgreSQL, a noun per file."""

from jobs.store.store import PostgresJobStore

__all__ = ["PostgresJobStore"]
