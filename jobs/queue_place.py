"""Where a waiting job stands under fair shares: an estimate of the jobs and tokens that are served before it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from jobs.job import Priority


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


@dataclass(frozen=True, slots=True)
class Line:
    """All that one tenant has waiting in one lane of a model. `alone`: so many of these jobs, of so many tokens, belong
    to no batch."""

    model: str
    priority: Priority
    waiting: Waiting
    alone: int = 0
    alone_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Lines:
    """All that waits, as it was at one moment. `until_free`: of each model that has running jobs, see QueuePlace.
    `weights`: of the tenants whose weight is not 1."""

    lines: Sequence[Line] = ()
    until_free: Mapping[str, int] = field(default_factory=dict)
    weights: Mapping[str, float] = field(default_factory=dict)

    def plus(self, model: str, priority: Priority, tenant: str, tokens: int, jobs: int = 1) -> "Lines":
        """With so many jobs more, or fewer, of no batch; `tokens` are those of all of them."""
        rest, line = self._split(model, priority, tenant)
        there = line.waiting
        waiting = replace(there, jobs=max(0, there.jobs + jobs), tokens=max(0, there.tokens + tokens))
        alone, alone_tokens = max(0, line.alone + jobs), max(0, line.alone_tokens + tokens)
        return replace(self, lines=[*rest, replace(line, waiting=waiting, alone=alone, alone_tokens=alone_tokens)])

    def place_of_last(self, model: str, priority: Priority, tenant: str, tokens: int) -> QueuePlace:
        """Where the last job of a tenant's line stands, whose own tokens these are."""
        _, line = self._split(model, priority, tenant)
        ahead = replace(line.waiting, jobs=max(0, line.waiting.jobs - 1), tokens=max(0, line.waiting.tokens - tokens))
        return self._place_behind(model, priority, ahead)

    def place_of_first(self, model: str, tenant: str) -> QueuePlace | None:
        """Where the first of all that a tenant has waiting stands; None when nothing waits."""
        own = [
            line for line in self.lines if (line.model, line.waiting.tenant) == (model, tenant) and line.waiting.jobs
        ]
        if not own:
            return None
        first = min(own, key=lambda line: line.priority)
        return self._place_behind(model, first.priority, replace(first.waiting, jobs=0, tokens=0))

    def _place_behind(self, model: str, priority: Priority, ahead: Waiting) -> QueuePlace:
        """Behind those of its own tenant's jobs that are `ahead` of it in its lane."""
        rest, _ = self._split(model, priority, ahead.tenant)
        here = [other for other in rest if other.model == model]
        higher = [other.waiting for other in here if other.priority < priority]
        return place_of(
            ahead,
            [other.waiting for other in here if other.priority == priority],
            QueuePlace(
                sum(each.jobs for each in higher), sum(each.tokens for each in higher), self.until_free.get(model, 0)
            ),
        )

    def _split(self, model: str, priority: Priority, tenant: str) -> tuple[list[Line], Line]:
        """All other lines, and this one. Who has nothing waiting enters with the least counter of those who have."""
        rest: list[Line] = []
        mine: Line | None = None
        for line in self.lines:
            if (line.model, line.priority, line.waiting.tenant) == (model, priority, tenant):
                mine = line
            else:
                rest.append(line)
        lane = [line.waiting.virtual for line in rest if (line.model, line.priority) == (model, priority)]
        entering = Waiting(tenant, 0, 0, min(lane, default=0.0), self.weights.get(tenant, 1.0))
        return rest, mine or Line(model, priority, entering)


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
