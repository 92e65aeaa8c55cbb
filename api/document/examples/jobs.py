"""The jobs API."""

from typing import Any

from api.document.example import MODEL, QUESTION, Example, Examples

ID = "job_01a20067b53c7c82b0a7fab40ae890f4"
QUEUED: dict[str, Any] = {
    "id": ID,
    "object": "job",
    "status": "queued",
    "model": MODEL,
    "created_at": 1795303200,
    "queue_position": 0,
    "eta_s": 1.5,
    "priority": "background",
    "deadline": None,
    "metadata": {"shelf": "7"},
    "webhook": None,
    "output": "",
    "tool_calls": None,
    "logprobs": None,
    "choices": None,
    "usage": None,
    "finish_reason": None,
    "error": None,
    "timeline": {
        "queued_at": 1795303200.28,
        "claimed_at": None,
        "prepared_at": None,
        "first_token_at": None,
        "done_at": None,
    },
    "attempts": [],
    "purged_at": None,
}
COMPLETED = QUEUED | {
    "status": "completed",
    "queue_position": None,
    "eta_s": None,
    "output": "There is a large red circle.",
    "usage": {
        "prompt_tokens": 281,
        "completion_tokens": 8,
        "total_tokens": 289,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 256, "text_tokens": 25},
    },
    "finish_reason": "stop",
    "timeline": {
        "queued_at": 1795303200.28,
        "claimed_at": 1795303200.43,
        "prepared_at": 1795303200.52,
        "first_token_at": 1795303200.94,
        "done_at": 1795303201.1,
    },
    "attempts": [
        {
            "number": 1,
            "worker": "host:4711:9f3a6c1e",
            "started_at": 1795303200.43,
            "ended_at": 1795303201.1,
            "end": "finished",
            "detail": "",
            "tokens": 8,
        }
    ],
}
CANCELLED = QUEUED | {"status": "cancelled", "queue_position": None, "eta_s": None}
EVENTS = f"""id: 0
event: job.queued
data: {{"type":"job.queued","sequence":0,"job_id":"{ID}"}}

id: 1
event: job.in_progress
data: {{"type":"job.in_progress","sequence":1,"job_id":"{ID}"}}

id: 2
event: job.delta
data: {{"type":"job.delta","sequence":2,"job_id":"{ID}","index":0,"text":"There"}}

"""

EXAMPLES: Examples = {
    "POST /v1/jobs": Example(
        {"model": MODEL, "messages": [QUESTION], "max_tokens": 64, "deadline": 600, "metadata": {"shelf": "7"}},
        {201: QUEUED},
    ),
    "GET /v1/jobs": Example(
        None,
        {
            200: {
                "object": "list",
                "data": [COMPLETED | {"attempts": None}],
                "first_id": ID,
                "last_id": ID,
                "has_more": False,
            }
        },
    ),
    "GET /v1/jobs/{job_id}": Example(None, {200: COMPLETED}),
    "DELETE /v1/jobs/{job_id}": Example(None, {200: {"id": ID, "object": "job", "deleted": True}}),
    "POST /v1/jobs/{job_id}/cancel": Example(None, {200: CANCELLED}),
    "POST /v1/jobs/{job_id}/requeue": Example(None, {200: QUEUED}),
    "GET /v1/jobs/{job_id}/events": Example(None, {200: EVENTS}),
}
