"""The OpenAPI document. Bodies are read and checked by hand, so their schemas are put in by hand, from those models."""

from typing import Any

from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from api.responses.body import InputTokensBody, ResponseBody
from api.schema import ChatBody, JobBody, TextBody
from api.wire import Wire

REF = "#/components/schemas/"
BODIES: tuple[type[Wire], ...] = (ChatBody, JobBody, ResponseBody, InputTokensBody, TextBody)

ERROR = {
    "type": "object",
    "title": "Error",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}


def json_body(*models: type[Wire]) -> dict[str, Any]:
    """What a route says of its body: one of these."""
    schemas = [{"$ref": REF + model.__name__} for model in models]
    content = {"application/json": {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}}}
    return {"requestBody": {"required": True, "content": content}}


def event_stream(description: str) -> dict[int | str, dict[str, Any]]:
    """What a route says of a stream."""
    return {200: {"description": description, "content": {"text/event-stream": {"schema": {"type": "string"}}}}}


def install(app: FastAPI) -> None:
    """Completes the document that FastAPI makes: bodies, and the one shape of every error."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generate()
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            _, defs = models_json_schema([(model, "validation") for model in BODIES], ref_template=REF + "{model}")
            schemas.update(defs["$defs"], Error=ERROR)
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            _answer_errors_alike(document)
        return app.openapi_schema or document

    app.openapi = complete  # type: ignore[method-assign]


def _answer_errors_alike(document: dict[str, Any]) -> None:
    error = {"description": "Refused or failed.", "content": {"application/json": {"schema": {"$ref": REF + "Error"}}}}
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
            operation["responses"]["default"] = error
