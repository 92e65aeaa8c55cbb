"""The tables of PostgreSQL. Migrations make them; a test holds that both agree.

Requests, tokens and engine statistics are JSON text, not JSONB: they are only carried, and a text may hold U+0000,
which JSONB refuses.
"""

from jobs.tables.batch import batch_refusals, batches
from jobs.tables.file import files
from jobs.tables.fleet import leaders, workers
from jobs.tables.job import DEAD, job_attempts, job_blobs, job_tokens, jobs
from jobs.tables.key import api_keys, idempotency_keys, key_corrections, key_usage
from jobs.tables.metadata import metadata
from jobs.tables.share import queue_shares, tenants
from jobs.tables.webhook import webhook_attempts, webhook_deliveries, webhook_endpoints, webhook_secrets

__all__ = [
    "DEAD",
    "api_keys",
    "batch_refusals",
    "batches",
    "files",
    "idempotency_keys",
    "job_attempts",
    "job_blobs",
    "job_tokens",
    "jobs",
    "key_corrections",
    "key_usage",
    "leaders",
    "metadata",
    "queue_shares",
    "tenants",
    "webhook_attempts",
    "webhook_deliveries",
    "webhook_endpoints",
    "webhook_secrets",
    "workers",
]
