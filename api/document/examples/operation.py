"""Models, health, metrics."""

from api.document.example import MODEL, Example, Examples

SERVED = {"id": MODEL, "object": "model", "created": 0, "owned_by": "vlmq"}

EXAMPLES: Examples = {
    "GET /v1/models": Example(None, {200: {"object": "list", "data": [SERVED]}}),
    "GET /v1/models/{model}": Example(None, {200: SERVED}),
    "GET /healthz": Example(None, {200: {"status": "ok"}}),
    "GET /readyz": Example(
        None,
        {
            200: {"status": "ready", "missing": [], "workers": {MODEL: 1}},
            503: {"status": "missing", "missing": [f"worker:{MODEL}"], "workers": {MODEL: 0}},
        },
    ),
}
