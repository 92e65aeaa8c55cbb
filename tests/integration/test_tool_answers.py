"""Calls that a grammar keeps, from random weights at temperature 1 and from the demo model: required ones, where each
answer is nothing but calls, and those that a model begins by itself. Their arguments keep the functions' schemas."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from api.tool_calls import CallEnded, Piece, TextDelta, joined
from api.tool_parser import ToolParser
from jobs.request import ChatRequest, JsonFormat, Message, Role, TextPart
from jobs.request import Sampling as Asked
from jobs.tools import Tool, ToolFormat, ToolMode, ToolUse
from worker.detokenizer import Detokenizers
from worker.engine.generation import Finish, Generation, Grammar, Sampling, TokenOutput
from worker.engine.grammar import Grammars
from worker.engine.torch.engine import TorchEngine
from worker.engine.torch.internvl import InternVL
from worker.engine.torch.options import EngineOptions
from worker.grammar_of import grammar_of
from worker.prompt import PromptBuilder
from worker.tokenizer import ChatTokenizer

pytestmark = pytest.mark.integration

DEMO = Path("models/vlmq-demo")
OPTIONS = EngineOptions(slots=24, pages=1600, page_size=16, prefill_chunk=512)
QUESTION = (Message(Role.USER, (TextPart("What is the weather in Paris?"),)),)
WORD = {"type": "string", "maxLength": 5}
SCHEMAS: dict[str, dict[str, Any] | None] = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": WORD,
            "unit": {"enum": ["C", "F"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 9},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    },
    "draw": {
        "properties": {"at": {"$ref": "#/$defs/point"}, "label": {"anyOf": [WORD, {"type": "null"}]}},
        "required": ["at"],
        "additionalProperties": False,
        "$defs": {"point": {"type": "array", "items": {"enum": [0, 1, 22]}, "minItems": 2, "maxItems": 2}},
    },
    "now": None,
}
TOOLS = tuple(Tool(name, None, None if schema is None else json.dumps(schema)) for name, schema in SCHEMAS.items())


class Bench:
    """A model with everything from a request to the pieces of its answers."""

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.model = InternVL.load(folder, device, torch.float32)
        self.tokenizer = ChatTokenizer.load(folder)
        self.prompts = PromptBuilder(self.tokenizer, self.model.vocab_size, 16, 4096)
        self._grammars = Grammars.load(folder, self.model.vocab_size)
        self._stops = self.tokenizer.ids_of(["<|im_end|>", "<|endoftext|>"])

    def generation(self, request: ChatRequest, max_tokens: int = 1200, generated: Sequence[int] = ()) -> Generation:
        asked = request.sampling
        return Generation(
            id=str(asked.seed),
            prompt_ids=self.prompts.build(request.messages, [], (), request.tools).ids,
            sampling=Sampling(seed=asked.seed, temperature=asked.temperature),
            max_tokens=max_tokens,
            stop_ids=self._stops,
            generated=list(generated),
            grammar=grammar_of(request, self.prompts.has_token),
        )

    def run(self, generations: Sequence[Generation]) -> dict[str, list[TokenOutput]]:
        engine = TorchEngine(self.model, OPTIONS, self._grammars)
        outputs: dict[str, list[TokenOutput]] = {generation.id: [] for generation in generations}
        for generation in generations:
            engine.submit(generation)
        while engine.has_work():
            for output in engine.step():
                outputs[output.id].append(output)
        engine.check_integrity()
        return outputs

    def keeps(self, grammar: Grammar, text: str) -> bool:
        ids = self.tokenizer.whole.encode(text, add_special_tokens=False).ids
        return self._grammars.matcher(grammar, self._stops).take(ids)

    def pieces(self, request: ChatRequest, ids: Sequence[int]) -> list[Piece]:
        use = request.tools
        assert use is not None
        detokenizer = Detokenizers(self.tokenizer).new(use.shown)
        parser = ToolParser(use, str, request.guarded)
        texts = [*(detokenizer.push(i) for i in ids if i not in self._stops), detokenizer.flush()]
        return [*(piece for text in texts for piece in parser.push(text)), *parser.flush()]


def ids_of(outputs: list[TokenOutput]) -> list[int]:
    return [token.id for output in outputs for token in output.tokens]


def ask(seed: int, use: ToolUse, json_format: JsonFormat | None = None) -> ChatRequest:
    return ChatRequest(QUESTION, Asked(seed, temperature=1.0), json_format=json_format, tools=use)


def use(format: ToolFormat = ToolFormat.QWEN, mode: ToolMode = ToolMode.REQUIRED, **changes: Any) -> ToolUse:
    return ToolUse(format, TOOLS, mode, **changes)


@pytest.fixture(scope="module", params=["tiny", "demo"])
def bench(request: pytest.FixtureRequest, tiny_model: Path, device: torch.device) -> Iterator[Bench]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Bench(tiny_model if request.param == "tiny" else DEMO, device)
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path, device: torch.device) -> Bench:
    return Bench(tiny_model, device)


def check(pieces: list[Piece]) -> list[str]:
    """Names of the calls, which are whole and keep their schemas."""
    found = joined(pieces)
    assert found.text == ""
    assert sum(isinstance(piece, CallEnded) for piece in pieces) == len(found.calls)
    for call in found.calls:
        schema = SCHEMAS[call.name] or {"type": "object", "maxProperties": 0}
        jsonschema.validate(json.loads(call.arguments), schema, jsonschema.Draft202012Validator)
    return [call.name for call in found.calls]


def test_required_call_always_keeps_a_functions_schema(bench):
    asked = [ask(n, use(list(ToolFormat)[n % 2], parallel=n % 5 == 0)) for n in range(6)]
    outputs = bench.run([bench.generation(request) for request in asked])
    for n, request in enumerate(asked):
        ids = ids_of(outputs[str(n)])
        names = check(bench.pieces(request, ids))
        assert outputs[str(n)][-1].finish is Finish.STOP, bench.tokenizer.whole.decode(ids)
        assert names if request.tools.parallel else len(names) == 1


@pytest.mark.parametrize("name", SCHEMAS)
def test_named_function_is_called_once(tiny, name):
    request = ask(3, use(only=(name,)))
    outputs = tiny.run([tiny.generation(request)])["3"]
    assert check(tiny.pieces(request, ids_of(outputs))) == [name]


def begun(bench: Bench, format: ToolFormat) -> list[int]:
    """What a model says that has just decided to call."""
    return list(bench.tokenizer.whole.encode("Let me see. " + format.marks.opening, add_special_tokens=False).ids)


def call_by_itself(bench: Bench, request: ChatRequest, max_tokens: int = 1200) -> tuple[list[Piece], TokenOutput]:
    head = begun(bench, request.tools.format)
    outputs = bench.run([bench.generation(request, max_tokens, head)])[str(request.sampling.seed)]
    return bench.pieces(request, [*head, *ids_of(outputs)]), outputs[-1]


@pytest.mark.parametrize("format", ToolFormat)
def test_call_of_a_strict_function_keeps_its_schema_when_the_model_begins_it(bench, format):
    strict = tuple(Tool(tool.name, None, tool.parameters, strict=True) for tool in TOOLS)
    for seed in range(2):
        request = ask(seed, ToolUse(format, strict, ToolMode.AUTO, parallel=False))
        pieces, last = call_by_itself(bench, request)
        assert last.finish is Finish.STOP
        assert joined(pieces).text == "Let me see."
        assert len(check([piece for piece in pieces if not isinstance(piece, TextDelta)])) == 1


def test_text_and_further_calls_may_follow_a_strict_call_where_several_may_come(tiny):
    request = ask(7, ToolUse(ToolFormat.QWEN, (Tool("now", strict=True),), ToolMode.AUTO))
    pieces, _ = call_by_itself(tiny, request, max_tokens=160)
    found = joined(pieces)
    assert [call.name for call in found.calls][:1] == ["now"]
    assert found.text.startswith("Let me see.") and len(found.text) > len("Let me see.")


def test_second_call_does_not_come_where_calls_are_not_parallel(bench):
    request = ask(9, use(mode=ToolMode.AUTO, parallel=False))
    grammar = grammar_of(request, bench.prompts.has_token)
    one = '<tool_call>\n{"name": "now", "arguments": {}}\n</tool_call>'
    for text, kept in [("Hm. " + one, True), ("Hm < ha", True), (f"{one}\n{one}", False), (f"{one} Hm.", False)]:
        assert bench.keeps(grammar, text) is kept, text


def test_json_answer_beside_tools_is_either(tiny):
    schema = {"type": "object", "properties": {"ok": {"type": "boolean"}}, "required": ["ok"], "maxProperties": 1}
    asked = [ask(n, use(mode=ToolMode.AUTO), JsonFormat(json.dumps(schema))) for n in range(8)]
    outputs = tiny.run([tiny.generation(request) for request in asked])
    kinds = set()
    for n, request in enumerate(asked):
        pieces = tiny.pieces(request, ids_of(outputs[str(n)]))
        text = joined(pieces).text
        kinds.add(bool(text))
        if text:
            jsonschema.validate(json.loads(text), schema)
        else:
            assert check(pieces)
    assert kinds == {True, False}


def test_continuation_of_a_call_gives_the_same_ids_and_pieces(tiny):
    request = ask(5, use(only=("get_weather",)))
    ids = ids_of(tiny.run([tiny.generation(request)])["5"])
    for split in range(1, len(ids), 9):
        rest = tiny.run([tiny.generation(request, generated=ids[:split])])["5"]
        assert [*ids[:split], *ids_of(rest)] == ids


def test_call_that_max_tokens_cuts_is_a_beginning(tiny):
    request = ask(1, use(only=("get_weather",)))
    whole = ids_of(tiny.run([tiny.generation(request)])["1"])
    text = joined(tiny.pieces(request, whole)).calls[0].arguments
    for limit in range(1, len(whole) - 4, 9):
        outputs = tiny.run([tiny.generation(request, max_tokens=limit)])["1"]
        found = joined(tiny.pieces(request, ids_of(outputs)))
        assert outputs[-1].finish is Finish.LENGTH
        assert all(text.startswith(call.arguments) for call in found.calls)


def test_tokens_of_marks_are_drawn_as_such_where_the_checkpoint_has_them(tiny):
    request = ask(2, use(only=("now",)))
    ids = ids_of(tiny.run([tiny.generation(request)])["2"])
    marks = tiny.tokenizer.ids_of(["<tool_call>", "</tool_call>"])
    assert (ids[0], ids[-2]) == tuple(marks)
