"""Webhooks: which ends of jobs and batches are told to whom, and the record of every telling.

A delivery is a row that is written in the transaction of what it tells. Others send it (worker.deliveries); nothing
here needs the broker.
"""

from jobs.webhooks.outbox import add_batch_event

__all__ = ["add_batch_event"]
