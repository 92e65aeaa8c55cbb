"""What foreign pages and hostile bytes do at the door of a server: no forged events, headers, files, deep bodies."""

import json

import httpx2
import pytest

from tests.fixtures.api import MODEL, ServedApi, tokens_of

pytestmark = pytest.mark.integration

CHAT = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8700", "127.0.0.1.evil.example", "10.0.0.1", "[::2]:1"])
def test_foreign_host_name_is_refused_while_there_are_no_keys(http: httpx2.Client, host: str) -> None:
    answer = http.get("/v1/jobs", headers={"host": host})
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "not_this_machine")


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:8700", "127.8.8.8", "[::1]:8700", "a.localhost"]
)
def test_name_of_this_machine_is_accepted(http: httpx2.Client, host: str) -> None:
    assert http.get("/v1/jobs", headers={"host": host}).status_code == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "file://", "http://127.0.0.1.evil.example"])
def test_upload_by_a_form_of_a_foreign_page_is_refused(http: httpx2.Client, origin: str) -> None:
    form = {"data": {"purpose": "user_data"}, "files": {"file": ("a.txt", b"x")}}
    answer = http.post("/v1/files", headers={"origin": origin}, **form)  # type: ignore[arg-type]
    assert (answer.status_code, answer.json()["error"]["code"]) == (403, "foreign_origin")
    own = http.post("/v1/files", headers={"origin": "http://localhost:3000"}, **form)  # type: ignore[arg-type]
    assert own.status_code == 200, own.text


def test_no_page_may_ask_ahead_or_read(http: httpx2.Client) -> None:
    ahead = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    assert http.options("/v1/jobs", headers=ahead).status_code == 405
    answer = http.get("/v1/models", headers={"origin": "https://evil.example"})
    assert not [name for name in answer.headers if name.startswith("access-control-")]


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
)
def test_job_by_what_a_page_may_send_unasked_is_refused(http: httpx2.Client, kind: str) -> None:
    answer = http.post("/v1/chat/completions", content=b"{}", headers={"content-type": kind})
    assert answer.status_code == 415


@pytest.mark.parametrize("given", ["a b", "x" * 129, "ä".encode().decode("latin-1"), "a;b", "<script>"])
def test_request_id_that_is_no_plain_word_is_replaced(http: httpx2.Client, given: str) -> None:
    shown = http.get("/healthz", headers=[(b"x-request-id", given.encode("latin-1"))]).headers["x-request-id"]
    assert shown.startswith("req_")


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", 'a"; filename=b', "ä\u202e.txt", "%0d%0aset-cookie: b=c", "C:\\x"]
)
def test_name_of_an_upload_is_only_a_name(http: httpx2.Client, name: str) -> None:
    made = http.post("/v1/files", data={"purpose": "user_data"}, files={"file": (name, b"bytes")}).json()
    answer = http.get(f"/v1/files/{made['id']}/content")
    assert answer.content == b"bytes"
    assert answer.headers["content-type"] == "application/octet-stream"
    shown = answer.headers["content-disposition"]
    assert shown.startswith("attachment; filename*=UTF-8''")
    assert not set(shown.partition("''")[2]) & set('/\\"; :\r\n')
    assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("file_id", ["..%2f..%2fetc%2fpasswd", "file-%2e%2e", "file-x%00", "file-" + "a" * 5000])
def test_id_of_a_file_is_no_path(http: httpx2.Client, file_id: str) -> None:
    assert http.get(f"/v1/files/{file_id}/content").status_code in (400, 404)


@pytest.mark.parametrize("path", ["/v1/jobs", "/v1/chat/completions", "/v1/responses", "/v1/batches"])
def test_deep_body_is_refused_and_the_server_lives(http: httpx2.Client, path: str) -> None:
    for body in (nested(200_000), '{"metadata":' + nested(200_000) + "}", '{"a":' * 100_000):
        answer = http.post(path, content=body.encode(), headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text[:300]
    assert http.get("/healthz").status_code == 200


@pytest.mark.parametrize("depth", [400, 900])
def test_deep_schema_is_refused_by_name(http: httpx2.Client, depth: int) -> None:
    schema = '{"type":"array","items":' * depth + '{"type":"null"}' + "}" * depth
    asked = {
        "response_format": f'{{"type":"json_schema","json_schema":{{"name":"x","schema":{schema}}}}}',
        "tools": f'[{{"type":"function","function":{{"name":"x","parameters":{schema}}}}}]',
    }
    for field, value in asked.items():
        messages = '[{"role":"user","content":"hi"}]'
        body = f'{{"model":"{MODEL}","messages":{messages},"{field}":{value}}}'
        answer = http.post("/v1/chat/completions", content=body, headers={"content-type": "application/json"})
        assert answer.status_code == 400, (field, answer.text[:300])


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/responses/input_tokens"])
@pytest.mark.parametrize("depth", [122, 300, 985])
def test_deep_value_is_shown_again_or_refused(http: httpx2.Client, path: str, depth: int) -> None:
    said = f'{{"type":"output_text","text":"x","annotations":{nested(depth)}}}'
    tool = f'{{"type":"function","name":"f","parameters":{{"type":"object","x":{nested(depth)}}}}}'
    for body in (
        f'{{"model":"{MODEL}","input":[{{"role":"assistant","content":[{said}]}}]}}',
        f'{{"model":"{MODEL}","input":"x","tools":[{tool}]}}',
    ):
        background = body if path.endswith("tokens") else body.replace('"model"', '"background":true,"model"', 1)
        answer = http.post(path, content=background, headers={"content-type": "application/json"})
        if depth > 128:
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_json")
        elif path == "/v1/responses":
            made = f"/v1/responses/{answer.json()['id']}"
            shown = [http.get(made), http.get(f"{made}/input_items"), http.post(f"{made}/cancel")]
            assert [each.status_code for each in shown] == [200] * 3


@pytest.mark.parametrize("depth", [600, 1000, 5000])
def test_deep_input_item_is_refused_by_name(http: httpx2.Client, depth: int) -> None:
    call = {"type": "function_call", "call_id": "a", "name": "b", "arguments": '{"a":' + nested(depth) + "}"}
    said = f'{{"model":"{MODEL}","input":[{{"role":"user","content":{nested(depth)}}}]}}'
    for content in (said, json.dumps({"model": MODEL, "input": [call]})):
        answer = http.post("/v1/responses", content=content, headers={"content-type": "application/json"})
        assert answer.status_code == 400, answer.text[:300]


def test_schema_that_names_another_place_is_never_fetched(http: httpx2.Client) -> None:
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"$ref": "http://127.0.0.1:1/x"}}}
    answer = http.post("/v1/chat/completions", json=CHAT | {"response_format": format_})
    assert answer.json()["error"]["code"] == "invalid_json_schema"


ONES = [{"type": "string", "pattern": "a" * count + "b"} for count in range(1, 30)]
"""Each alone is cheap; what they are together has a state for each set of them."""


def test_schema_that_costs_more_with_each_part_than_all_before_is_refused_by_name(http: httpx2.Client) -> None:
    """Compiled to its end, it takes hours and all memory."""
    format_ = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"allOf": ONES}}}
    error = http.post("/v1/chat/completions", json=CHAT | {"response_format": format_}).json()["error"]
    assert (error["code"], error["param"]) == ("invalid_json_schema", "response_format.json_schema.schema")
    assert "too much time or memory" in error["message"]
    plain = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"allOf": ONES[:2]}}}
    accepted = http.post("/v1/jobs", json=CHAT | {"response_format": plain})
    assert accepted.status_code == 201, accepted.text


def test_text_of_an_answer_cannot_forge_events(api: ServedApi, http: httpx2.Client) -> None:
    words = ("a\n\ndata: [DONE]\n\n", "\r\nevent: job.completed\r\nid: 99\r\n\r\n", "\u2028\u2029\x00", "end")
    with api.worker.serving(lambda job: api.worker.answer(job, tokens_of(words))):
        text = http.post("/v1/chat/completions", json=CHAT | {"stream": True}).content
    events = text.split(b"\n\n")
    assert events[-1] == b"" and events[-2] == b"data: [DONE]"
    assert text.count(b"data: [DONE]\n\n") == 1
    assert b"\r" not in text
    assert all(event.startswith((b"data: {", b":")) and b"\n" not in event for event in events[:-2])
