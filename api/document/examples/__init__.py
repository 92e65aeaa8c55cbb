"""All examples, by operation."""

from api.document.example import Examples
from api.document.examples import batches, chat, files, jobs, operation, responses, webhooks

PARTS = (chat, responses, files, batches, jobs, operation, webhooks)

EXAMPLES: Examples = {name: example for part in PARTS for name, example in part.EXAMPLES.items()}
