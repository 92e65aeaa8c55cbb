"""How a body wants its answer drawn, in the engine's terms."""

import secrets

from api.schema import AnyBody
from jobs.request import Sampling


def sampling_of(body: AnyBody) -> Sampling:
    """With a seed of its own where the body has none, so that every attempt draws the same."""
    # 63 bits fit every integer on the way; a client's negative seed is folded, not refused.
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
    return Sampling(
        seed=seed,
        temperature=body.temperature,
        top_p=body.top_p,
        top_k=body.top_k,
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias={int(token): bias for token, bias in body.logit_bias.items()},
    )
