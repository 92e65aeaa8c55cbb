"""The events of a response's stream: a function of the job's log, so that every reader and every replay has the same
events under the same sequence numbers (docs/adr/0011).

    queued         response.created, response.queued
    in_progress    response.in_progress
    delta          what the token does to the output: items and parts that begin, grow and are done
    ended          what closes the open item; then response.completed, response.incomplete or response.failed

There is no event for a cancelled response in the clients' union, and they read on until one of these three: such a
stream ends with response.incomplete, whose response has the status "cancelled".
"""

from collections.abc import Iterator

from api.responses.object import response_object, response_then
from api.responses.output import Output, Shown
from jobs.events import Delta, Ended, Event, Queued, Started
from jobs.job import Job, JobState

_LAST: dict[JobState, str] = {
    JobState.COMPLETED: "response.completed",
    JobState.FAILED: "response.failed",
    JobState.INCOMPLETE: "response.incomplete",
    JobState.CANCELLED: "response.incomplete",
}


class ResponseEvents:
    """State of one reading from the log's beginning."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._output = Output(job)
        self.next_number = 0

    def of(self, event: Event, ended: Job | None = None) -> list[Shown]:
        """What the log's next event is to the stream. `ended` is the row that the last one shows."""
        return [self._numbered(shown) for shown in self._of(event, ended)]

    def _of(self, event: Event, ended: Job | None) -> Iterator[Shown]:
        match event:
            case Queued():
                yield self._then("response.created", JobState.QUEUED)
                yield self._then("response.queued", JobState.QUEUED)
            case Started():
                yield self._then("response.in_progress", JobState.IN_PROGRESS)
            case Delta(token):
                yield from self._output.token(token)
            case Ended(state):
                yield from self._output.end(state)
                yield {"type": _LAST[state], "response": response_object(ended or self._job)}

    def _then(self, kind: str, state: JobState) -> Shown:
        return {"type": kind, "response": response_then(self._job, state)}

    def _numbered(self, shown: Shown) -> Shown:
        number = self.next_number
        self.next_number += 1
        return {"type": shown["type"], "sequence_number": number, **shown}
