"""The body that makes a batch, as it comes over the wire."""

from typing import Annotated, Literal

from pydantic import Field

from api.expiry import ExpiresAfter
from api.schema import MetadataKey, MetadataValue
from api.wire import Text, Wire


class BatchBody(Wire):
    """`POST /v1/batches`. `output_expires_after` counts from when the output and error files are made."""

    input_file_id: Text
    endpoint: Literal["/v1/chat/completions", "/v1/responses"]
    completion_window: Literal["24h"]
    metadata: Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16)] = Field(default_factory=dict)
    output_expires_after: ExpiresAfter | None = None
