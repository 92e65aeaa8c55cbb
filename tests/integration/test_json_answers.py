"""Answers under a grammar, from random weights at temperature 1: they parse and keep their schema, and nobody beside
them notices."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
import torch

from worker.engine.generation import Finish, Generation, Grammar, GrammarKind, Sampling, TokenOutput
from worker.engine.grammar import Grammars
from worker.engine.protocol import Rejected
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.integration

OPTIONS = EngineOptions(slots=40, pages=1600, page_size=16, prefill_chunk=512)
MAX_TOKENS = 400
DEMO = Path("models/vlmq-demo")
WORD = {"type": "string", "maxLength": 8}
SMALL = {"type": "integer", "minimum": -99, "maximum": 99}


def _object(required: list[str] | None = None, **properties: Any) -> dict[str, Any]:
    names = list(properties) if required is None else required
    return {"type": "object", "properties": properties, "required": names, "additionalProperties": False}


SCHEMAS: dict[str, dict[str, Any]] = {
    "flat object": _object(name=WORD, age=SMALL, member={"type": "boolean"}),
    "optional properties": _object(["id"], id=SMALL, note=WORD, tag=WORD),
    "nested objects": _object(a=_object(b=_object(c=_object(d={"type": "null"})))),
    "array of integers": {"type": "array", "items": SMALL, "minItems": 2, "maxItems": 5},
    "array of objects": {"type": "array", "items": _object(x=SMALL, y=SMALL), "minItems": 1, "maxItems": 3},
    "tuple": {"type": "array", "prefixItems": [SMALL, WORD, {"type": "boolean"}], "items": False, "minItems": 3},
    "empty array": {"type": "array", "maxItems": 0},
    "enum of strings": _object(colour={"enum": ["red", "green", "deep blue"]}),
    "enum of kinds": _object(value={"enum": ["one", 2, None, True, [1, 2]]}),
    "const": _object(version={"const": 3}, kind={"const": "cat"}),
    "bounded integer": _object(score={"type": "integer", "minimum": 1, "maximum": 10}),
    "exclusive bounds": _object(n={"type": "integer", "exclusiveMinimum": 0, "exclusiveMaximum": 4}),
    "bounded number": _object(share={"type": "number", "minimum": 0, "maximum": 1, "multipleOf": 0.25}),
    "string lengths": _object(code={"type": "string", "minLength": 3, "maxLength": 6}),
    "pattern": _object(plate={"type": "string", "pattern": "^[A-Z]{2}-[0-9]{3,4}$"}),
    "date": _object(on={"type": "string", "format": "date"}),
    "date-time": _object(at={"type": "string", "format": "date-time", "maxLength": 40}),
    "uuid and ipv4": _object(id={"type": "string", "format": "uuid"}, host={"type": "string", "format": "ipv4"}),
    "any of types": _object(v={"anyOf": [SMALL, WORD, {"type": "null"}]}),
    "list of types": _object(v={"type": ["boolean", "null"]}),
    "any of objects": {"anyOf": [_object(a=SMALL), _object(b=WORD)]},
    "one of disjoint": _object(v={"oneOf": [{"type": "boolean"}, SMALL]}),
    "all of": {"allOf": [_object(a=SMALL), {"type": "object", "required": ["a"]}]},
    "definitions": {**_object(p={"$ref": "#/$defs/point"}), "$defs": {"point": _object(x=SMALL, y=SMALL)}},
    "recursive": {
        "$ref": "#/$defs/node",
        "$defs": {
            "node": _object(["v"], v={"type": "boolean"}, next={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/leaf"}]}),
            "leaf": _object(v={"type": "boolean"}),
        },
    },
    "map": {
        "type": "object",
        "patternProperties": {"^[a-z]{1,4}$": WORD},
        "additionalProperties": False,
        "minProperties": 1,
        "maxProperties": 2,
    },
    "pattern properties": {
        "type": "object",
        "patternProperties": {"^n[0-9]$": SMALL},
        "additionalProperties": False,
        "maxProperties": 2,
    },
    "titles and descriptions": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Invoice line",
        **_object(item={**WORD, "description": "What was sold", "examples": ["tea"]}, price={**SMALL, "default": 1}),
    },
}

UNSUPPORTED = {
    "uniqueItems": {"type": "array", "items": SMALL, "uniqueItems": True},
    "not": {"not": {"type": "string"}},
    "if": {"if": {"type": "string"}, "then": {"maxLength": 3}},
    "contains": {"type": "array", "contains": SMALL},
    "dependentRequired": {"type": "object", "dependentRequired": {"a": ["b"]}},
    "propertyNames": {"type": "object", "propertyNames": {"maxLength": 4}},
    "look-ahead": {"type": "string", "pattern": "(?=a)b"},
    "nonsense": {"type": "string", "format": "nonsense"},
    "/$defs/x": {"$ref": "#/$defs/x"} | {"$defs": {}},
    "foo": {"type": "foo"},
    "lenient": {"x-guidance": {"lenient": True}, "type": "array", "uniqueItems": True},
}


@pytest.fixture(scope="module")
def model(tiny_model: Path, device: torch.device) -> Iterator[InternVL]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield InternVL.load(tiny_model, device, torch.float32)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer(tiny_model: Path) -> ChatTokenizer:
    return ChatTokenizer.load(tiny_model)


@pytest.fixture(scope="module")
def grammars(tiny_model: Path, model: InternVL) -> Grammars:
    return Grammars.load(tiny_model, model.vocab_size)


def _ask(name: str, seed: int, tokenizer: ChatTokenizer, schema: Any = None, **changes: Any) -> Generation:
    prompt = np.random.default_rng(seed).integers(5, 1500, 12).tolist()
    grammar = None if schema is None else Grammar(GrammarKind.JSON_SCHEMA, json.dumps(schema))
    stops = tokenizer.ids_of(["<|im_end|>", "<|endoftext|>"])
    asked = Generation(name, prompt, Sampling(seed=seed, temperature=1.0), MAX_TOKENS, stops, grammar=grammar)
    return msgspec.structs.replace(asked, **changes)


def _run(model: InternVL, grammars: Grammars, asked: list[Generation]) -> dict[str, list[TokenOutput]]:
    engine = TorchEngine(model, OPTIONS, grammars)
    for generation in asked:
        engine.submit(generation)
    outputs: dict[str, list[TokenOutput]] = {generation.id: [] for generation in asked}
    while engine.has_work():
        for output in engine.step():
            outputs[output.id].append(output)
    engine.check_integrity()
    return outputs


def _ids(outputs: list[TokenOutput]) -> list[int]:
    return [token.id for output in outputs for token in output.tokens]


def _text(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    return str(tokenizer.whole.decode(ids, skip_special_tokens=True))


def _check_schemas(tokenizer: ChatTokenizer, outputs: dict[str, list[TokenOutput]]) -> None:
    for name, schema in SCHEMAS.items():
        text = _text(tokenizer, _ids(outputs[name]))
        assert outputs[name][-1].finish is Finish.STOP, (name, text)
        jsonschema.validate(json.loads(text), schema, jsonschema.Draft202012Validator)


COMPANIONS = {"plain": {"temperature": 1.0}, "greedy": {}, "nucleus": {"temperature": 1.3, "top_p": 0.8}}


def test_every_schema_is_kept_at_temperature_1_and_companions_do_not_notice(model, grammars, tokenizer):
    beside = [
        _ask(name, 900 + n, tokenizer, sampling=Sampling(seed=n, **values), max_tokens=40)
        for n, (name, values) in enumerate(COMPANIONS.items())
    ]
    asked = [_ask(name, n, tokenizer, schema) for n, (name, schema) in enumerate(SCHEMAS.items())]
    outputs = _run(model, grammars, [*asked, *beside])
    _check_schemas(tokenizer, outputs)
    alone = _run(model, grammars, beside)
    for generation in beside:
        assert _ids(outputs[generation.id]) == _ids(alone[generation.id]), generation.id


def test_demo_model_keeps_every_schema_at_temperature_1(device):
    tokenizer = ChatTokenizer.load(DEMO)
    model = InternVL.load(DEMO, device, torch.float32)
    start, end = tokenizer.id_of("<|im_start|>"), tokenizer.id_of("<|im_end|>")
    question = tokenizer.encode("user\nWhat is in the picture? Answer in JSON.")
    prompt = [start, *question, end, *tokenizer.encode("\n"), start, *tokenizer.encode("assistant\n")]
    asked = [_ask(name, n, tokenizer, schema, prompt_ids=prompt) for n, (name, schema) in enumerate(SCHEMAS.items())]
    _check_schemas(tokenizer, _run(model, Grammars.load(DEMO, model.vocab_size), asked))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"temperature": 2.0, "top_k": 5},
        {"temperature": 1.5, "top_p": 0.5},
        {"temperature": 1.0, "min_p": 0.2, "repetition_penalty": 1.3},
        {"temperature": 0.7, "logit_bias": {300: 100.0}, "frequency_penalty": 0.5},
    ],
    ids=str,
)
def test_grammar_goes_with_every_way_to_sample(model, grammars, tokenizer, values):
    names = ("enum of kinds", "tuple", "uuid and ipv4", "const")
    asked = [
        _ask(name, n, tokenizer, SCHEMAS[name], sampling=Sampling(seed=5, **values)) for n, name in enumerate(names)
    ]
    for name, given in _run(model, grammars, asked).items():
        assert given[-1].finish is Finish.STOP
        jsonschema.validate(json.loads(_text(tokenizer, _ids(given))), SCHEMAS[name])


def test_continuation_follows_the_grammar_from_where_it_was(model, grammars, tokenizer):
    whole = _ask("whole", 3, tokenizer, SCHEMAS["array of objects"])
    ids = _ids(_run(model, grammars, [whole])["whole"])
    rests = [msgspec.structs.replace(whole, id=str(split), generated=ids[:split]) for split in range(1, len(ids), 3)]
    for name, given in _run(model, grammars, rests).items():
        assert _ids(given) == ids[int(name) :]


def test_earlier_tokens_that_break_the_grammar_are_refused(model, grammars, tokenizer):
    engine = TorchEngine(model, OPTIONS, grammars)
    with pytest.raises(Rejected, match="do not keep the grammar"):
        engine.submit(_ask("a", 1, tokenizer, SCHEMAS["tuple"], generated=tokenizer.encode("hello")))


def test_answer_that_max_tokens_cuts_ends_with_length(model, grammars, tokenizer):
    outputs = _run(model, grammars, [_ask("a", 1, tokenizer, SCHEMAS["array of objects"], max_tokens=3)])["a"]
    assert (outputs[-1].finish, len(_ids(outputs))) == (Finish.LENGTH, 3)


def test_logprobs_under_a_grammar_are_the_models_own(model, grammars, tokenizer):
    sampling = Sampling(logprobs=2)
    asked = [
        _ask("free", 1, tokenizer, max_tokens=1, sampling=sampling),
        _ask("kept", 1, tokenizer, SCHEMAS["tuple"], max_tokens=1, sampling=sampling),
    ]
    outputs = _run(model, grammars, asked)
    free, kept = (outputs[name][0].tokens[0] for name in ("free", "kept"))
    assert [top.id for top in kept.top] == [top.id for top in free.top]
    assert kept.id != free.id
    assert kept.logprob < free.logprob


def test_any_json_object_is_one(model, grammars, tokenizer):
    grammar = Grammar(GrammarKind.JSON_OBJECT)
    asked = [_ask(str(n), n, tokenizer, max_tokens=60) for n in range(8)]
    outputs = _run(model, grammars, [msgspec.structs.replace(a, grammar=grammar) for a in asked])
    for given in outputs.values():
        text = _text(tokenizer, _ids(given))
        assert text.startswith("{")
        if given[-1].finish is Finish.STOP:
            assert isinstance(json.loads(text), dict)


@pytest.mark.parametrize("named", UNSUPPORTED)
def test_schema_that_cannot_be_kept_is_refused_by_name(grammars, tokenizer, named):
    grammar = Grammar(GrammarKind.JSON_SCHEMA, json.dumps(UNSUPPORTED[named]))
    with pytest.raises(Rejected) as caught:
        grammars.matcher(grammar, tokenizer.ids_of(["<|im_end|>"]))
    assert caught.value.code == "invalid_json_schema"
    assert named.replace("lenient", "uniqueItems") in str(caught.value)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        ("[1]", "object"),
        ("{", "no JSON"),
        ('{"not":' * 300 + "1" + "}" * 300, "recursion"),
        ('{"a":"' + "x" * (1 << 17) + '"}', "bytes"),
    ],
)
def test_text_that_is_no_schema_is_refused(grammars, tokenizer, schema, word):
    with pytest.raises(Rejected, match=word):
        grammars.matcher(Grammar(GrammarKind.JSON_SCHEMA, schema), tokenizer.ids_of(["<|im_end|>"]))


def test_grammar_without_an_end_is_refused(grammars):
    with pytest.raises(Rejected, match="stop_ids"):
        grammars.matcher(Grammar(GrammarKind.JSON_OBJECT), [])
