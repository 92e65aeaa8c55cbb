"""The transition table: which state may follow which. Every state change of a job passes here."""

from jobs.errors import IllegalTransition
from jobs.job import JobState

ALLOWED: dict[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.IN_PROGRESS, JobState.FAILED, JobState.CANCELLED}),
    JobState.IN_PROGRESS: frozenset(
        {JobState.QUEUED, JobState.COMPLETED, JobState.INCOMPLETE, JobState.FAILED, JobState.CANCELLED}
    ),
    JobState.COMPLETED: frozenset(),
    JobState.INCOMPLETE: frozenset(),
    # A dead letter may be given back by its owner; nothing else leaves a terminal state.
    JobState.FAILED: frozenset({JobState.QUEUED}),
    JobState.CANCELLED: frozenset(),
}


def sources_of(target: JobState) -> frozenset[JobState]:
    """The states from which `target` may be reached."""
    return frozenset(source for source, targets in ALLOWED.items() if target in targets)


def check(source: JobState, target: JobState) -> None:
    """Raises IllegalTransition when the table has no arrow from `source` to `target`."""
    if target not in ALLOWED[source]:
        raise IllegalTransition(source, target)
