"""The wire model: what is accepted, what is refused, and under which name."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.body import parse_object
from api.errors import ApiError
from api.refused import REFUSED
from api.response_format import SCHEMA_PARAM, to_json_format
from api.schema import ChatBody, JobBody, validate
from jobs.request import JsonFormat

pytestmark = pytest.mark.unit

USER = {"role": "user", "content": "Hello"}


def body(**fields: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [USER], **fields}


def refusal(fields: dict[str, Any], kind: type[ChatBody] | type[JobBody] = ChatBody) -> ApiError:
    with pytest.raises(ApiError) as caught:
        validate(kind, parse_object(json.dumps(fields).encode()))
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_unsupported_field_is_refused_by_name(field: str) -> None:
    error = refusal(body(**{field: {"type": "json_object"}}))
    assert (error.param, error.code) == (field, "unsupported_parameter")
    assert f"'{field}' is not supported" in error.message


@pytest.mark.parametrize("field", sorted(REFUSED))
def test_unsupported_field_that_is_null_counts_as_absent(field: str) -> None:
    assert validate(ChatBody, body(**{field: None})).model == "m"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("modalities", ["text"]),
        ("service_tier", "auto"),
        ("service_tier", "default"),
    ],
)
def test_unsupported_field_that_asks_for_what_happens_anyway_is_accepted(field: str, value: Any) -> None:
    assert validate(ChatBody, body(**{field: value})).model == "m"


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"messages": [USER]}, "model", "missing_required_parameter"),
        ({"model": "m"}, "messages", "missing_required_parameter"),
        ({"model": 7, "messages": [USER]}, "model", "invalid_type"),
        (body(messages=[]), "messages", "invalid_value"),
        (body(messages="hello"), "messages", "invalid_type"),
        (body(messages=[7]), "messages[0]", "invalid_type"),
        (body(messages=[{"role": "user"}]), "messages[0].content", "missing_required_parameter"),
        (body(messages=[{"content": "x"}]), "messages[0].role", "missing_required_parameter"),
        (body(messages=[{"role": "critic", "content": "x"}]), "messages[0].role", "invalid_value"),
        (body(messages=[{"role": "user", "content": []}]), "messages[0].content", "invalid_value"),
        (body(messages=[{"role": "user", "content": 5}]), "messages[0].content", "invalid_type"),
        (body(messages=[{**USER, "name": "ann"}]), "messages[0].name", "unknown_parameter"),
        (body(messages=[{**USER, "tool_calls": []}]), "messages[0].tool_calls", "unknown_parameter"),
        (
            body(messages=[{"role": "user", "content": [{"type": "input_audio"}]}]),
            "messages[0].content[0]",
            "invalid_value",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "text", "text": 1}]}]),
            "messages[0].content[0].text",
            "invalid_type",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": "http://x"}]}]),
            "messages[0].content[0].image_url",
            "invalid_type",
        ),
        (
            body(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            "messages[0].content[0].image_url.url",
            "missing_required_parameter",
        ),
        (body(messages=[{"role": "user", "content": "a\x00b"}]), "messages[0].content", "invalid_value"),
        (body(max_tokens=0), "max_tokens", "invalid_value"),
        (body(max_tokens=-1), "max_tokens", "invalid_value"),
        (body(max_tokens="5"), "max_tokens", "invalid_type"),
        (body(max_tokens=True), "max_tokens", "invalid_type"),
        (body(max_tokens=10**30), "max_tokens", "invalid_value"),
        (body(max_tokens=1.5), "max_tokens", "invalid_type"),
        (body(max_completion_tokens=0), "max_completion_tokens", "invalid_value"),
        (body(max_tokens=4, max_completion_tokens=5), "max_tokens", "invalid_value"),
        (body(temperature=-0.1), "temperature", "invalid_value"),
        (body(temperature=2.1), "temperature", "invalid_value"),
        (body(temperature="hot"), "temperature", "invalid_type"),
        (body(top_p=0), "top_p", "invalid_value"),
        (body(top_p=1.1), "top_p", "invalid_value"),
        (body(top_k=-1), "top_k", "invalid_value"),
        (body(min_p=1.5), "min_p", "invalid_value"),
        (body(repetition_penalty=0), "repetition_penalty", "invalid_value"),
        (body(presence_penalty=-3), "presence_penalty", "invalid_value"),
        (body(frequency_penalty=3), "frequency_penalty", "invalid_value"),
        (body(logit_bias={"x": 1}), "logit_bias", "invalid_value"),
        (body(logit_bias={"5": 101}), "logit_bias", "invalid_value"),
        (body(logit_bias=[1]), "logit_bias", "invalid_type"),
        (body(seed=2**63), "seed", "invalid_value"),
        (body(seed=1.5), "seed", "invalid_type"),
        (body(n=129), "n", "invalid_value"),
        (body(n=0), "n", "invalid_value"),
        (body(n="1"), "n", "invalid_type"),
        (body(n=True), "n", "invalid_type"),
        (body(stop=["a"] * 5), "stop", "invalid_value"),
        (body(stop=""), "stop", "invalid_value"),
        (body(stop=5), "stop", "invalid_type"),
        (body(stop=["a", 5]), "stop[1]", "invalid_type"),
        (body(min_tokens=-1), "min_tokens", "invalid_value"),
        (body(min_tokens=5, max_tokens=4), "min_tokens", "invalid_value"),
        (body(ignore_eos="yes"), "ignore_eos", "invalid_type"),
        (body(response_format={"type": "xml"}), "response_format", "invalid_value"),
        (body(response_format="json"), "response_format", "invalid_type"),
        (body(response_format={"type": "json_object", "x": 1}), "response_format.x", "unknown_parameter"),
        (body(response_format={"type": "json_schema"}), "response_format.json_schema", "missing_required_parameter"),
        (
            body(response_format={"type": "json_schema", "json_schema": {"name": "a b", "schema": {}}}),
            "response_format.json_schema.name",
            "invalid_value",
        ),
        (
            body(response_format={"type": "json_schema", "json_schema": {"name": "a", "schema": []}}),
            "response_format.json_schema.schema",
            "invalid_type",
        ),
        (body(response_format={"type": "json_object"}, ignore_eos=True), "ignore_eos", "invalid_value"),
        (body(response_format={"type": "json_object"}, min_tokens=3), "min_tokens", "invalid_value"),
        (body(logprobs=3), "logprobs", "invalid_type"),
        (body(top_logprobs=3), "top_logprobs", "invalid_value"),
        (body(logprobs=True, top_logprobs=21), "top_logprobs", "invalid_value"),
        (body(stream="yes"), "stream", "invalid_type"),
        (body(stream_options={}), "stream_options", "invalid_value"),
        (body(stream=True, stream_options={"x": 1}), "stream_options.x", "unknown_parameter"),
        (body(metadata={str(i): "v" for i in range(17)}), "metadata", "invalid_value"),
        (body(metadata={"k" * 65: "v"}), "metadata", "invalid_value"),
        (body(metadata={"k": "v" * 513}), "metadata.k", "invalid_value"),
        (body(metadata={"k": 1}), "metadata.k", "invalid_type"),
        (body(priority="urgent"), "priority", "invalid_value"),
        (body(deadline=[1]), "deadline", "invalid_type"),
        (body(user=5), "user", "invalid_type"),
        (body(nonsense=1), "nonsense", "unknown_parameter"),
        (body(**{"do_sample\n": 1}), "do_sample\n", "unknown_parameter"),
    ],
)
def test_wrong_field_is_refused_with_its_place(fields: dict[str, Any], param: str, code: str) -> None:
    error = refusal(fields)
    assert error.param is not None and error.param.startswith(param)
    assert error.code == code
    assert error.message.endswith(".")


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "nonsense"}, "nonsense"),
        ({"type": "string", "pattern": "(?=a)b"}, "look-around"),
        ({"x-guidance": {"lenient": True}, "not": {}}, "not"),
        ({"description": "x" * (64 << 10)}, "bytes"),
        (json.loads('{"items":' * 300 + "{}" + "}" * 300), "recursion"),
    ],
)
def test_schema_that_cannot_be_kept_is_refused_by_name(schema: dict[str, Any], named: str) -> None:
    wire = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    parsed = validate(ChatBody, body(response_format=wire))
    with pytest.raises(ApiError) as caught:
        to_json_format(parsed.response_format)
    assert (caught.value.param, caught.value.code) == (SCHEMA_PARAM, "invalid_json_schema")
    assert named in caught.value.message


def test_response_formats_become_what_the_engine_keeps() -> None:
    schema = {"type": "object", "properties": {"b": {"type": "integer"}, "a": {"const": 1.5}}}
    wire = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "description": "x", "strict": None}}
    kept = to_json_format(validate(ChatBody, body(response_format=wire)).response_format)
    assert kept is not None and kept.schema is not None
    assert list(json.loads(kept.schema)["properties"]) == ["b", "a"]
    assert to_json_format(validate(ChatBody, body(response_format={"type": "json_object"})).response_format) == (
        JsonFormat()
    )
    assert to_json_format(validate(ChatBody, body(response_format={"type": "text"})).response_format) is None


def test_stream_of_a_job_is_refused_because_its_events_are_followed_instead() -> None:
    assert refusal(body(stream=True), JobBody).param == "stream"
    assert validate(JobBody, body(stream=False)).stream is False


def test_answer_sent_back_with_its_nulls_is_accepted() -> None:
    answer = {"role": "assistant", "content": "Hi", "refusal": None, "tool_calls": None, "audio": None}
    parsed = validate(ChatBody, body(messages=[USER, answer, USER]))
    assert [message.role for message in parsed.messages] == ["user", "assistant", "user"]


def test_every_accepted_field_is_read() -> None:
    fields = body(
        max_completion_tokens=7, temperature=0, top_p=0.5, top_k=4, min_p=0.1, repetition_penalty=1.1,
        presence_penalty=1, frequency_penalty=-1, logit_bias={"5": 1}, seed=-3, n=1, stop="x", logprobs=True,
        top_logprobs=2, metadata={"a": "b"}, user="u", priority="batch", deadline=3, stream=True,
        stream_options={"include_usage": True}, min_tokens=2, ignore_eos=True,
    )  # fmt: skip
    parsed = validate(ChatBody, fields)
    assert parsed.token_limit == 7
    assert parsed.stop == ["x"]
    assert parsed.model_dump(exclude={"messages", "stop"}, exclude_unset=True) == {
        key: value for key, value in fields.items() if key not in ("messages", "stop")
    }


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[1]x", b'{"a": NaN}', b'{"a": 1e999}', b'{"a": "\\ud800"}', b'{"a": "\xff"}', b"\xef\xbb\xbf{}"],
)
def test_malformed_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(raw)
    assert (caught.value.status, caught.value.code) == (400, "invalid_json")


@pytest.mark.parametrize("raw", [b"[" * 200_000, b'{"a":' * 200_000])
def test_deeply_nested_json_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(raw)
    assert caught.value.code == "invalid_json"


@pytest.mark.parametrize("raw", [b"[]", b"null", b'"text"', b"5"])
def test_json_that_is_no_object_is_refused(raw: bytes) -> None:
    with pytest.raises(ApiError) as caught:
        parse_object(raw)
    assert caught.value.code == "invalid_type"


def test_of_equal_keys_the_last_counts() -> None:
    assert parse_object(b'{"a": 1, "a": 2}') == {"a": 2}


@pytest.mark.parametrize(
    "raw", [b"[" * 990 + b"]" * 990, b"1" * 5000, b"-" + b"9" * 400 + b".5", b'"' + b"x" * 10**6 + b'"']
)
@pytest.mark.parametrize("field", ["messages", "seed", "metadata", "stop", "deadline", "logit_bias", "x" * 10_000])
def test_deep_or_long_value_is_refused_in_few_words(field: str, raw: bytes) -> None:
    whole = b'{"model": "m", "messages": [{"role": "user", "content": "x"}], "%b": %b}' % (field.encode(), raw)
    with pytest.raises(ApiError) as caught:
        validate(ChatBody, parse_object(whole))
    assert caught.value.status == 400
    assert len(caught.value.message) < 500


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "video"]) | JSON_VALUES},
    optional={"text": JSON_VALUES, "image_url": JSON_VALUES | st.fixed_dictionaries({"url": JSON_VALUES})},
)
TALK = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "tool"]), "content": JSON_VALUES | st.lists(PARTS)}),
    max_size=2,
)
FIELDS = st.sampled_from([*ChatBody.model_fields, *REFUSED, "other"])


@given(st.dictionaries(FIELDS, JSON_VALUES, max_size=4), TALK | JSON_VALUES)
@settings(max_examples=200, deadline=None)
def test_any_json_object_is_accepted_or_refused_with_a_reason(fields: dict[str, Any], messages: Any) -> None:
    try:
        validate(ChatBody, {"model": "m", "messages": messages} | fields)
    except ApiError as error:
        assert error.status == 400
        assert error.message
        assert error.code
