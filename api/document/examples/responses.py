"""The Responses API."""

from typing import Any

from api.document.example import MODEL, Example, Examples

ID = "resp_01a200d1f0a57a4e8c8e8a2f2f4f1f70"
INPUT = [
    {
        "type": "message",
        "role": "user",
        "content": [
            {"type": "input_image", "image_url": "https://example.com/cat.jpg", "detail": "auto"},
            {"type": "input_text", "text": "What is in the picture?"},
        ],
    }
]
QUEUED: dict[str, Any] = {
    "id": ID,
    "object": "response",
    "created_at": 1795303200,
    "completed_at": None,
    "status": "queued",
    "background": True,
    "error": None,
    "incomplete_details": None,
    "model": MODEL,
    "output": [],
    "usage": None,
    "instructions": None,
    "previous_response_id": None,
    "metadata": {},
    "max_output_tokens": 64,
    "max_tool_calls": None,
    "temperature": 0.0,
    "top_p": 1.0,
    "presence_penalty": 0.0,
    "frequency_penalty": 0.0,
    "top_logprobs": 0,
    "text": {"format": {"type": "text"}},
    "tools": [],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": None,
    "truncation": "disabled",
    "store": True,
    "service_tier": "default",
    "user": None,
    "safety_identifier": None,
    "prompt_cache_key": None,
}
COMPLETED = QUEUED | {
    "completed_at": 1795303201,
    "status": "completed",
    "output": [
        {
            "id": "msg_01a200d1f0a57a4e8c8e8a2f2f4f1f70_0",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "There is a large red circle.", "annotations": [], "logprobs": []}
            ],
        }
    ],
    "usage": {
        "input_tokens": 281,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0, "image_tokens": 256, "text_tokens": 25},
        "output_tokens": 8,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 289,
    },
}
ITEM = {"id": "msg_01a200d1f0a57a4e8c8e8a2f2f4f1f70_in0", "status": "completed", **INPUT[0]}

EXAMPLES: Examples = {
    "POST /v1/responses": Example(
        {"model": MODEL, "input": INPUT, "max_output_tokens": 64, "temperature": 0, "background": True}, {200: QUEUED}
    ),
    "GET /v1/responses/{response_id}": Example(None, {200: COMPLETED}),
    "DELETE /v1/responses/{response_id}": Example(None, {200: {"id": ID, "object": "response", "deleted": True}}),
    "POST /v1/responses/{response_id}/cancel": Example(None, {200: QUEUED | {"status": "cancelled"}}),
    "GET /v1/responses/{response_id}/input_items": Example(
        None,
        {200: {"object": "list", "data": [ITEM], "first_id": ITEM["id"], "last_id": ITEM["id"], "has_more": False}},
    ),
    "POST /v1/responses/input_tokens": Example(
        {"model": MODEL, "input": "How many tokens am I?"},
        {200: {"object": "response.input_tokens", "input_tokens": 31}},
    ),
}
