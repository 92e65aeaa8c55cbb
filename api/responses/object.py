"""A job as OpenAI's Response object, with every key that Open Responses demands. Renders only."""

from typing import Any

from api.responses.door import Door, door_of
from api.responses.output import Shown, output_of
from jobs.job import Job, JobState, Usage


def response_object(job: Job) -> dict[str, Any]:
    """Of a job that came as a response, in any state: with the output so far."""
    return _shown(job, job.state, output_of(job))


def response_then(job: Job, state: JobState) -> dict[str, Any]:
    """The response as it was on its way, before it had any output: the same whenever it is shown."""
    return _shown(job, state, [])


def _shown(job: Job, state: JobState, output: list[Shown]) -> dict[str, Any]:
    door, ended = door_of(job), state.terminal
    done = job.timeline.done_at
    return {
        "id": job.id,
        "object": "response",
        "created_at": int(job.timeline.queued_at.timestamp()),
        "completed_at": int(done.timestamp()) if state is JobState.COMPLETED and done is not None else None,
        "status": state.value,
        "background": door.background,
        "error": _error(job) if ended else None,
        "incomplete_details": {"reason": "max_output_tokens"} if state is JobState.INCOMPLETE else None,
        "model": job.model,
        "output": output,
        "usage": usage_object(job.usage) if ended else None,
        **_asked(job, door),
    }


def _asked(job: Job, door: Door) -> dict[str, Any]:
    """What the request said, and what stands for what it did not say."""
    request, sampling = job.request, job.request.sampling
    return {
        "instructions": door.instructions,
        "previous_response_id": door.previous_response_id,
        "metadata": job.metadata,
        "max_output_tokens": request.max_tokens,
        "max_tool_calls": None,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "top_logprobs": request.logprobs or 0,
        "text": {"format": door.text_format},
        "tools": list(door.tools),
        "tool_choice": door.tool_choice,
        "parallel_tool_calls": door.parallel_tool_calls,
        "reasoning": None,
        "truncation": "disabled",
        "store": job.origin.stored,
        "service_tier": "default",
        "user": door.user,
        "safety_identifier": door.safety_identifier,
        "prompt_cache_key": None,
    }


def _error(job: Job) -> dict[str, Any] | None:
    if job.error is None:
        return None
    return {"code": job.error.code, "message": job.error.message, "param": job.error.param}


def usage_object(usage: Usage | None) -> dict[str, Any] | None:
    if usage is None:
        return None
    return {
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": usage.cached_tokens,
            "cache_write_tokens": 0,
            "image_tokens": usage.image_tokens,
            "text_tokens": usage.prompt_tokens - usage.image_tokens,
        },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.total_tokens,
    }
