"""The use case that every door shares: a validated body becomes a recorded job, then the bell rings."""

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from msgspec import structs

from api.auth import Caller
from api.backpressure import Backpressure
from api.conversation import Limits, to_messages
from api.cost import INTERNVL, Estimate
from api.deadline import to_instant
from api.errors import ApiError
from api.limits import refusal
from api.pictures import Pictures
from api.response_format import to_json_format
from api.sampling import sampling_of
from api.schema import WorkBody
from api.tool_schema import choice_of
from api.tool_use import check_guarded, use_of
from api.webhook_field import WebhookObject, webhook_of
from jobs.errors import LimitReached
from jobs.files import FileStore
from jobs.idempotency import IdempotencyKey
from jobs.ids import new_job_id
from jobs.job import ANYWHERE, Job, JobKind, NewJob, Origin, Priority, Webhook
from jobs.ports import Blobs, JobStore, Queue
from jobs.request import ChatRequest, Message
from jobs.tools import ToolUse
from jobs.webhooks.destination import Destinations

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Order:
    """What a door asks for, in the jobs' terms. `origin.key_id` is the caller's; `end_user` is logged alone."""

    kind: JobKind
    caller: Caller
    model: str
    request: ChatRequest
    priority: Priority
    deadline: datetime | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    origin: Origin = ANYWHERE
    end_user: str | None = None


@dataclass(frozen=True, slots=True)
class Submission:
    """Synchronous: one hop to a thread takes a job in. All parts are the process's own.

    A door makes an `Order`, by `order_of` or by its own reading of its own body, and `record` makes it a job."""

    store: JobStore
    queue: Queue
    blobs: Blobs
    pictures: Pictures
    files: FileStore
    destinations: Destinations
    backpressure: Backpressure
    models: Collection[str]
    limits: Limits
    max_deadline_s: float
    max_attempts: int
    max_choices: int

    def submit(
        self,
        body: WorkBody,
        kind: JobKind,
        caller: Caller,
        origin: Origin = ANYWHERE,
        idempotency: IdempotencyKey | None = None,
    ) -> Job:
        """Both steps for a body of chat messages, and before them a look whether there is room. Raises as they do."""
        self.backpressure.check(body.model)
        return self.record(self.order_of(body, kind, caller, origin), idempotency)

    def order_of(self, body: WorkBody, kind: JobKind, caller: Caller, origin: Origin = ANYWHERE) -> Order:
        """What a body of chat messages asks for. Raises ApiError for what it does wrong, BlobsUnavailable."""
        check_model(body.model, self.models)
        self._check_choices(body.n)
        lane = Priority.BACKGROUND if origin.background else Priority.INTERACTIVE
        return Order(
            kind=kind,
            caller=caller,
            model=body.model,
            priority=Priority[body.priority.upper()] if body.priority else lane,
            deadline=to_instant(body.deadline, datetime.now(UTC), self.max_deadline_s),
            request=self.request_of(body),
            metadata=dict(body.metadata),
            origin=replace(origin, webhook=self.webhook_of(body.webhook)),
            end_user=body.user or body.safety_identifier,
        )

    def webhook_of(self, field: WebhookObject | None) -> Webhook | None:
        """What a body's `webhook` asks for. Raises ApiError."""
        return webhook_of(field, self.destinations)

    def record(self, order: Order, idempotency: IdempotencyKey | None = None) -> Job:
        """Records a job, under a key if there is one, and rings for it. Raises ApiError for a full queue,
        a limit of the caller's key, IdempotencyKeyTaken, StoreUnavailable, BlobsUnavailable. An ill broker is no
        reason: the sweeper rings later."""
        new = self.new_job(order)
        self.backpressure.admit(new)
        job = self._insert(new, order.caller, idempotency)
        log.info("accepted %s", job.id, extra={"action": "job.accepted", "job_id": job.id, "end_user": order.end_user})
        self.ring(job)
        return job

    def _insert(self, new: NewJob, caller: Caller, idempotency: IdempotencyKey | None) -> Job:
        if caller.key is None:
            return self.store.insert(new, idempotency)
        try:
            job = self.store.insert(new, idempotency, caller.key.limits)
        except LimitReached as exc:
            raise refusal(exc, caller.key, self.backpressure.refused(new, exc.limit)) from exc
        if caller.allowance is not None:
            caller.allowance.use(new.cost)
        return job

    def new_job(self, order: Order) -> NewJob:
        """The job that an order becomes, under a new id. Records nothing. Raises StoreUnavailable, BlobsUnavailable."""
        estimate = Estimate(self.backpressure.watch.tiling(order.model) or INTERNVL, self.pictures.size)
        return NewJob(
            id=new_job_id(order.kind),
            tenant=order.caller.tenant,
            kind=order.kind,
            model=order.model,
            priority=order.priority,
            request=order.request,
            metadata=dict(order.metadata),
            deadline=order.deadline,
            max_attempts=self.max_attempts,
            origin=replace(order.origin, key_id=order.caller.key_id),
            cost=estimate.cost_of(order.request),
        )

    def request_of(self, body: WorkBody) -> ChatRequest:
        """What the worker will read; pictures of data: URLs are stored by that. Raises ApiError, BlobsUnavailable."""
        use = use_of(
            *(body.model, [tool.tool() for tool in body.tools or ()], choice_of(body.tool_choice)),
            parallel=body.parallel_tool_calls is not False,
            history=body.has_calls,
            limits=self.limits.tools,
        )
        request = _request(body, (), use)
        check_guarded(request, [f"tools[{n}].function.parameters" for n in range(len(body.tools or ()))])
        return structs.replace(request, messages=to_messages(body.messages, self.limits, self.pictures.keep))

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


def _request(body: WorkBody, messages: tuple[Message, ...], tools: ToolUse | None) -> ChatRequest:
    return ChatRequest(
        messages=messages,
        sampling=sampling_of(body),
        max_tokens=body.token_limit,
        stop=tuple(body.stop),
        logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        json_format=to_json_format(body.response_format),
        n=body.n,
        tools=tools,
    )
