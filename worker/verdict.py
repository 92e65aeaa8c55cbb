"""What becomes of a job when its attempt here ends: it ends too, it goes back, or it is no longer ours."""

from dataclasses import dataclass

from jobs.job import AttemptEnd, FinishReason, JobError, JobState, Outcome, Token, Usage
from worker.live_job import Ending, EndKind, LiveJob
from worker.prepare import Prepared


@dataclass(frozen=True, slots=True)
class GiveBack:
    """The attempt ends, the job does not."""

    end: AttemptEnd
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Drop:
    """Nothing more may be written of it."""


Verdict = Outcome | GiveBack | Drop


def verdict_of(ending: Ending, live: LiveJob, prepared: Prepared | None) -> Verdict:
    """`prepared` is None when the ending came before the prompt was built."""
    match ending.kind:
        case EndKind.FINISHED:
            reasons = ending.finish_reasons
            cut = FinishReason.LENGTH in reasons
            return Outcome(
                JobState.INCOMPLETE if cut else JobState.COMPLETED,
                live.tokens,
                _usage(live, prepared),
                FinishReason.LENGTH if cut else FinishReason.STOP,
                stamps=live.stamps,
                finish_reasons=reasons,
            )
        case EndKind.REFUSED | EndKind.FAILED:
            return failed(ending.code, ending.detail, None, live.tokens, _usage(live, prepared))
        case EndKind.DEADLINE:
            message = "the job's deadline passed before its answer was complete"
            return failed("deadline_exceeded", message, "deadline", live.tokens, _usage(live, prepared))
        case EndKind.ENGINE_DIED:
            return GiveBack(AttemptEnd.ENGINE_DIED, ending.detail)
        case EndKind.DRAINED:
            return GiveBack(AttemptEnd.DRAINED)
        case EndKind.NOT_OURS:
            return Drop()


def failed(
    code: str, message: str, param: str | None, tokens: tuple[Token, ...], usage: Usage | None = None
) -> Outcome:
    return Outcome(JobState.FAILED, tokens, usage, error=JobError(code, message, param))


def name_of(verdict: Verdict) -> str:
    """For the log."""
    match verdict:
        case Outcome():
            return verdict.state.value
        case GiveBack():
            return verdict.end.value
        case Drop():
            return "dropped"


def _usage(live: LiveJob, prepared: Prepared | None) -> Usage | None:
    if prepared is None:
        return None
    prompt = prepared.prompt
    return Usage(len(prompt.ids), len(live.tokens), prompt.image_tokens, live.cached_tokens)
