"""What is known to go wrong with TensorRT-LLM's executor, one test each: it fails when the engine steps into it. The
executor is the stand-in, which has all of it. Here: its queue, its responses, and how answers end."""

import threading
import time
from typing import Any

import msgspec
import pytest

from tests.fixtures.engines import (
    END_S,
    SLOTS,
    Outputs,
    ask,
    drive,
    finishes_of,
    step_until,
    tokens_of,
)
from tests.fixtures.models import Reference
from worker.engine.generation import Finish
from worker.engine.protocol import Rejected
from worker.engine.tensorrt.engine import TensorRTEngine

pytestmark = pytest.mark.contract


def test_responses_that_come_before_their_requests_id_are_not_lost(
    trt_engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    asked = [ask(str(n), 10 + n) for n in range(6)]
    expected = {g.id: tiny_reference.generate(g.prompt_ids, None, 8) for g in asked}
    answers: dict[str, list[int]] = {}
    for generation in asked:
        answers |= {name: tokens_of(each) for name, each in drive(trt_engine, generation).items()}
    assert answers == expected


def test_ends_with_and_without_the_end_id_and_with_no_token_at_all_are_told_alike(
    trt_engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    generation = ask("", 20, 30)
    whole = tiny_reference.generate(generation.prompt_ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    outputs = drive(trt_engine, *(msgspec.structs.replace(generation, id=str(n), stop_ids=[end]) for n in range(6)))
    assert {tuple(tokens_of(each)) for each in outputs.values()} == {tuple(whole[: whole.index(end) + 1])}
    assert set(finishes_of(outputs).values()) == {Finish.STOP}


def test_other_stop_ids_end_an_answer_without_stop_words_which_leak_memory(
    trt_engine: TensorRTEngine, driven_executor: Any, tiny_reference: Reference
) -> None:
    generation = ask("a", 21, max_tokens=200)
    whole = tiny_reference.generate(generation.prompt_ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    never = next(token for token in range(5, 99) if token not in whole)
    outputs = drive(trt_engine, msgspec.structs.replace(generation, stop_ids=[never, end]))
    assert tokens_of(outputs["a"]) == whole[: whole.index(end) + 1] and finishes_of(outputs) == {"a": Finish.STOP}
    assert [request.stop_words for request in driven_executor.requests] == [None]


def test_context_that_ends_before_max_tokens_is_told_as_a_length(trt_engine: TensorRTEngine) -> None:
    """The executor would shorten the answer with a line in its log."""
    outputs = drive(trt_engine, ask("a", 98, length=1016, max_tokens=500))
    assert finishes_of(outputs) == {"a": Finish.LENGTH} and len(tokens_of(outputs["a"])) == 8
    with pytest.raises(Rejected, match="it must fit into 1024"):
        trt_engine.submit(ask("b", 98, length=1024))


def test_cancel_of_who_waits_behind_a_full_batch_takes_effect_at_once(
    trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    outputs: Outputs = {}
    running = [ask(f"running{n}", 30 + n, max_tokens=400) for n in range(SLOTS)]
    for generation in [*running, ask("waiting", 39)]:
        trt_engine.submit(generation)
    step_until(trt_engine, outputs, lambda: len(outputs) == SLOTS)
    trt_engine.cancel("waiting")
    outputs = {output.id: [output] for output in trt_engine.step()}
    assert outputs["waiting"][0].finish is Finish.CANCELLED
    assert len(driven_executor.requests) == SLOTS
    for generation in running:
        trt_engine.cancel(generation.id)
    step_until(trt_engine, outputs, lambda: not trt_engine.has_work())


def test_cancelled_stream_gives_its_slot_and_blocks_back(trt_engine: TensorRTEngine) -> None:
    outputs: Outputs = {}
    for n in range(SLOTS):
        trt_engine.submit(ask(f"a{n}", 40 + n, max_tokens=900))
    step_until(trt_engine, outputs, lambda: len(outputs) == SLOTS)
    before = trt_engine.stats().steps
    for n in range(SLOTS):
        trt_engine.cancel(f"a{n}")
    step_until(trt_engine, outputs, lambda: not trt_engine.has_work())
    assert trt_engine.stats().steps - before < 300, "they ran to their ends"
    assert set(finishes_of(outputs).values()) == {Finish.CANCELLED}
    # The iteration that freed them is told a moment later.
    until = time.monotonic() + END_S
    while (stats := trt_engine.stats()).pages_free != stats.pages_total:
        assert time.monotonic() < until
        drive(trt_engine, ask("b", 49, max_tokens=1))


def test_more_than_the_executors_queue_holds_wait_here(trt_engine: TensorRTEngine, tiny_reference: Reference) -> None:
    asked = [ask(str(n), 50 + n % 3, max_tokens=4) for n in range(5 * SLOTS)]
    outputs = drive(trt_engine, *asked)
    expected = {n: tiny_reference.generate(asked[n].prompt_ids, None, 4) for n in range(3)}
    assert {name: tokens_of(each) for name, each in outputs.items()} == {g.id: expected[int(g.id) % 3] for g in asked}


def test_responses_are_awaited_by_one_thread_and_for_nobody_in_particular(
    trt_engine: TensorRTEngine, driven_executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who awaits an id that has ended gets an error, and two who await share what comes between them."""
    awaited: set[tuple[str, tuple[Any, ...], frozenset[str]]] = set()
    await_responses = driven_executor.await_responses

    def watched(*args: Any, **kwargs: Any) -> Any:
        awaited.add((threading.current_thread().name, args, frozenset(kwargs)))
        return await_responses(*args, **kwargs)

    monkeypatch.setattr(driven_executor, "await_responses", watched)
    drive(trt_engine, *(ask(str(n), 77 + n) for n in range(3)))
    assert awaited == {("collector", (), frozenset({"timeout"}))}


def test_statistics_that_are_told_once_add_up(trt_engine: TensorRTEngine) -> None:
    before = trt_engine.stats()
    drive(trt_engine, *(ask(str(n), 90 + n, max_tokens=6) for n in range(3)))
    between = trt_engine.stats()
    after = trt_engine.stats()
    assert before.steps < between.steps <= after.steps
    assert after.generated_tokens - before.generated_tokens == 18
    assert after.pages_total == between.pages_total > 0
