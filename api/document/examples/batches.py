"""Batches."""

from api.document.example import MODEL, Example, Examples

ID = "batch_01a200d2a1e37c0d9c5f3c1b7d9a4e22"
BATCH = {
    "id": ID,
    "object": "batch",
    "endpoint": "/v1/chat/completions",
    "model": MODEL,
    "errors": None,
    "input_file_id": "file-01a200d2a1e37c0d9c5f3c1b7d9a4e21",
    "completion_window": "24h",
    "status": "in_progress",
    "output_file_id": None,
    "error_file_id": None,
    "created_at": 1795303200,
    "in_progress_at": 1795303201,
    "expires_at": 1795389600,
    "finalizing_at": None,
    "completed_at": None,
    "failed_at": None,
    "expired_at": None,
    "cancelling_at": None,
    "cancelled_at": None,
    "request_counts": {"total": 100, "completed": 40, "failed": 1},
    "usage": None,
    "metadata": {"night": "1"},
}
ASKED = {
    "input_file_id": BATCH["input_file_id"],
    "endpoint": "/v1/chat/completions",
    "completion_window": "24h",
    "metadata": {"night": "1"},
}

EXAMPLES: Examples = {
    "POST /v1/batches": Example(ASKED, {200: BATCH | {"status": "validating", "model": None, "in_progress_at": None}}),
    "GET /v1/batches": Example(
        None, {200: {"object": "list", "data": [BATCH], "first_id": ID, "last_id": ID, "has_more": False}}
    ),
    "GET /v1/batches/{batch_id}": Example(None, {200: BATCH}),
    "POST /v1/batches/{batch_id}/cancel": Example(
        None, {200: BATCH | {"status": "cancelling", "cancelling_at": 1795303300}}
    ),
}
