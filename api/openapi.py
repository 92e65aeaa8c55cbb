"""The OpenAPI document: what the routes say by themselves, completed by `api.document`. A body is read and checked by
hand, so its route names its model, and the schema comes from that."""

import re
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from api.document.examples import EXAMPLES
from api.document.parameters import more_parameters
from api.document.shape import EVENT, EVENT_STREAM, text_of
from api.document.shapes import SHAPES
from api.document.statuses import ERROR, error_response, errors_of, headers_of

REF = "#/components/schemas/"
_SCHEMAS = "x-schemas"
"""Where a route's own schemas wait until they are put beside the others."""
SECURITY = {"key": {"type": "http", "scheme": "bearer", "description": "A key of `vlmq keys create`."}}


def json_body(*models: type[BaseModel]) -> dict[str, Any]:
    """What a route says of its body: one of these."""
    refs = [{"$ref": REF + model.__name__} for model in models]
    content = {"application/json": {"schema": refs[0] if len(refs) == 1 else {"anyOf": refs}}}
    return {"requestBody": {"required": True, "content": content}, _SCHEMAS: schemas_of(*models)}


def event_stream(description: str) -> dict[int | str, dict[str, Any]]:
    """What a route says of a stream."""
    return {200: {"description": description, "content": {EVENT_STREAM: {"schema": EVENT}}}}


def schemas_of(*models: type[BaseModel]) -> dict[str, Any]:
    """The schemas of models and of what they consist of, by name."""
    _, made = models_json_schema([(model, "validation") for model in models], ref_template=REF + "{model}")
    return dict(made["$defs"])


def install(app: FastAPI) -> None:
    """Completes the document that FastAPI makes."""
    generate = app.openapi

    def complete() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generate())
        return app.openapi_schema

    app.openapi = complete  # type: ignore[method-assign]


def _completed(document: dict[str, Any]) -> dict[str, Any]:
    components = document.setdefault("components", {})
    schemas = components.setdefault("schemas", {})
    for method, path, operation in _operations(document):
        schemas.update(operation.pop(_SCHEMAS, {}))
        # FastAPI's own names repeat the path behind the function's.
        operation["operationId"] = operation["operationId"].removesuffix(re.sub(r"\W", "_", path) + f"_{method}")
        operation["responses"].pop("422", None)
        _say_parameters(method, path, operation)
        _say_shapes(f"{method.upper()} {path}", operation, schemas)
        for status in sorted(errors_of(method, path, operation)):
            operation["responses"].setdefault(str(status), error_response(status))
        _say_headers(method, path, operation)
        _say_examples(f"{method.upper()} {path}", operation)
        if path.startswith("/v1/"):
            operation["security"] = [{"key": []}, {}]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas["Error"] = ERROR
    components["securitySchemes"] = SECURITY
    return document


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield method, path, operation


def _say_parameters(method: str, path: str, operation: dict[str, Any]) -> None:
    parameters = operation.get("parameters", [])
    for parameter in parameters:
        kinds = [kind for kind in parameter["schema"].get("anyOf", []) if kind != {"type": "null"}]
        if len(kinds) == 1:
            # A parameter is absent or of its type: a URL has no null.
            del parameter["schema"]["anyOf"]
            parameter["schema"].update(kinds[0])
    if parameters := [*parameters, *more_parameters(method, path)]:
        operation["parameters"] = parameters


def _say_shapes(key: str, operation: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Answers that a route renders by hand."""
    for status, shape in SHAPES.get(key, {}).items():
        response = operation["responses"].setdefault(str(status), {"description": shape.description})
        content = response.setdefault("content", {})
        if shape.description:
            response["description"] = shape.description
        if shape.model is not None:
            schemas.update(schemas_of(shape.model))
            content["application/json"] = {"schema": {"$ref": REF + shape.model.__name__}}
        for kind in shape.others:
            content[kind] = {"schema": text_of(kind)}
        for kind in shape.never:
            content.pop(kind, None)
        if not content:
            del response["content"]


def _say_headers(method: str, path: str, operation: dict[str, Any]) -> None:
    for status, response in operation["responses"].items():
        response.setdefault("headers", {}).update(headers_of(method, path, int(status)))


def _say_examples(key: str, operation: dict[str, Any]) -> None:
    example = EXAMPLES.get(key)
    if example is None:
        return
    if example.request is not None:
        for content in operation["requestBody"]["content"].values():
            content["example"] = example.request
    for status, answer in example.answers.items():
        kind = EVENT_STREAM if isinstance(answer, str) else "application/json"
        operation["responses"][str(status)]["content"].setdefault(kind, {})["example"] = answer
