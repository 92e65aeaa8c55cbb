"""Builds the adapters of the ports from settings, in one place. Connections open with the first call, not here."""

from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.retry import Retry

from jobs.batch_store import PostgresBatchStore
from jobs.blobs import FolderBlobs, FsspecBlobs
from jobs.control import RedisControl
from jobs.counting import RedisCounting
from jobs.database import Database
from jobs.event_log import RedisEventLog
from jobs.file_store import PostgresFileStore
from jobs.idempotency import PostgresIdempotencyKeys
from jobs.keys import PostgresApiKeys
from jobs.limits import PostgresKeyUsage
from jobs.ports import Blobs
from jobs.queue import PRODUCER_SOCKET_TIMEOUT_S, CeleryQueue
from jobs.service_url import shown, warn_of_unchecked
from jobs.settings import ServiceSettings, SettingsError
from jobs.store import PostgresJobStore
from jobs.tenants import PostgresTenants


def database(settings: ServiceSettings, pool_size: int = 5) -> Database:
    """The pool that a process's store and keys share. Raises SettingsError when no database is named."""
    return Database(_database_url(settings), pool_size=pool_size)


def heartbeat_database(settings: ServiceSettings) -> Database:
    """A connection for what must happen several times in each lease: it waits for no lock and no server for longer than
    a third of one."""
    limit_s = settings.lease_s / 3
    return Database(_database_url(settings), pool_size=1, connect_timeout_s=limit_s, statement_timeout_s=limit_s)


def job_store(database: Database, patience_s: float = 0.0) -> PostgresJobStore:
    return PostgresJobStore(database, patience_s)


def api_keys(database: Database) -> PostgresApiKeys:
    return PostgresApiKeys(database)


def idempotency_keys(database: Database) -> PostgresIdempotencyKeys:
    return PostgresIdempotencyKeys(database)


def file_store(database: Database) -> PostgresFileStore:
    return PostgresFileStore(database)


def key_usage(database: Database) -> PostgresKeyUsage:
    return PostgresKeyUsage(database)


def tenants(database: Database) -> PostgresTenants:
    return PostgresTenants(database)


def batch_store(database: Database) -> PostgresBatchStore:
    return PostgresBatchStore(database)


def redis_client(settings: ServiceSettings, timeout_s: float = 3.0) -> redis.Redis:
    """A pool of connections, safe for threads. A connection that broke since its last use is replaced once; nothing
    else is repeated. Raises SettingsError when no Redis is named."""
    url = _redis_url(settings)
    retry = Retry(NoBackoff(), retries=1, supported_errors=(RedisConnectionError,))
    return redis.Redis.from_url(url, socket_timeout=timeout_s, socket_connect_timeout=timeout_s, retry=retry)


def event_log(settings: ServiceSettings, client: redis.Redis) -> RedisEventLog:
    return RedisEventLog(client, settings.redis_prefix, settings.stream_ttl_s)


def control(settings: ServiceSettings, client: redis.Redis) -> RedisControl:
    return RedisControl(client, settings.redis_prefix)


def counting(settings: ServiceSettings, client: redis.Redis) -> RedisCounting:
    return RedisCounting(client, settings.redis_prefix)


def queue(settings: ServiceSettings) -> CeleryQueue:
    """Raises SettingsError when no Redis is named."""
    return CeleryQueue(settings, redis_client(settings, PRODUCER_SOCKET_TIMEOUT_S))


def blobs(settings: ServiceSettings) -> Blobs:
    """A folder (a path or file:// URL), or anything that fsspec knows. Raises SettingsError."""
    scheme, separator, path = settings.blob_url.partition("://")
    if not separator:
        return FolderBlobs(Path(settings.blob_url))
    if scheme == "file":
        return FolderBlobs(Path(path))
    try:
        return FsspecBlobs(settings.blob_url)
    except (ValueError, ImportError) as exc:
        raise SettingsError(f"blob_url (environment VLMQ_BLOB_URL) = {shown(settings.blob_url)!r}: {exc}") from None


def _database_url(settings: ServiceSettings) -> str:
    if not settings.database_url:
        raise SettingsError("database_url (environment VLMQ_DATABASE_URL) is not set: a postgresql:// URL is required")
    return settings.database_url


def _redis_url(settings: ServiceSettings) -> str:
    if not settings.redis_url:
        raise SettingsError(
            "redis_url (environment VLMQ_REDIS_URL) is not set: a redis://, rediss:// or unix:// URL is required"
        )
    warn_of_unchecked(settings.redis_url)
    return settings.redis_url
