"""All examples, by operation."""

from api.document.example import Examples
from api.document.examples import batches, chat, files, jobs, operation, responses

EXAMPLES: Examples = {
    **chat.EXAMPLES,
    **responses.EXAMPLES,
    **files.EXAMPLES,
    **batches.EXAMPLES,
    **jobs.EXAMPLES,
    **operation.EXAMPLES,
}
