"""Chat completions, and the count of a request's tokens."""

from api.document.example import MODEL, QUESTION, Example, Examples

ID = "chatcmpl-01a200c9241e7fd781b8fabfb5ffd5af"
COMPLETION = {
    "id": ID,
    "object": "chat.completion",
    "created": 1795303200,
    "model": MODEL,
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "There is a large red circle.", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {
        "prompt_tokens": 281,
        "completion_tokens": 8,
        "total_tokens": 289,
        "prompt_tokens_details": {"cached_tokens": 0, "image_tokens": 256, "text_tokens": 25},
    },
    "service_tier": "default",
}

STORED = {**COMPLETION, "metadata": {"topic": "shapes"}}

EXAMPLES: Examples = {
    "POST /v1/chat/completions": Example(
        {"model": MODEL, "messages": [QUESTION], "max_completion_tokens": 64, "temperature": 0}, {200: COMPLETION}
    ),
    "GET /v1/chat/completions": Example(
        answers={200: {"object": "list", "data": [STORED], "first_id": ID, "last_id": ID, "has_more": False}}
    ),
    "GET /v1/chat/completions/{completion_id}": Example(answers={200: STORED}),
    "POST /v1/chat/completions/{completion_id}": Example({"metadata": {"topic": "shapes"}}, {200: STORED}),
    "DELETE /v1/chat/completions/{completion_id}": Example(
        answers={200: {"id": ID, "object": "chat.completion.deleted", "deleted": True}}
    ),
    "GET /v1/chat/completions/{completion_id}/messages": Example(
        answers={
            200: {
                "object": "list",
                "data": [
                    {"id": f"{ID}-0", "role": "user", "content": "What is it?", "content_parts": None, "name": None}
                ],
                "first_id": f"{ID}-0",
                "last_id": f"{ID}-0",
                "has_more": False,
            }
        }
    ),
    "POST /v1/tokenize": Example(
        {"model": MODEL, "messages": [QUESTION], "max_completion_tokens": 64},
        {
            200: {
                "object": "token_count",
                "model": MODEL,
                "prompt_tokens": 281,
                "text_tokens": 25,
                "image_tokens": 256,
                "context_length": 2048,
                "max_completion_tokens": 64,
            }
        },
    ),
}
