"""When it is worth asking again for what waits or runs: a header that the pollers of OpenAI's clients obey."""

from jobs.job import JobState

POLL_AFTER_MS = "openai-poll-after-ms"
HINT_S = (0.5, 5.0)
"""Pollers keep the first hint that they get: one of a long wait must not make them late for the end."""
RUNNING_S = 1.0


def poll_hint(state: JobState, eta_s: float | None) -> dict[str, str]:
    """The header for a job in this state; none once it has ended. `eta_s`: in how many seconds it begins; None when it
    runs, or when nobody knows."""
    if state.terminal:
        return {}
    least, most = HINT_S
    after_s = RUNNING_S if eta_s is None else min(max(eta_s, least), most)
    return {POLL_AFTER_MS: str(round(1000 * after_s))}
