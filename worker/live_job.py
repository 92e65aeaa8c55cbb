"""A job while this worker runs it: its transcript, and the one ending that is decided first.

Written to by the engine's thread, ended by whoever has a reason first, waited for by the job's own thread.
"""

import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from jobs.job import FinishReason, Job, Stamps, Token
from worker.engine.generation import Finish, TokenOutput
from worker.transcript import Transcript


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
    """`code` and `detail` explain REFUSED, FAILED and ENGINE_DIED."""

    kind: EndKind
    detail: str = ""
    code: str = ""
    finish_reason: FinishReason | None = None


class LiveJob:
    """The sink of the job's generation. `on_tokens` is called with each batch of new tokens, on the engine's thread."""

    def __init__(self, job: Job, on_tokens: Callable[["LiveJob", list[Token]], None]) -> None:
        self.job = job
        self.ending: Future[Ending] = Future()
        self._prepared_at: float | None = None
        self._first_token_at: float | None = None
        self.cached_tokens = 0
        self.expires_at: float | None = None
        """On the monotonic clock; None: no deadline."""
        self._on_tokens = on_tokens
        self._transcript: Transcript | None = None
        self._tokens = job.tokens

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def attempt(self) -> int:
        return self.job.attempt

    @property
    def tokens(self) -> tuple[Token, ...]:
        """All tokens so far, earlier attempts' included."""
        return self._tokens if self._transcript is None else self._transcript.tokens

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

    def write_to(self, transcript: Transcript) -> None:
        """The transcript, with earlier tokens replayed, that grows from now on."""
        self._transcript = transcript

    def end(self, ending: Ending) -> None:
        """The first ending counts."""
        try:
            self.ending.set_result(ending)
        except InvalidStateError:
            return

    def on_output(self, output: TokenOutput) -> None:
        transcript = self._transcript
        if transcript is None or self.ending.done():
            return
        if output.cached_tokens is not None:
            self.cached_tokens = output.cached_tokens
        pushed = [token for drawn in output.tokens if (token := transcript.push(drawn)) is not None]
        if pushed:
            self._first_token_at = self._first_token_at or time.monotonic()
            self._on_tokens(self, pushed)
        if transcript.finish_reason is not None:
            self.end(Ending(EndKind.FINISHED, finish_reason=transcript.finish_reason))
        elif output.finish is not None:
            self.end(_ending_of(output.finish, output.error))

    def on_refused(self, code: str, message: str) -> None:
        self.end(Ending(EndKind.REFUSED, message, code))

    def on_engine_died(self, detail: str) -> None:
        self.end(Ending(EndKind.ENGINE_DIED, detail))


def _ending_of(finish: Finish, error: str) -> Ending:
    """For an end that the transcript did not foresee."""
    match finish:
        case Finish.STOP:
            return Ending(EndKind.FINISHED, finish_reason=FinishReason.STOP)
        case Finish.LENGTH:
            return Ending(EndKind.FINISHED, finish_reason=FinishReason.LENGTH)
        case Finish.ERROR:
            return Ending(EndKind.FAILED, error, "server_error")
        case Finish.CANCELLED:
            return Ending(EndKind.ENGINE_DIED, "the engine cancelled a generation that nobody had cancelled")


class LiveJobs:
    """The jobs that this worker runs now. Thread-safe."""

    def __init__(self) -> None:
        self._jobs: dict[str, LiveJob] = {}
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, live: LiveJob) -> Iterator[None]:
        with self._changed:
            self._jobs[live.id] = live
        try:
            yield
        finally:
            with self._changed:
                if self._jobs.get(live.id) is live:
                    del self._jobs[live.id]
                self._changed.notify_all()

    def all(self) -> list[LiveJob]:
        with self._changed:
            return list(self._jobs.values())

    def attempts(self) -> dict[str, int]:
        """Id to attempt."""
        return {live.id: live.attempt for live in self.all()}

    def stop(self, job_id: str, kind: EndKind) -> None:
        """Ends one job from outside; unknown ids are ignored."""
        with self._changed:
            live = self._jobs.get(job_id)
        if live is not None:
            live.end(Ending(kind))

    def expire(self) -> None:
        """Ends those whose deadline has passed, also while they are being prepared."""
        for live in self.all():
            if live.seconds_left() == 0.0:
                live.end(Ending(EndKind.DEADLINE))

    def wait_until_empty(self, timeout_s: float) -> bool:
        with self._changed:
            return self._changed.wait_for(lambda: not self._jobs, timeout_s)
