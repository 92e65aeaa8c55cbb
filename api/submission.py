"""The use case that every door shares: a validated body becomes a recorded job, then the bell rings."""

import logging
import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

from api.backpressure import Backpressure
from api.conversation import Limits, to_messages
from api.deadline import to_instant
from api.errors import ApiError
from api.response_format import to_json_format
from api.schema import WorkBody
from jobs.ids import new_job_id
from jobs.job import Job, JobKind, NewJob, Priority
from jobs.ports import Blobs, JobStore, Queue
from jobs.request import ChatRequest, Message, Sampling

log = logging.getLogger(__name__)

DEFAULT_PRIORITY = {JobKind.CHAT_COMPLETION: Priority.INTERACTIVE, JobKind.JOB: Priority.BACKGROUND}


@dataclass(frozen=True, slots=True)
class Submission:
    """Synchronous: one hop to a thread takes a job in. All parts are the process's own."""

    store: JobStore
    queue: Queue
    blobs: Blobs
    backpressure: Backpressure
    models: Collection[str]
    limits: Limits
    max_deadline_s: float
    max_attempts: int
    max_choices: int

    def submit(self, body: WorkBody, kind: JobKind, tenant: str) -> Job:
        """Records the job and rings for it. Raises ApiError for what the request does wrong and for a full queue,
        StoreUnavailable and BlobsUnavailable. An ill broker is no reason: the sweeper rings later."""
        check_model(body.model, self.models)
        self._check_choices(body.n)
        priority = Priority[body.priority.upper()] if body.priority else DEFAULT_PRIORITY[kind]
        deadline = to_instant(body.deadline, datetime.now(UTC), self.max_deadline_s)
        self.backpressure.admit(body.model)
        request = self.request_of(body)
        job = self.store.insert(
            NewJob(
                id=new_job_id(kind),
                tenant=tenant,
                kind=kind,
                model=body.model,
                priority=priority,
                request=request,
                metadata=dict(body.metadata),
                deadline=deadline,
                max_attempts=self.max_attempts,
            )
        )
        log.info(
            "accepted %s",
            job.id,
            extra={"action": "job.accepted", "job_id": job.id, "user": body.user or body.safety_identifier},
        )
        self.ring(job)
        return job

    def request_of(self, body: WorkBody) -> ChatRequest:
        """What the worker will read; pictures of data: URLs are stored by that. Raises ApiError, BlobsUnavailable."""
        return _request(body, to_messages(body.messages, self.limits, self.blobs.put))

    def _check_choices(self, n: int) -> None:
        if n > self.max_choices:
            message = f"Invalid value for 'n': at most {self.max_choices} choices are allowed, got {n}."
            raise ApiError(message, param="n", code="invalid_value")

    def ring(self, job: Job) -> None:
        """Tells the workers; without an answer from the broker the sweeper does it later."""
        self.queue.ring(job.model, job.id)


def check_model(model: str, models: Collection[str]) -> None:
    """Raises ApiError (404) for a model that is not served."""
    if model not in models:
        names = ", ".join(sorted(models))
        raise ApiError(
            f"The model {model[:100]!r} does not exist here. Served: {names}.",
            status=404,
            param="model",
            code="model_not_found",
        )


def _request(body: WorkBody, messages: tuple[Message, ...]) -> ChatRequest:
    # 63 bits fit every integer on the way; a client's negative seed is folded, not refused.
    seed = secrets.randbits(63) if body.seed is None else body.seed % 2**63
    return ChatRequest(
        messages=messages,
        sampling=Sampling(
            seed=seed,
            temperature=body.temperature,
            top_p=body.top_p,
            top_k=body.top_k,
            min_p=body.min_p,
            repetition_penalty=body.repetition_penalty,
            presence_penalty=body.presence_penalty,
            frequency_penalty=body.frequency_penalty,
            logit_bias={int(token): bias for token, bias in body.logit_bias.items()},
        ),
        max_tokens=body.token_limit,
        stop=tuple(body.stop),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        json_format=to_json_format(body.response_format),
        n=body.n,
    )
