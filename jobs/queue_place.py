"""Where a waiting job stands under fair shares: an estimate of the jobs and tokens that are served before it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QueuePlace:
    """What goes before a job: so many jobs, estimated to cost so many tokens; and `until_free`, how many tokens are
    served until one of the jobs that run has ended."""

    jobs: int
    tokens: int
    until_free: int = 0


@dataclass(frozen=True, slots=True)
class Waiting:
    """What a tenant has waiting in one lane, its counter there (tokens by weight) and its weight."""

    tenant: str
    jobs: int
    tokens: int
    virtual: float
    weight: float


def place_of(mine: Waiting, others: Sequence[Waiting], higher: QueuePlace) -> QueuePlace:
    """`mine` counts the tenant's own jobs ahead of the one in question, `others` all that other tenants have in its
    lane, `higher` what goes before all of these. Each other tenant is served until its counter has reached the value
    that the job's own tenant will have when its turn comes."""
    jobs, tokens = higher.jobs + mine.jobs, higher.tokens + mine.tokens
    turn = mine.virtual + mine.tokens / mine.weight
    for other in others:
        served = _served(other, turn, wins_ties=other.tenant < mine.tenant)
        jobs += served
        tokens += served * other.tokens // max(other.jobs, 1)
    return QueuePlace(jobs, tokens, higher.until_free)


def _served(other: Waiting, turn: float, wins_ties: bool) -> int:
    """How many of its jobs, each taken to be of average cost, begin before `turn`."""
    if other.jobs == 0 or other.virtual > turn:
        return 0
    rounds = (turn - other.virtual) * other.weight / max(other.tokens / other.jobs, 1.0)
    return min(other.jobs, math.floor(rounds) + 1 if wins_ties else math.ceil(rounds))
