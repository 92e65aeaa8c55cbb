"""The OpenAPI document by itself: whole, and true to its own examples."""

import re
from typing import Any

import jsonschema
import pytest

from api.app import create_app
from api.document.examples import EXAMPLES
from api.document.shapes import SHAPES
from api.document.statuses import WORK
from api.settings import ApiSettings
from jobs.settings import ServiceSettings

pytestmark = pytest.mark.unit

DOCUMENT: dict[str, Any] = create_app(ApiSettings(), ServiceSettings()).openapi()
OPERATIONS: dict[str, dict[str, Any]] = {
    f"{method.upper()} {path}": operation
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
}


def valid(value: Any, schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator(schema | {"components": DOCUMENT["components"]}).validate(value)


def bodies(operation: dict[str, Any]) -> dict[str, Any]:
    """Content type to its schema and example, of every answer that succeeds."""
    return {
        kind: content
        for status, response in operation["responses"].items()
        if status.startswith("2")
        for kind, content in response.get("content", {}).items()
    }


@pytest.mark.parametrize("key", OPERATIONS)
def test_every_operation_says_what_it_is_and_shows_an_example(key: str) -> None:
    operation = OPERATIONS[key]
    assert operation["summary"]
    for content in operation.get("requestBody", {}).get("content", {}).values():
        assert "example" in content
    for kind, content in bodies(operation).items():
        assert "example" in content or kind != "application/json"


@pytest.mark.parametrize("key", OPERATIONS)
def test_examples_keep_their_own_schemas(key: str) -> None:
    operation = OPERATIONS[key]
    requests = operation.get("requestBody", {}).get("content", {})
    answers = [content for r in operation["responses"].values() for content in r.get("content", {}).values()]
    for content in [*requests.values(), *answers]:
        if "example" in content:
            for example in parsed(content["example"]):
                valid(example, content["schema"])


def parsed(example: Any) -> list[Any]:
    """An example is one value, and that of a stream one for each of its events."""
    if not (isinstance(example, str) and "data: " in example):
        return [example]
    blocks = example.strip().split("\n\n")
    return [dict(line.split(": ", 1) for line in block.splitlines()) for block in blocks]


@pytest.mark.parametrize("key", OPERATIONS)
def test_every_status_of_an_operation_is_named_with_its_shape(key: str) -> None:
    responses = OPERATIONS[key]["responses"]
    assert "default" not in responses
    for status, response in responses.items():
        assert response["description"], status
        assert "x-request-id" in response["headers"]
        assert "content" in response or status == "204"
    if key.split()[1].startswith("/v1/"):
        assert {"400", "401", "500", "503"} <= responses.keys()


def test_every_json_answer_says_what_is_in_it() -> None:
    vague = ({}, {"type": "object", "additionalProperties": True})
    for key, operation in OPERATIONS.items():
        for kind, content in bodies(operation).items():
            schema = {name: value for name, value in content["schema"].items() if name != "title"}
            assert kind != "application/json" or schema not in vague, key


def test_shapes_and_examples_are_of_operations_that_exist() -> None:
    assert SHAPES.keys() <= OPERATIONS.keys()
    assert EXAMPLES.keys() <= OPERATIONS.keys()
    assert {f"POST {path}" for path in WORK} <= OPERATIONS.keys()


def test_limits_and_replays_are_told_in_headers_that_are_named() -> None:
    headers = OPERATIONS["POST /v1/jobs"]["responses"]["201"]["headers"].keys()
    assert {"idempotent-replayed", "x-ratelimit-limit-requests", "x-ratelimit-reset-tokens"} <= headers


def test_operations_have_ids_of_their_own() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(set(ids)) == len(ids)


def test_every_reference_leads_somewhere() -> None:
    named = set(re.findall(r"'#/components/schemas/([^']+)'", str(DOCUMENT)))
    assert named == DOCUMENT["components"]["schemas"].keys()
