"""All examples, by operation."""

from api.document.example import Examples
from api.document.examples import chat, files, jobs, operation, responses

EXAMPLES: Examples = {**chat.EXAMPLES, **responses.EXAMPLES, **files.EXAMPLES, **jobs.EXAMPLES, **operation.EXAMPLES}
