"""`Retry-After` of what is refused for now: whole seconds, within what clients of OpenAI's kind wait by themselves."""

import math

LEAST_S, MOST_S = 1.0, 120.0


def retry_after_s(wait_s: float | None, unknown_s: float, most_s: float = MOST_S) -> int:
    """After how long to come back when waiting helps in `wait_s`, which is None when nobody knows."""
    return math.ceil(min(max(unknown_s if wait_s is None else wait_s, LEAST_S), most_s))
