"""The use case of the worker: claim, prepare, generate, publish, finish.

The one place that decides what becomes of a job, whatever happens to it here.
"""

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from jobs.errors import StaleAttempt, StoreUnavailable
from jobs.events import log_of, tokens_of
from jobs.job import AttemptEnd, Job, Outcome, Priority, Token
from jobs.ports import JobStore, Queue
from jobs.request import ChatRequest
from worker.answer import Answer
from worker.company import Company
from worker.detokenizer import Detokenizers
from worker.engine.generation import Generation
from worker.engine_process import Sink
from worker.errors import MediaUnavailable, RequestRefused, RowUnreadable, Stopped
from worker.generation_of import generation_of, stop_ids_of
from worker.live_job import ChoiceSink, Ending, EndKind, LiveJob, LiveJobs
from worker.places import Places
from worker.prepare import Prepared, Preparer
from worker.publisher import Publisher
from worker.transcript import Transcript
from worker.verdict import Drop, GiveBack, Verdict, failed, name_of, verdict_of

log = logging.getLogger(__name__)

T = TypeVar("T")

_LOOK_EVERY_S = 0.2
_EXPRESS_EVERY_S = 0.1
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 5.0


class GenerationRunner(Protocol):
    """The half of EngineProcess that a job needs."""

    def submit(self, generation: Generation, sink: Sink) -> None: ...

    def cancel(self, generation_id: str) -> None: ...

    def wait_until_serving(self, timeout_s: float) -> bool: ...


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this worker is, and how its model's answers are read."""

    worker: str
    model: str
    detokenizers: Detokenizers
    stop_ids: tuple[int, ...]


class JobRunner:
    """Thread-safe: each Celery thread runs one job at a time through it."""

    def __init__(
        self,
        identity: Identity,
        store: JobStore,
        queue: Queue,
        engine: GenerationRunner,
        preparer: Preparer,
        publisher: Publisher,
        live_jobs: LiveJobs,
        places: Places,
        media_backoff_s: float,
    ) -> None:
        self._me = identity
        self._store = store
        self._queue = queue
        self._engine = engine
        self._preparer = preparer
        self._publisher = publisher
        self._live_jobs = live_jobs
        self._places = places
        self._media_backoff_s = media_backoff_s
        self._draining = threading.Event()
        self._grace_over = threading.Event()
        self._abandon = threading.Event()
        self._company = Company()

    def answer(self, bell: str) -> None:
        """One bell, at most one job: the next one, whichever the bell named. While all places are taken the bell is
        kept, for the next place or for a job that somebody waits for, whichever comes first."""
        while self._claims():
            placed = self._places.take()
            try:
                job = self._store.claim(
                    self._me.model, self._me.worker, Priority.BATCH if placed else Priority.INTERACTIVE
                )
            except StoreUnavailable as exc:
                # The job is still queued; the sweeper rings for it again.
                log.warning("no claim: %s", exc, extra={"action": "claim_failed", "job_id": bell})
                return
            else:
                if job is not None:
                    self.run(job)
            finally:
                if placed:
                    self._places.leave()
            if placed or job is not None:
                return
            self._places.wait(_EXPRESS_EVERY_S)
        self._queue.ring(self._me.model, bell)

    def _claims(self) -> bool:
        """Waits for the engine: a job claimed while it is being replaced would only wait here instead of running
        elsewhere. False: this worker claims nothing more."""
        while not self._draining.is_set() and not self._engine.wait_until_serving(_LOOK_EVERY_S):
            pass
        return not self._draining.is_set()

    def run(self, job: Job) -> None:
        """Runs a claimed job until its attempt is closed."""
        started = time.monotonic()
        live = LiveJob(job, self._on_tokens)
        with self._live_jobs.holding(live):
            if self._grace_over.is_set():
                live.end(Ending(EndKind.DRAINED))
            verdict = self._verdict(live)
            try:
                self._close(live, verdict)
            except StoreUnavailable:
                raise
            except Exception as exc:
                log.exception("end not written", extra={"action": "end_not_written", "job_id": live.id})
                self._lose(live, exc)
        log.info(
            "%s attempt %d: %s, %d tokens, %.3f s",
            *(job.id, job.attempt, name_of(verdict), len(live.tokens), time.monotonic() - started),
            extra={"action": "attempt_closed", "job_id": job.id, "worker": self._me.worker},
        )

    def stop_claiming(self) -> None:
        """From now on bells are passed on."""
        self._draining.set()

    def give_all_back(self) -> None:
        """The grace is over: what still runs goes back with what it has."""
        self._draining.set()
        self._grace_over.set()
        for live in self._live_jobs.all():
            live.end(Ending(EndKind.DRAINED))

    def end_after(self, grace_s: float, last_words_s: float) -> None:
        """What still runs when the grace is over goes back; what then cannot be written is left to the lease. Both
        come also when nothing runs now: the answer to a claim may be on its way."""
        self._grace_over.wait(grace_s)
        self.give_all_back()
        self._abandon.wait(last_words_s)
        self.abandon()

    def abandon(self) -> None:
        """Stops waiting for a database that does not come back; the lease will expire."""
        self._abandon.set()

    def _verdict(self, live: LiveJob) -> Verdict:
        try:
            return self._attempt(live)
        except StaleAttempt:
            return Drop()
        except Stopped:
            return verdict_of(live.ending.result(), live, None)
        except RequestRefused as exc:
            return failed(exc.code, str(exc), exc.param, live.tokens)
        except MediaUnavailable as exc:
            return self._without_media(live, exc)
        except Exception as exc:
            log.exception("attempt broke", extra={"action": "attempt_broke", "job_id": live.id})
            return GiveBack(AttemptEnd.WORKER_ERROR, f"{type(exc).__name__}: {exc}")

    def _attempt(self, live: LiveJob) -> Verdict:
        job = live.job
        self._watch_deadline(live)
        stale = Ending(EndKind.NOT_OURS)
        events = self._publisher.open(job.id, job.attempt, log_of(job), lambda: live.end(stale))
        live.resume(tokens_of(events))
        if job.unreadable is not None:
            raise RowUnreadable(job.id, job.unreadable)
        prepared = self._preparer.prepare(job.request, live.ending)
        answer = self._answer(job.request, prepared)
        answer.replay(live.tokens)
        live.write_to(answer)
        with self._company.keeping(live.job, live.ending.done):
            return verdict_of(self._generate(live, prepared, answer), live, prepared)

    def _answer(self, request: ChatRequest, prepared: Prepared) -> Answer:
        stop_ids = stop_ids_of(request, self._me.stop_ids)
        return Answer(
            [
                Transcript(
                    *(self._me.detokenizers, request.stop, stop_ids),
                    max_tokens=prepared.room,
                    min_tokens=request.min_tokens,
                    choice=choice,
                    marks=() if request.tools is None else request.tools.shown,
                )
                for choice in range(request.n)
            ]
        )

    def _generate(self, live: LiveJob, prepared: Prepared, answer: Answer) -> Ending:
        if live.ending.done():
            return live.ending.result()
        # Of those that go on: the engine draws again, from the same seeds, what had not had its turn.
        choices = [choice for choice, reason in enumerate(answer.finish_reasons) if reason is None]
        generations = [generation_of(live, prepared, answer.ids_of(c), self._me.stop_ids, c) for c in choices]
        live.prepared()
        try:
            for choice, generation in zip(choices, generations, strict=True):
                self._engine.submit(generation, ChoiceSink(live, choice, partial(self._engine.cancel, generation.id)))
            return live.ending.result(live.seconds_left())
        except TimeoutError:
            live.end(Ending(EndKind.DEADLINE))
            return live.ending.result()
        finally:
            for generation in generations:
                self._engine.cancel(generation.id)

    def _watch_deadline(self, live: LiveJob) -> None:
        """By the database's clock: the attempt has just begun there."""
        if live.job.deadline is None:
            return
        try:
            begun = self._store.attempts(live.id)[live.attempt - 1].started_at
        except StoreUnavailable as exc:
            # The sweeper watches deadlines too, when the database is back.
            log.warning("deadline not known: %s", exc, extra={"action": "deadline_unknown", "job_id": live.id})
            return
        live.expires_at = time.monotonic() + (live.job.deadline - begun).total_seconds()

    def _on_tokens(self, live: LiveJob, tokens: list[Token]) -> None:
        self._publisher.add(live.id, live.attempt, tokens)

    def _without_media(self, live: LiveJob, exc: MediaUnavailable) -> Verdict:
        """The last attempt says what was wrong; an earlier one gives the host a moment and the job another try."""
        job = live.job
        if job.losses + 1 >= job.max_attempts:
            return failed(exc.code, str(exc), "messages", live.tokens)
        wait({live.ending}, self._media_backoff_s * 2**job.losses)
        if live.ending.done():
            return verdict_of(live.ending.result(), live, None)
        return GiveBack(AttemptEnd.MEDIA_UNAVAILABLE, str(exc))

    def _close(self, live: LiveJob, verdict: Verdict) -> None:
        """Row first, then the log."""
        try:
            match verdict:
                case Outcome():
                    job = self._stubbornly(lambda: self._store.finish(live.id, live.attempt, verdict))
                    self._publisher.end(live.id, live.attempt, job.state)
                case GiveBack(end, detail):
                    job = self._stubbornly(
                        lambda: self._store.give_back(live.id, live.attempt, end, detail, live.tokens)
                    )
                    self._gave_back(live, job)
                case Drop():
                    self._publisher.forget(live.id, live.attempt)
        except StaleAttempt:
            self._publisher.forget(live.id, live.attempt)

    def _lose(self, live: LiveJob, exc: Exception) -> None:
        """For an end that the database will not take, however often it is asked: a loss, without any of what was to be
        written, so that the job is quarantined instead of being run for ever."""
        detail = f"its end could not be written: {type(exc).__name__}: {str(exc)[:500]!a}"
        try:
            end = AttemptEnd.WORKER_ERROR
            job = self._stubbornly(lambda: self._store.give_back(live.id, live.attempt, end, detail, ()))
        except StaleAttempt:
            self._publisher.forget(live.id, live.attempt)
        else:
            self._gave_back(live, job)

    def _gave_back(self, live: LiveJob, job: Job) -> None:
        if job.state.terminal:
            self._publisher.end(live.id, live.attempt, job.state)
            return
        self._publisher.forget(live.id, live.attempt)
        self._queue.ring(self._me.model, live.id)

    def _stubbornly(self, write: Callable[[], T]) -> T:
        """Until the database is back: this worker's heartbeat would keep the job from everybody else for ever."""
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                return write()
            except StoreUnavailable as exc:
                log.warning("the end waits: %s", exc, extra={"action": "end_waits", "worker": self._me.worker})
                if self._abandon.wait(pause_s):
                    raise
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
