"""An answer's text read as it comes: what is said, what is called, and that nothing is lost on the way."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.tool_calls import CallArguments, CallEnded, CallStarted, Piece, Said, TextDelta, call_id, joined
from api.tool_parser import ToolParser
from jobs.tools import Tool, ToolCall, ToolFormat, ToolMode, ToolUse

pytestmark = pytest.mark.unit

TOOLS = (Tool("get_weather"), Tool("add"))
FORMATS = list(ToolFormat)


def use(format: ToolFormat, mode: ToolMode = ToolMode.AUTO) -> ToolUse:
    return ToolUse(format, TOOLS, mode)


def read(tools: ToolUse | None, *texts: str, guarded: bool = False) -> list[Piece]:
    parser = ToolParser(tools, lambda index: f"id{index}", guarded)
    return [*(piece for text in texts for piece in parser.push(text)), *parser.flush()]


def call(format: ToolFormat, name: str, arguments: str) -> str:
    """As the family writes it."""
    marks = format.marks
    return f'{marks.opening}\n{{"name": "{name}", "{marks.arguments}": {arguments}}}{marks.gap}{marks.closing}'


@pytest.mark.parametrize("format", FORMATS)
def test_call_behind_text_is_a_call_and_the_text_stays(format):
    text = "Let me look.\n" + call(format, "get_weather", '{"city": "Paris"}')
    assert read(use(format), text) == [
        TextDelta("Let me look."),
        CallStarted(0, "id0", "get_weather"),
        CallArguments(0, '{"city": "Paris"}'),
        CallEnded(0),
    ]


@pytest.mark.parametrize("format", FORMATS)
def test_several_calls_are_numbered_and_text_behind_them_is_said(format):
    text = "\n".join([call(format, "add", '{"a": 1}'), call(format, "add", '{"a": 2}'), "Done."])
    assert joined(read(use(format), text)) == Said(
        "\nDone.", (ToolCall("id0", "add", '{"a": 1}'), ToolCall("id1", "add", '{"a": 2}'))
    )


@pytest.mark.parametrize("format", FORMATS)
def test_marks_inside_a_string_of_the_arguments_end_nothing(format):
    arguments = json.dumps({"city": f'}} {format.marks.closing} \\" {format.marks.opening}'}, ensure_ascii=False)
    assert joined(read(use(format), call(format, "add", arguments))).calls == (ToolCall("id0", "add", arguments),)


@pytest.mark.parametrize("key", ["arguments", "parameters"])
def test_either_key_of_the_arguments_is_read(key):
    marks = ToolFormat.QWEN.marks
    text = f'{marks.opening}{{"{key}": {{}}, "name": "add"}}{marks.closing}'
    assert joined(read(use(ToolFormat.QWEN), text)) == Said("", (ToolCall("id0", "add", "{}"),))


def test_call_without_arguments_has_an_empty_object():
    text = '<tool_call>{"name": "add"}</tool_call>'
    assert joined(read(use(ToolFormat.QWEN), text)).calls == (ToolCall("id0", "add", "{}"),)


def test_whole_call_at_the_answers_end_needs_no_closing_mark():
    text = '<tool_call>\n{"name": "add", "arguments": {"a": 1}}\n</tool'
    assert joined(read(use(ToolFormat.QWEN), text)) == Said("", (ToolCall("id0", "add", '{"a": 1}'),))


MALFORMED = {
    "unknown function": '{"name": "drop_table", "arguments": {}}',
    "no name": '{"arguments": {}}',
    "arguments of another kind": '{"name": "add", "arguments": [1]}',
    "arguments as a string": '{"name": "add", "arguments": "{}"}',
    "no JSON": '{"name": "add", "arguments": {a: 1}}',
    "brackets that do not match": '{"name": "add", "arguments": {"a": [1}}',
    "a line break in a string": '{"name": "add", "arguments": {"a": "\n"}}',
    "two objects": '{"name": "add", "arguments": {}} {"name": "add", "arguments": {}}',
    "a list": '[{"name": "add", "arguments": {}}]',
    "words": "I call add",
    "nothing": "",
    "a hundred brackets": '{"name": "add", "arguments": {"a": ' + "[" * 100 + "]" * 100 + "}}",
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_call_stays_text_to_the_letter(format, kind):
    marks = format.marks
    text = f"So: {marks.opening}\n{MALFORMED[kind]}\n{marks.closing} and so on."
    assert joined(read(use(format), text)) == Said(text, ())


@pytest.mark.parametrize("format", FORMATS)
def test_good_call_behind_a_malformed_one_is_a_call(format):
    text = f"{format.marks.opening} so {call(format, 'add', '{}')}"
    assert joined(read(use(format), text)) == Said(f"{format.marks.opening} so", (ToolCall("id0", "add", "{}"),))


def test_call_cut_by_the_end_stays_text():
    text = 'Well: <tool_call>\n{"name": "add", "arguments": {"a'
    assert joined(read(use(ToolFormat.QWEN), text)) == Said(text, ())


def test_other_familys_marks_are_text():
    text = call(ToolFormat.INTERNLM, "add", "{}")
    assert joined(read(use(ToolFormat.QWEN), text)) == Said(text, ())


@pytest.mark.parametrize("tools", [None, use(ToolFormat.QWEN, ToolMode.NONE)])
def test_calls_of_an_answer_that_may_not_call_are_text(tools):
    text = " Well:\n" + call(ToolFormat.QWEN, "add", "{}") + "\n"
    assert read(tools, text) == [TextDelta(text)]


def test_function_that_the_choice_leaves_out_cannot_be_called():
    only = ToolUse(ToolFormat.QWEN, TOOLS, only=("get_weather",))
    text = call(ToolFormat.QWEN, "add", "{}")
    assert joined(read(only, text)) == Said(text, ())


def test_guarded_call_comes_as_it_is_written():
    parser = ToolParser(use(ToolFormat.QWEN), str, guarded=True)
    assert parser.push('<tool_call>\n{"name": "add", "argu') == []
    assert parser.push('ments": {"a": ') == [CallStarted(0, "0", "add"), CallArguments(0, '{"a": ')]
    assert parser.push("1") == [CallArguments(0, "1")]
    assert parser.push("2}}\n</tool_") == [CallArguments(0, "2}")]
    assert parser.push("call>") == [CallEnded(0)]
    assert parser.flush() == []


def test_guarded_call_cut_by_the_end_keeps_the_beginning_of_its_arguments():
    pieces = read(use(ToolFormat.QWEN), '<tool_call>\n{"name": "add", "arguments": {"a": "x', guarded=True)
    assert pieces == [CallStarted(0, "id0", "add"), CallArguments(0, '{"a": "x')]


def test_call_ids_depend_on_job_choice_and_place():
    ids = {call_id(job, choice, index) for job in ("a", "b") for choice in range(3) for index in range(3)}
    assert len(ids) == 18
    assert call_id("a", 0, 0) == call_id("a", 0, 0)
    assert all(name.startswith("call_") and len(name) == 29 for name in ids)


FRAGMENTS = [
    "Hi",
    " ",
    "\n",
    "<",
    "<tool_",
    "</tool_call>",
    '{"name": "add"',
    '"',
    "}",
    '{"a": 1',
    "é",
    "\\",
    "<|action",
]


@st.composite
def answers(draw: st.DrawFn) -> tuple[ToolFormat, str]:
    """Whole calls, marks, broken pieces and text in any order."""
    format = draw(st.sampled_from(FORMATS))
    arguments = st.dictionaries(st.text(max_size=4), st.text(max_size=6) | st.integers(), max_size=3)
    whole = st.builds(lambda a, n: call(format, n, json.dumps(a)), arguments, st.sampled_from(["add", "no"]))
    marks = st.sampled_from([format.marks.opening, format.marks.closing])
    return format, "".join(draw(st.lists(st.one_of(whole, marks, st.sampled_from(FRAGMENTS), st.text()), max_size=8)))


def _cut(text: str, places: list[int]) -> list[str]:
    ends = sorted({place % (len(text) + 1) for place in places})
    return [text[start:end] for start, end in zip([0, *ends], [*ends, len(text)], strict=True)]


def _merged(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring deltas as one."""
    merged: list[Piece] = []
    for piece in pieces:
        match merged[-1:], piece:
            case [TextDelta(before)], TextDelta(text):
                merged[-1] = TextDelta(before + text)
            case [CallArguments(index, before)], CallArguments(_, delta):
                merged[-1] = CallArguments(index, before + delta)
            case _:
                merged.append(piece)
    return merged


@given(answers(), st.lists(st.integers(0, 10_000), max_size=8), st.booleans())
def test_pieces_do_not_depend_on_how_the_text_is_cut(answer, places, guarded):
    format, text = answer
    tools = use(format)
    letters = _merged(read(tools, *text, guarded=guarded))
    assert _merged(read(tools, text, guarded=guarded)) == letters
    assert _merged(read(tools, *_cut(text, places), guarded=guarded)) == letters


@given(answers())
def test_nothing_of_a_free_answer_is_lost(answer):
    """Calls apart, only white space beside marks may go."""
    format, text = answer
    found = joined(read(use(format), text))
    kept = "".join(found.text.split())
    for one in found.calls:
        assert isinstance(json.loads(one.arguments), dict)
        assert one.name == "add"
        assert one.arguments in text
    if not found.calls:
        assert found.text == text
    left = iter("".join(text.split()))
    assert all(letter in left for letter in kept), "the text is a part of the answer, in its order"
