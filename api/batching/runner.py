"""What a batch does next, by its state: one bounded step at a time, so that batches take turns and a kill loses at
most a step. Every step can be repeated."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from api.batching.intake import LineIntake
from api.batching.lines import raw_lines, read_line
from api.batching.output import NotOver, write
from api.batching.pace import Pace
from api.batching.validation import Limits, Validation
from api.settling import Settling
from jobs.batch_store import PostgresBatchStore
from jobs.batches import Batch, BatchStatus, LineFault, Place, Refusal
from jobs.errors import BlobNotFound
from jobs.job import NewJob
from jobs.ports import Blobs

log = logging.getLogger(__name__)

LINES_PER_STEP = 200
BYTES_PER_STEP = 16 * 2**20
UNTOUCHED_PER_STEP = 5000
LEFT_PER_STEP = 100

INPUT_LOST = LineFault("input_file_lost", "The bytes of the input file are not there any more.")


@dataclass(frozen=True, slots=True)
class BatchRunner:
    store: PostgresBatchStore
    blobs: Blobs
    intake: LineIntake
    settling: Settling
    pace: Pace
    limits: Limits
    spool_folder: str
    stopping: Callable[[], bool] = lambda: False

    def step(self, batch: Batch) -> bool:
        """Whether there is more to do at once; False: it waits for workers. Raises Unavailable, Stopped."""
        try:
            return self._step(batch)
        except BlobNotFound:
            log.error("the input of %s is lost", batch.id, extra={"action": "batch.lost", "batch_id": batch.id})
            if self._stop_jobs(batch):
                return True
            self.store.fail(batch, [INPUT_LOST])
            return False

    def _step(self, batch: Batch) -> bool:
        match batch.status:
            case BatchStatus.VALIDATING:
                return self._validate(batch)
            case BatchStatus.IN_PROGRESS if batch.overdue:
                return self._stop_jobs(batch) or self._finalize(batch)
            case BatchStatus.IN_PROGRESS if batch.taken < batch.counts.total:
                return self._take(batch)
            case BatchStatus.IN_PROGRESS:
                return not self.store.left(batch.id, 1) and self._finalize(batch)
            case BatchStatus.FINALIZING:
                return self._end(batch)
            case BatchStatus.CANCELLING:
                return self._stop_jobs(batch) or self._end(batch)
            case _:
                return False

    def _validate(self, batch: Batch) -> bool:
        with self.blobs.open(batch.digest) as file:
            validation = Validation(batch.endpoint, self.intake.submission.models, self.limits)
            found = validation.run(file, self.stopping)
        if found.faults:
            self.store.fail(batch, found.faults)
            _tell("failed", batch, f": {found.faults[0].message}")
            return False
        self.store.begin(batch.id, found.model, found.lines)
        _tell("in progress", batch, f": {found.lines} requests")
        return True

    def _take(self, batch: Batch) -> bool:
        if self.pace.waits(batch):
            return False
        made: list[NewJob | Refusal] = []
        places = [Place(batch.next_line, batch.next_byte, batch.taken)]
        with self.blobs.open(batch.digest) as file:
            rest = raw_lines(file, batch.next_line, batch.next_byte, self.limits.max_line_bytes)
            for raw in islice(rest, LINES_PER_STEP):
                made.append(self.intake.take(batch, read_line(raw, batch.endpoint)))
                places.append(Place(raw.number + 1, raw.end, batch.taken + len(made)))
                if raw.end - batch.next_byte >= BYTES_PER_STEP:
                    break
        let = self.pace.let(batch, [one.cost if isinstance(one, NewJob) else 0 for one in made])
        jobs = [one for one in made[:let] if isinstance(one, NewJob)]
        refusals = [one for one in made[:let] if isinstance(one, Refusal)]
        self.store.take(batch, jobs, refusals, places[let])
        return let == len(made)

    def _stop_jobs(self, batch: Batch) -> bool:
        """Whether some were left to stop."""
        if self.store.cancel_untouched(batch.id, UNTOUCHED_PER_STEP):
            return True
        left = self.store.left(batch.id, LEFT_PER_STEP)
        for job_id in left:
            self.settling.cancel(job_id)
        return bool(left)

    def _finalize(self, batch: Batch) -> bool:
        self.store.finalize(batch.id)
        return True

    def _end(self, batch: Batch) -> bool:
        if batch.model is None:
            # Cancelled before its file was looked at: there is nothing to write.
            self.store.end(batch, BatchStatus.CANCELLED, batch.counts, None, None, None)
            return False
        try:
            written = write(batch, self.store, self.blobs, self.spool_folder, self.limits.max_line_bytes)
        except NotOver:
            return False
        ended = BatchStatus.EXPIRED if written.expired else BatchStatus.COMPLETED
        status = BatchStatus.CANCELLED if batch.status is BatchStatus.CANCELLING else ended
        self.store.end(batch, status, written.counts, written.usage, written.output, written.errors)
        _tell(status.value, batch, f": {written.counts}")
        return False


def _tell(what: str, batch: Batch, more: str) -> None:
    log.info("%s is %s%s", batch.id, what, more, extra={"action": "batch", "batch_id": batch.id})
