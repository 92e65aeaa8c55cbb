"""A prepared job as the engine takes it."""

from collections.abc import Sequence
from hashlib import sha256

from jobs.job import DEFAULT_TENANT
from jobs.request import ChatRequest
from worker.engine.generation import Generation, Sampling
from worker.live_job import LiveJob
from worker.prepare import Prepared


def generation_of(
    live: LiveJob, prepared: Prepared, generated: list[int], stop_ids: Sequence[int], choice: int = 0
) -> Generation:
    """One choice, going on after the tokens that earlier attempts drew for it."""
    asked = live.job.request.sampling
    sampling = Sampling(
        seed=seed_of(asked.seed, choice),
        temperature=asked.temperature,
        top_p=asked.top_p,
        top_k=asked.top_k,
        min_p=asked.min_p,
        repetition_penalty=asked.repetition_penalty,
        presence_penalty=asked.presence_penalty,
        frequency_penalty=asked.frequency_penalty,
        logprobs=live.job.request.logprobs,
        logit_bias=asked.logit_bias,
    )
    return Generation(
        id=f"{live.id}:{live.attempt}:{choice}",
        prompt_ids=prepared.prompt.ids,
        sampling=sampling,
        max_tokens=prepared.room,
        stop_ids=list(stop_ids_of(live.job.request, stop_ids)),
        images=prepared.images,
        generated=generated,
        salt=_salt(live.job.tenant),
        min_tokens=live.job.request.min_tokens,
        lane=live.job.priority,
        grammar=prepared.grammar,
    )


def seed_of(seed: int, choice: int) -> int:
    """The first choice has the request's own seed, so that asking for more choices does not change it."""
    if choice == 0:
        return seed
    return int.from_bytes(sha256(f"{seed}:{choice}".encode()).digest()[:8], "big") >> 1


def stop_ids_of(request: ChatRequest, model_stop_ids: Sequence[int]) -> Sequence[int]:
    """Which tokens end the answer: the model's, or none."""
    return () if request.ignore_eos else model_stop_ids


def _salt(tenant: str) -> int:
    """Tenants do not share cached prefixes: how fast a prompt is read would tell what others have asked."""
    return 0 if tenant == DEFAULT_TENANT else int.from_bytes(sha256(tenant.encode()).digest()[:7], "big")
