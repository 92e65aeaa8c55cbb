"""What is known to go wrong with TensorRT-LLM's executor, one test each: it fails when the engine steps into it. The
executor is the stand-in, which has all of it."""

import threading
import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np
import pytest
import torch

from tests.fixtures.engines import (
    END_S,
    ENDS,
    SLOTS,
    VOCAB,
    Outputs,
    ask,
    drive,
    finishes_of,
    picture,
    step_until,
    tokens_of,
    words,
)
from tests.fixtures.models import Reference, random_tiles
from tests.fixtures.tensorrt_llm import installed
from tools.tiny_model import TINY
from worker.engine.generation import Finish, Generation, Grammar, GrammarKind, Sampling
from worker.engine.grammar import Grammars
from worker.engine.limits import Limits
from worker.engine.protocol import Rejected
from worker.engine.tensorrt import boot
from worker.engine.tensorrt.boot import BootOptions
from worker.engine.tensorrt.collector import ExecutorFault
from worker.engine.tensorrt.engine import TensorRTEngine
from worker.engine.tensorrt.executor import Requests, start_executor
from worker.engine.tensorrt.installed import NotUsable
from worker.engine.tensorrt.pictures import Pictures, Pixels
from worker.engine.torch.embedding_cache import EmbeddingCache

pytestmark = pytest.mark.contract


@pytest.fixture(scope="module")
def trt() -> Iterator[Any]:
    with installed():
        import tensorrt_llm.bindings.executor as trt

        yield trt


@pytest.fixture(scope="module")
def engine(trt: Any, boot_options: BootOptions) -> Iterator[TensorRTEngine]:
    engine = boot.start(boot_options, lambda *_: None, lambda *_: None)
    yield engine
    engine.close()


@pytest.fixture
def executor(trt: Any, engine: TensorRTEngine) -> Any:
    """The one that the engine drives."""
    (executor,) = trt.Executor.living
    executor.requests.clear()
    return executor


def test_responses_that_come_before_their_requests_id_are_not_lost(
    engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    asked = [ask(str(n), 10 + n) for n in range(6)]
    expected = {g.id: tiny_reference.generate(g.prompt_ids, None, 8) for g in asked}
    answers: dict[str, list[int]] = {}
    for generation in asked:
        answers |= {name: tokens_of(each) for name, each in drive(engine, generation).items()}
    assert answers == expected


def test_ends_with_and_without_the_end_id_and_with_no_token_at_all_are_told_alike(
    engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    generation = ask("", 20, 30)
    whole = tiny_reference.generate(generation.prompt_ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    outputs = drive(engine, *(msgspec.structs.replace(generation, id=str(n), stop_ids=[end]) for n in range(6)))
    assert {tuple(tokens_of(each)) for each in outputs.values()} == {tuple(whole[: whole.index(end) + 1])}
    assert set(finishes_of(outputs).values()) == {Finish.STOP}


def test_other_stop_ids_end_an_answer_without_stop_words_which_leak_memory(
    engine: TensorRTEngine, executor: Any, tiny_reference: Reference
) -> None:
    generation = ask("a", 21, max_tokens=200)
    whole = tiny_reference.generate(generation.prompt_ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    never = next(token for token in range(5, 99) if token not in whole)
    outputs = drive(engine, msgspec.structs.replace(generation, stop_ids=[never, end]))
    assert tokens_of(outputs["a"]) == whole[: whole.index(end) + 1] and finishes_of(outputs) == {"a": Finish.STOP}
    assert [request.stop_words for request in executor.requests] == [None]


def test_cancel_of_who_waits_behind_a_full_batch_takes_effect_at_once(engine: TensorRTEngine, executor: Any) -> None:
    outputs: Outputs = {}
    running = [ask(f"running{n}", 30 + n, max_tokens=400) for n in range(SLOTS)]
    for generation in [*running, ask("waiting", 39)]:
        engine.submit(generation)
    step_until(engine, outputs, lambda: len(outputs) == SLOTS)
    engine.cancel("waiting")
    outputs = {output.id: [output] for output in engine.step()}
    assert outputs["waiting"][0].finish is Finish.CANCELLED
    assert len(executor.requests) == SLOTS
    for generation in running:
        engine.cancel(generation.id)
    step_until(engine, outputs, lambda: not engine.has_work())


def test_cancelled_stream_gives_its_slot_and_blocks_back(engine: TensorRTEngine) -> None:
    outputs: Outputs = {}
    for n in range(SLOTS):
        engine.submit(ask(f"a{n}", 40 + n, max_tokens=900))
    step_until(engine, outputs, lambda: len(outputs) == SLOTS)
    before = engine.stats().steps
    for n in range(SLOTS):
        engine.cancel(f"a{n}")
    step_until(engine, outputs, lambda: not engine.has_work())
    assert engine.stats().steps - before < 300, "they ran to their ends"
    assert set(finishes_of(outputs).values()) == {Finish.CANCELLED}
    # The iteration that freed them is told a moment later.
    until = time.monotonic() + END_S
    while (stats := engine.stats()).pages_free != stats.pages_total:
        assert time.monotonic() < until
        drive(engine, ask("b", 49, max_tokens=1))


def test_more_than_the_executors_queue_holds_wait_here(engine: TensorRTEngine, tiny_reference: Reference) -> None:
    asked = [ask(str(n), 50 + n % 3, max_tokens=4) for n in range(5 * SLOTS)]
    outputs = drive(engine, *asked)
    expected = {n: tiny_reference.generate(asked[n].prompt_ids, None, 4) for n in range(3)}
    assert {name: tokens_of(each) for name, each in outputs.items()} == {g.id: expected[int(g.id) % 3] for g in asked}


def test_more_rows_than_a_requests_part_of_the_table_are_refused_before_they_are_enqueued(
    engine: TensorRTEngine, executor: Any
) -> None:
    engine.submit(ask("good", 60, max_tokens=20))
    with pytest.raises(Rejected, match="7 tiles") as caught:
        engine.submit(ask("bad", 61, images=[picture(107, 7)]))
    assert caught.value.code == "invalid_image"
    outputs = drive(engine)
    assert finishes_of(outputs) == {"good": Finish.LENGTH} and len(executor.requests) == 1


def test_fault_while_computing_is_the_engines_and_nobodys_own(trt: Any, boot_options: BootOptions) -> None:
    others = list(trt.Executor.living)
    engine = boot.start(boot_options, lambda *_: None, lambda *_: None)
    (executor,) = (each for each in trt.Executor.living if each not in others)
    outputs: Outputs = {}
    for n in range(3):
        engine.submit(ask(f"innocent{n}", 70 + n, max_tokens=500))
    step_until(engine, outputs, lambda: len(outputs) == 3)
    wrong = trt.PromptTuningConfig(torch.zeros(4, 2), [1] * 4)
    executor.enqueue_request(trt.Request([VOCAB] * 4, 3, streaming=True, client_id=1 << 40, prompt_tuning_config=wrong))
    with pytest.raises(ExecutorFault, match="width"):
        step_until(engine, outputs, lambda: not engine.has_work())
    engine.close()
    assert not [finish for finish in finishes_of(outputs).values() if finish]


def test_error_at_admission_is_its_requests_alone(
    trt: Any, engine: TensorRTEngine, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its way the request loses what the executor asks of every prompt table."""
    enqueue = executor.enqueue_request

    def lose_extra_ids(request: Any) -> int:
        if request.prompt_tuning_config is not None:
            request.prompt_tuning_config = trt.PromptTuningConfig(request.prompt_tuning_config.embedding_table)
        return int(enqueue(request))

    monkeypatch.setattr(executor, "enqueue_request", lose_extra_ids)
    outputs = drive(engine, ask("good", 78, max_tokens=30), ask("bad", 79, images=[picture(104)]))
    assert finishes_of(outputs) == {"good": Finish.LENGTH, "bad": Finish.ERROR}
    assert "extra ids must be provided" in outputs["bad"][-1].error


class Double:
    """An encoder whose embeddings are of another type than the engine's."""

    max_tiles, tile_size = 8, TINY.image_size

    def encode(self, tiles: Pixels) -> torch.Tensor:
        return torch.zeros(len(tiles), TINY.tokens_per_tile, TINY.hidden, dtype=torch.float64)

    def close(self) -> None: ...


def test_table_that_would_end_everybody_ends_its_own_request_and_is_never_enqueued(
    trt: Any, boot_options: BootOptions
) -> None:
    plan, news, others = boot.inspect(boot_options), threading.Event(), list(trt.Executor.living)
    engine = TensorRTEngine(
        executor=start_executor(plan.api, plan.executor_options(boot_options), plan.guidance),
        requests=Requests(plan.api, VOCAB, plan.guidance),
        manifest=plan.language,
        limits=Limits(VOCAB, plan.language.max_seq_len, TINY.tokens_per_tile, TINY.image_size),
        slots=SLOTS,
        pictures=Pictures(Double(), EmbeddingCache(1 << 20), news.set),
        grammars=Grammars.load(boot_options.checkpoint, VOCAB),
        news=news,
        device="cpu",
    )
    outputs = drive(engine, ask("good", 78, max_tokens=30), ask("bad", 79, images=[picture(104)]))
    assert finishes_of(outputs) == {"good": Finish.LENGTH, "bad": Finish.ERROR}
    assert "float64" in outputs["bad"][-1].error
    (executor,) = (each for each in trt.Executor.living if each not in others)
    assert len(executor.requests) == 1
    engine.close()


def test_responses_are_awaited_by_one_thread_and_for_nobody_in_particular(
    engine: TensorRTEngine, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who awaits an id that has ended gets an error, and two who await share what comes between them."""
    awaited: set[tuple[str, tuple[Any, ...], frozenset[str]]] = set()
    await_responses = executor.await_responses

    def watched(*args: Any, **kwargs: Any) -> Any:
        awaited.add((threading.current_thread().name, args, frozenset(kwargs)))
        return await_responses(*args, **kwargs)

    monkeypatch.setattr(executor, "await_responses", watched)
    drive(engine, *(ask(str(n), 77 + n) for n in range(3)))
    assert awaited == {("collector", (), frozenset({"timeout"}))}


def test_two_pictures_under_the_same_words_share_no_keys(engine: TensorRTEngine, tiny_reference: Reference) -> None:
    """Nor do they share rows: the virtual ids count on over tiles and pictures."""
    for tile_counts in ((4,), (3, 1), (1, 3)):
        generation = ask("a", 80, 20, [picture(100 + tiles, tiles) for tiles in tile_counts])
        tiles = np.concatenate([random_tiles(100 + tiles, tiles) for tiles in tile_counts])
        expected = tiny_reference.generate(generation.prompt_ids, tiles, 8)
        outputs = drive(engine, generation)["a"]
        assert tokens_of(outputs) == expected and outputs[0].cached_tokens == 0


def test_picture_that_was_seen_before_is_reused_and_answers_alike(engine: TensorRTEngine, executor: Any) -> None:
    first = drive(engine, ask("a", 81, 20, [picture(105, 5)]))["a"]
    again = drive(engine, ask("a", 81, 20, [picture(105, 5)]))["a"]
    assert first[0].cached_tokens == 0 and (again[0].cached_tokens or 0) >= 64
    assert tokens_of(first) == tokens_of(again)
    before, after = (request.prompt_tuning_config.embedding_table for request in executor.requests)
    assert torch.equal(before, after)


def test_blocks_that_are_taken_over_in_part_are_not_counted_as_cached_whole(
    engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    whole = words(82, 64)
    drive(engine, Generation("a", whole, Sampling(), 40))
    fork = [*whole[:36], *words(83, 28)]
    outputs = drive(engine, Generation("b", fork, Sampling(), 8))["b"]
    assert outputs[0].cached_tokens == 32
    assert tokens_of(outputs) == tiny_reference.generate(fork, None, 8)


def test_tenants_share_no_keys(engine: TensorRTEngine) -> None:
    cached = [
        drive(engine, ask("a", 84, 70, [picture(101)], salt=salt))["a"][0].cached_tokens
        for salt in (1, 2, 1, (1 << 64) - 1)
    ]
    assert cached[0] == cached[1] == cached[3] == 0 and (cached[2] or 0) > 0


def test_statistics_that_are_told_once_add_up(engine: TensorRTEngine) -> None:
    before = engine.stats()
    drive(engine, *(ask(str(n), 90 + n, max_tokens=6) for n in range(3)))
    between = engine.stats()
    after = engine.stats()
    assert before.steps < between.steps <= after.steps
    assert after.generated_tokens - before.generated_tokens == 18
    assert after.pages_total == between.pages_total > 0


def test_temperature_of_zero_is_greedy_whatever_comes_with_it(
    engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    generation = ask("a", 91)
    for sampling in (Sampling(top_p=0.9), Sampling(top_p=0.5, min_p=0.1, seed=4), Sampling(top_k=50)):
        outputs = drive(engine, msgspec.structs.replace(generation, sampling=sampling))["a"]
        assert tokens_of(outputs) == tiny_reference.generate(generation.prompt_ids, None, 8)


def test_temperature_alone_draws_and_draws_the_same_with_the_same_seed(
    engine: TensorRTEngine, tiny_reference: Reference
) -> None:
    """Without top_k and top_p the executor would be greedy."""
    generation = ask("a", 92)
    greedy = tiny_reference.generate(generation.prompt_ids, None, 8)
    drawn = [
        tokens_of(drive(engine, msgspec.structs.replace(generation, sampling=Sampling(seed, temperature=1.5)))["a"])
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2] and greedy not in drawn


def test_answer_that_goes_on_does_not_draw_the_numbers_of_its_beginning_again(
    engine: TensorRTEngine, executor: Any
) -> None:
    sampling = Sampling(seed=3, temperature=1.0)
    drive(engine, ask("a", 93, sampling=sampling), ask("b", 93, sampling=sampling, generated=[7, 8, 9]))
    first, second = executor.requests
    assert first.sampling_config.seed != second.sampling_config.seed
    assert second.input_token_ids[-3:] == [7, 8, 9] and second.max_tokens == 5


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        (Sampling(logprobs=0), "logprobs = 0 cannot be had"),
        (Sampling(logprobs=5), "logprobs = 5 cannot be had"),
        (Sampling(temperature=1.0, top_k=1025), "top_k is 1025"),
    ],
)
def test_what_the_executor_clips_or_dies_of_is_refused_by_name(
    engine: TensorRTEngine, sampling: Sampling, why: str
) -> None:
    with pytest.raises(Rejected, match=why) as caught:
        engine.submit(ask("a", 94, sampling=sampling))
    assert caught.value.code == "invalid_sampling" and not engine.has_work()


def test_sampling_that_the_binding_throws_out_is_refused_before_it_ends_everybody(
    trt: Any, engine: TensorRTEngine, executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ranges are its own, narrower than ours here."""
    real = trt.SamplingConfig

    def narrow(**given: Any) -> Any:
        if given.get("repetition_penalty", 1.0) > 10:
            raise RuntimeError("Assertion failed: repetitionPenalty.value() <= 10.f")
        return real(**given)

    monkeypatch.setattr(trt, "SamplingConfig", narrow)
    engine.submit(ask("good", 93, max_tokens=20))
    with pytest.raises(Rejected, match=r"TensorRT-LLM does not take .*repetition_penalty.*: Assertion") as caught:
        engine.submit(ask("bad", 94, sampling=Sampling(repetition_penalty=50.0)))
    assert caught.value.code == "invalid_sampling"
    assert finishes_of(drive(engine)) == {"good": Finish.LENGTH} and len(executor.requests) == 1


def _json(schema: str) -> dict[str, Any]:
    return {"grammar": Grammar(GrammarKind.JSON_SCHEMA, schema), "max_tokens": 60}


def test_guide_that_cannot_be_followed_is_refused_before_it_ends_everybody(
    engine: TensorRTEngine, executor: Any
) -> None:
    engine.submit(ask("good", 95, max_tokens=20))
    for schema in ('{"type": "nothing"}', "{", '{"$ref": "#/nowhere"}'):
        with pytest.raises(Rejected) as caught:
            engine.submit(ask("bad", 96, stop_ids=ENDS, **_json(schema)))
        assert caught.value.code == "invalid_json_schema"
    assert finishes_of(drive(engine)) == {"good": Finish.LENGTH} and len(executor.requests) == 1


def test_answer_under_a_grammar_goes_on_where_it_was_lost(engine: TensorRTEngine) -> None:
    """A guide begins at the answer's beginning, whatever the prompt holds of it."""
    schema = (
        '{"type":"object","properties":{"a":{"enum":["red","blue"]}},"required":["a"],"additionalProperties":false}'
    )
    generation = ask("a", 97, stop_ids=ENDS, **_json(schema))
    whole = tokens_of(drive(engine, generation)["a"])
    assert len(whole) > 4
    outputs = drive(engine, msgspec.structs.replace(generation, generated=whole[:3]))
    assert tokens_of(outputs["a"]) == whole[3:]


def test_context_that_ends_before_max_tokens_is_told_as_a_length(engine: TensorRTEngine) -> None:
    """The executor would shorten the answer with a line in its log."""
    outputs = drive(engine, ask("a", 98, length=1016, max_tokens=500))
    assert finishes_of(outputs) == {"a": Finish.LENGTH} and len(tokens_of(outputs["a"])) == 8
    with pytest.raises(Rejected, match="it must fit into 1024"):
        engine.submit(ask("b", 98, length=1024))


def test_executor_is_set_up_out_of_the_way_of_known_faults(trt: Any, engine: TensorRTEngine, executor: Any) -> None:
    """Evicting a stream, lookahead with a prompt table, keys of others from the host's memory, chunks of prompts."""
    config = executor.config
    assert config.scheduler_config.capacity_scheduler_policy is trt.CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
    assert config.decoding_config is None and not config.kv_cache_config.host_cache_size
    assert not config.enable_chunked_context and config.max_beam_width == 1
    # From a smaller batch than the engine's it would count other parts of the prompt table.
    assert config.max_batch_size is None and config.max_num_tokens is None
    assert config.guided_decoding_config.backend is trt.GuidedDecodingConfig.GuidedDecodingBackend.XGRAMMAR
    drive(engine, ask("a", 99, images=[picture(101)]))
    (request,) = executor.requests
    assert request.streaming and request.lookahead_config is None and request.sampling_config.beam_width == 1


def test_bindings_that_are_not_as_written_down_are_not_started(
    trt: Any, boot_options: BootOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(trt, "SchedulerConfig")
    monkeypatch.setattr(trt, "OutputConfig", trt.PeftCacheConfig)
    with pytest.raises(NotUsable) as caught:
        boot.start(boot_options, lambda *_: None, lambda *_: None)
    assert "SchedulerConfig is absent" in str(caught.value)
    assert "OutputConfig takes no return_perf_metrics" in str(caught.value)
