"""How much waits and runs, and where in the queue a job stands."""

from jobs.job import Job, JobState
from jobs.ports import Depth
from jobs.queue_place import Line, Lines, QueuePlace, place_of
from tests.fakes.store.rows import Rows
from tests.fakes.store.shares import Lane, Shares, lane_of


def queue_place(rows: Rows, shares: Shares, job: Job) -> QueuePlace | None:
    waiting = [other for other in rows.queue(job.model) if other.priority <= job.priority]
    if job.id not in {other.id for other in waiting}:
        return None
    lane = [other for other in waiting if other.priority == job.priority]
    higher = [other for other in waiting if other.priority < job.priority]
    own = [o for o in lane if o.tenant == job.tenant and rows.number[o.id] < rows.number[job.id]]
    others = sorted({other.tenant for other in lane} - {job.tenant})
    return place_of(
        shares.waiting(job, job.tenant, own),
        [shares.waiting(job, name, [o for o in lane if o.tenant == name]) for name in others],
        QueuePlace(len(higher), sum(other.cost for other in higher), _until_free(rows, job.model)),
    )


def lines(rows: Rows, shares: Shares) -> Lines:
    lanes: dict[Lane, list[Job]] = {}
    for job in rows.jobs.values():
        if job.state == JobState.QUEUED:
            lanes.setdefault(lane_of(job), []).append(job)
    running = {job.model for job in rows.jobs.values() if job.state == JobState.IN_PROGRESS}
    return Lines(
        [_line(shares, some) for some in lanes.values()],
        {model: _until_free(rows, model) for model in running},
        {tenant: weight for tenant, weight in shares.weights.items() if weight != 1},
    )


def depths(rows: Rows) -> list[Depth]:
    lanes: dict[tuple[str, int, JobState], list[Job]] = {}
    for job in rows.jobs.values():
        if not job.state.terminal:
            lanes.setdefault((job.model, job.priority, job.state), []).append(job)
    return [
        Depth(
            *(model, some[0].priority, state, len(some)),
            sum(job.origin.batch is not None for job in some),
            sum(job.cost for job in some),
            min(job.timeline.queued_at for job in some),
        )
        for (model, _, state), some in sorted(lanes.items())
    ]


def _line(shares: Shares, some: list[Job]) -> Line:
    job, alone = some[0], [job.cost for job in some if job.origin.batch is None]
    return Line(job.model, job.priority, shares.waiting(job, job.tenant, some), len(alone), sum(alone))


def _until_free(rows: Rows, model: str) -> int:
    running = [j.cost for j in rows.jobs.values() if j.model == model and j.state == JobState.IN_PROGRESS]
    return round(sum(running) / len(running)) if running else 0
