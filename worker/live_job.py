"""A job while this worker runs it: its answer, and the one ending that is decided first.

Written to by the engine's thread, ended by whoever has a reason first, waited for by the job's own thread.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass
from enum import StrEnum

from jobs.job import FinishReason, Job, Stamps, Token
from worker.answer import Answer
from worker.engine.generation import Finish, TokenOutput

log = logging.getLogger(__name__)


class EndKind(StrEnum):
    """Why a running job stops."""

    FINISHED = "finished"
    """The answer is complete."""
    REFUSED = "refused"
    """The engine cannot run the request."""
    FAILED = "failed"
    """The engine failed at this sequence alone."""
    ENGINE_DIED = "engine_died"
    NOT_OURS = "not_ours"
    """Cancelled, ended or taken back: nothing of it may be written any more."""
    DRAINED = "drained"
    DEADLINE = "deadline_exceeded"


@dataclass(frozen=True, slots=True)
class Ending:
    """`code` and `detail` explain REFUSED, FAILED and ENGINE_DIED; FINISHED has a reason for each choice."""

    kind: EndKind
    detail: str = ""
    code: str = ""
    finish_reasons: tuple[FinishReason, ...] = ()


class LiveJob:
    """What its choices' sinks write to. `on_tokens` is called with each batch of new tokens, on the engine's thread."""

    def __init__(self, job: Job, on_tokens: Callable[["LiveJob", list[Token]], None]) -> None:
        self.job = job
        self.ending: Future[Ending] = Future()
        self._prepared_at: float | None = None
        self._first_token_at: float | None = None
        self.cached_tokens = 0
        self.expires_at: float | None = None
        """On the monotonic clock; None: no deadline."""
        self._on_tokens = on_tokens
        self._answer: Answer | None = None
        self._tokens = job.tokens
        # Held while the answer grows: whoever ends the job has then seen its last token.
        self._growing = threading.RLock()

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def attempt(self) -> int:
        return self.job.attempt

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens so far, earlier attempts' included."""
        return self._tokens if self._answer is None else self._answer.tokens

    @property
    def stamps(self) -> Stamps:
        now = time.monotonic()
        prepared, first = self._prepared_at, self._first_token_at
        return Stamps(None if prepared is None else now - prepared, None if first is None else now - first)

    def prepared(self) -> None:
        """The engine has all it needs."""
        self._prepared_at = time.monotonic()

    def seconds_left(self) -> float | None:
        """Until the deadline, not less than 0; None: no deadline."""
        return None if self.expires_at is None else max(0.0, self.expires_at - time.monotonic())

    def resume(self, tokens: tuple[Token, ...]) -> None:
        """What earlier attempts have published, which is at least what they stored."""
        self._tokens = tokens

    def write_to(self, answer: Answer) -> None:
        """The answer, with earlier tokens replayed, that grows from now on."""
        self._answer = answer
        self._end_if_complete(answer)

    def end(self, ending: Ending) -> None:
        """The first ending counts. After it the answer grows no more."""
        with self._growing, contextlib.suppress(InvalidStateError):
            self.ending.set_result(ending)

    def break_with(self, exc: Exception) -> None:
        """Ends the attempt like an error of its own thread, where `ending` raises it."""
        with contextlib.suppress(InvalidStateError):
            self.ending.set_exception(exc)

    def on_output(self, choice: int, output: TokenOutput) -> bool:
        """News of one choice, on the engine's thread. Whether it goes on."""
        with self._growing:
            return self._grow(choice, output)

    def _grow(self, choice: int, output: TokenOutput) -> bool:
        answer = self._answer
        if answer is None or self.ending.done():
            return False
        # The other choices find the first one's prompt in the cache: that says nothing of earlier requests.
        if output.cached_tokens is not None and choice == 0:
            self.cached_tokens = output.cached_tokens
        pushed = answer.push(choice, output.tokens)
        if output.finish is not None and answer.finish_reasons[choice] is None:
            match output.finish:
                case Finish.STOP | Finish.LENGTH:
                    pushed += answer.end(choice, FinishReason(output.finish.value))
                case _:
                    self.end(_ending_of(output.finish, output.error))
        if pushed:
            self._first_token_at = self._first_token_at or time.monotonic()
            self._on_tokens(self, pushed)
        self._end_if_complete(answer)
        return answer.finish_reasons[choice] is None

    def _end_if_complete(self, answer: Answer) -> None:
        if answer.complete:
            reasons = tuple(reason for reason in answer.finish_reasons if reason is not None)
            self.end(Ending(EndKind.FINISHED, finish_reasons=reasons))


class ChoiceSink:
    """The sink of one choice's generation. `stop` frees its slot when a stop string ends it before the others."""

    def __init__(self, live: LiveJob, choice: int, stop: Callable[[], None]) -> None:
        self._live = live
        self._choice = choice
        self._stop = stop

    def on_output(self, output: TokenOutput) -> None:
        try:
            goes_on = self._live.on_output(self._choice, output)
        except Exception as exc:
            # As on the job's own thread: the attempt breaks, not the thread that serves all others.
            log.exception("output not taken", extra={"action": "output_broke", "job_id": self._live.id})
            self._live.break_with(exc)
            return
        if not goes_on and output.finish is None and not self._live.ending.done():
            self._stop()

    def on_refused(self, code: str, message: str) -> None:
        self._live.end(Ending(EndKind.REFUSED, message, code))

    def on_engine_died(self, detail: str) -> None:
        self._live.end(Ending(EndKind.ENGINE_DIED, detail))


def _ending_of(finish: Finish, error: str) -> Ending:
    """For an end that is no choice's own."""
    if finish is Finish.ERROR:
        return Ending(EndKind.FAILED, error, "server_error")
    return Ending(EndKind.ENGINE_DIED, "the engine cancelled a generation that nobody had cancelled")


class LiveJobs:
    """The jobs that this worker runs now. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, LiveJob] = {}
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def holding(self, live: LiveJob) -> Iterator[None]:
        """Of two attempts at one job, the newer one is held and the other ends: it was taken from this worker."""
        with self._lock:
            other = self._jobs.get(live.id)
            newest = live if other is None or other.attempt < live.attempt else other
            self._jobs[live.id] = newest
        for attempt in (live, other):
            if attempt is not None and attempt is not newest:
                attempt.end(Ending(EndKind.NOT_OURS))
        try:
            yield
        finally:
            with self._lock:
                if self._jobs.get(live.id) is live:
                    del self._jobs[live.id]

    def all(self) -> list[LiveJob]:
        with self._lock:
            return list(self._jobs.values())

    def attempts(self) -> dict[str, int]:
        """Id to attempt."""
        return {live.id: live.attempt for live in self.all()}

    def stop(self, job_id: str, kind: EndKind) -> None:
        """Ends one job from outside; unknown ids are ignored."""
        with self._lock:
            live = self._jobs.get(job_id)
        if live is not None:
            live.end(Ending(kind))

    def disown(self, job_id: str, attempt: int) -> None:
        """Ends an attempt that is no longer current, and no other: this worker may have claimed the job again since
        that was found."""
        with self._lock:
            live = self._jobs.get(job_id)
        if live is not None and live.attempt == attempt:
            live.end(Ending(EndKind.NOT_OURS))

    def expire(self) -> None:
        """Ends those whose deadline has passed, also while they are being prepared."""
        for live in self.all():
            if live.seconds_left() == 0.0:
                live.end(Ending(EndKind.DEADLINE))
