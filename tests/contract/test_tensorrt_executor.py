"""The stand-in for TensorRT-LLM's executor does what the real one's sources say, agreeable or not: whatever drives it
here meets the same."""

import inspect
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.fixtures.models import Reference, random_tiles
from tests.fixtures.tensorrt_llm import installed
from tools.tiny_model import TINY
from worker.engine.tensorrt.recorded_executor import CALLED, READ
from worker.engine.tensorrt.signatures import differences

pytestmark = pytest.mark.contract

VOCAB, HIDDEN = TINY.vocab_size, TINY.hidden


@pytest.fixture(scope="module")
def trt() -> Iterator[Any]:
    with installed():
        import tensorrt_llm.bindings.executor as trt

        yield trt


@pytest.fixture(scope="module")
def executor(trt: Any, tiny_engines: Path) -> Iterator[Any]:
    """Four at once, 128 blocks of 32 tokens, 96 rows of the prompt table each."""
    config = trt.ExecutorConfig(kv_cache_config=trt.KvCacheConfig(max_tokens=4096), max_queue_size=3)
    with trt.Executor(tiny_engines / "llm", trt.ModelType.DECODER_ONLY, config) as executor:
        yield executor


def _text(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(5, 1500, length).tolist()


@dataclass
class _Answer:
    responses: list[Any]

    @property
    def results(self) -> list[Any]:
        return [response.result for response in self.responses]

    @property
    def tokens(self) -> list[int]:
        return [token for result in self.results for token in result.output_token_ids[0]]

    @property
    def metrics(self) -> Any:
        return self.results[0].request_perf_metrics.kv_cache_metrics


def _collect(executor: Any, *client_ids: int) -> dict[int, _Answer]:
    """Until each has its last response."""
    answers: dict[int, _Answer] = {number: _Answer([]) for number in client_ids}
    left, until = set(client_ids), time.monotonic() + 60
    while left:
        assert time.monotonic() < until
        for response in executor.await_responses(timedelta(seconds=1)):
            answers.setdefault(response.client_id, _Answer([])).responses.append(response)
            if response.has_error() or response.result.is_final:
                left.discard(response.client_id)
    return answers


def _request(trt: Any, number: int, ids: list[int], max_tokens: int = 8, **more: Any) -> Any:
    output = trt.OutputConfig(return_perf_metrics=True)
    return trt.Request(ids, max_tokens, **{"streaming": True, "output_config": output, "client_id": number} | more)


def _table(rows: int, width: int = HIDDEN, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)).to(dtype)


def _wait_until_active(executor: Any, active: int) -> None:
    until = time.monotonic() + 60
    while time.monotonic() < until:
        if any(each.num_active_requests == active for each in executor.get_latest_iteration_stats()):
            return
        time.sleep(0.002)
    raise AssertionError(f"never {active} active")


def test_signatures_are_told_as_text_alone_and_are_those_that_are_written_down(trt: Any) -> None:
    with pytest.raises(TypeError):
        inspect.signature(trt.Executor.enqueue_request)
    assert differences(CALLED, READ) == []
    name = "tensorrt_llm.bindings.executor"
    assert differences({f"{name}.Executor.await_responses": "id timeout="}) == []
    assert differences({f"{name}.Executor.enqueue_request": ""}) == [f"{name}.Executor.enqueue_request wants request"]
    assert differences({f"{name}.Request": "input_token_ids max_tokens seed="}) == [f"{name}.Request takes no seed"]


@pytest.mark.parametrize(
    "wrong",
    [
        lambda trt: trt.Request([1, 2], 3, max_new_tokens=4),
        lambda trt: trt.Request([1, 2]),
        lambda trt: trt.Request([1.0, 2.0], 3),
        lambda trt: trt.Request(np.arange(3), 3),
        lambda trt: trt.SamplingConfig(1, 5),
        lambda trt: trt.KvCacheConfig(kv_cache_free_gpu_mem_fraction=0.9),
        lambda trt: trt.PromptTuningConfig(np.zeros((2, 2))),
        lambda trt: trt.Request([1], 3, cache_salt_id=-1),
        lambda trt: trt.Request([1], 3, allotted_time_ms=100),
        lambda trt: trt.GuidedDecodingParams("JSON"),
    ],
)
def test_argument_that_is_unknown_missing_or_of_another_type_is_a_type_error(trt: Any, wrong: Any) -> None:
    with pytest.raises(TypeError, match="incompatible function arguments"):
        wrong(trt)


def test_attribute_that_is_not_written_down_cannot_be_set(trt: Any) -> None:
    config = trt.ExecutorConfig()
    config.max_batch_size = 4
    with pytest.raises(AttributeError, match="batch_size"):
        config.batch_size = 4


@pytest.mark.parametrize("sampling", [{"top_p": 0.0}, {"temperature": -1.0}, {"min_p": 1.5}, {"top_k": -1}])
def test_sampling_out_of_range_throws_where_it_is_made(trt: Any, sampling: dict[str, Any]) -> None:
    with pytest.raises(RuntimeError, match="Assertion failed"):
        trt.SamplingConfig(**sampling)


def test_stream_comes_in_increments_of_which_some_have_several_tokens(
    trt: Any, executor: Any, tiny_reference: Reference
) -> None:
    ids = _text(1, 60)
    executor.enqueue_request(_request(trt, 1, ids, 16))
    answer = _collect(executor, 1)[1]
    assert answer.tokens == tiny_reference.generate(ids, None, 16)
    assert {len(result.output_token_ids[0]) for result in answer.results} >= {1, 2}
    assert [result.is_final for result in answer.results] == [False] * (len(answer.results) - 1) + [True]
    assert answer.results[-1].finish_reasons == [trt.FinishReason.LENGTH]


def test_answer_that_is_no_stream_comes_at_once_and_with_its_prompt(
    trt: Any, executor: Any, tiny_reference: Reference
) -> None:
    ids = _text(2, 20)
    without = trt.OutputConfig(exclude_input_from_output=True)
    executor.enqueue_requests(
        [
            _request(trt, 1, ids, 5, streaming=False),
            _request(trt, 2, ids, 5, streaming=False, output_config=without),
            _request(trt, 3, ids, 5, return_all_generated_tokens=True),
        ]
    )
    answers = _collect(executor, 1, 2, 3)
    expected = tiny_reference.generate(ids, None, 5)
    assert [result.output_token_ids for result in answers[1].results] == [[ids + expected]]
    assert [result.output_token_ids for result in answers[2].results] == [[expected]]
    assert answers[3].results[-1].output_token_ids == [expected]


def test_last_response_may_be_empty_and_the_end_id_may_or_may_not_be_told(
    trt: Any, executor: Any, tiny_reference: Reference
) -> None:
    ids = _text(3, 30)
    whole = tiny_reference.generate(ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    until = whole[: whole.index(end)]
    for number in range(6):
        executor.enqueue_request(_request(trt, number, ids, 8, end_id=end))
        answer = _collect(executor, number)[number]
        assert answer.tokens in (until, [*until, end])
        assert answer.results[-1].finish_reasons == [trt.FinishReason.END_ID]
        if number == 0:
            ends = [answer]
        ends.append(answer)
    assert {end in answer.tokens for answer in ends} == {True, False}
    assert any(not answer.results[-1].output_token_ids[0] for answer in ends)


def test_first_response_may_come_before_the_id_of_its_request(trt: Any, executor: Any) -> None:
    overtaken = 0
    for number in range(4):
        executor.enqueue_request(_request(trt, number, _text(4, 8), 30))
        overtaken += executor.get_num_responses_ready() > 0
        _collect(executor, number)
    assert overtaken


def test_ended_id_that_is_awaited_again_gives_an_error(trt: Any, executor: Any) -> None:
    ended = executor.enqueue_request(_request(trt, 1, _text(5, 8), 2))
    _collect(executor, 1)
    (response,) = executor.await_responses(ended, timedelta(seconds=5))
    assert response.has_error() and "already been processed and was terminated" in response.error_msg
    with pytest.raises(RuntimeError):
        _ = response.result


def test_cancel_reaches_only_who_is_active_and_is_forgotten_for_who_is_unknown(trt: Any, executor: Any) -> None:
    running = [executor.enqueue_request(_request(trt, number, _text(number, 8), 300)) for number in range(4)]
    _wait_until_active(executor, 4)
    waiting = executor.enqueue_request(_request(trt, 9, _text(9, 8), 300))
    executor.cancel_request(waiting)
    executor.cancel_request(123456)
    time.sleep(0.1)
    told = executor.await_responses(timedelta(seconds=5))
    assert not [response for response in told if response.client_id == 9]
    for request_id in running:
        executor.cancel_request(request_id)
    answers = _collect(executor, 0, 1, 2, 3, 9)
    assert {answer.results[-1].finish_reasons[0] for answer in answers.values()} == {trt.FinishReason.CANCELLED}
    assert answers[9].tokens == []
    stats = executor.get_latest_iteration_stats()[-1].kv_cache_stats
    assert stats.free_num_blocks == stats.max_num_blocks


def test_full_queue_throws_where_it_is_enqueued(trt: Any, executor: Any) -> None:
    taken: list[int] = []
    with pytest.raises(RuntimeError, match="Maximum queue size of 3 has been reached"):
        for number in range(9):
            taken.append(executor.enqueue_request(_request(trt, number, _text(number, 8), 300)))
    for request_id in taken:
        executor.cancel_request(request_id)
    assert 3 <= len(_collect(executor, *range(len(taken)))) < 9


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (_table(97), "97 rows, at most 96"),
        (_table(8, dtype=torch.bfloat16), "torch.bfloat16"),
        (_table(8, width=HIDDEN // 2), "width"),
    ],
)
def test_one_wrong_prompt_table_ends_every_active_request(
    trt: Any, executor: Any, table: torch.Tensor, why: str
) -> None:
    for number in (1, 2):
        executor.enqueue_request(_request(trt, number, _text(number, 8), 300))
    ids = [*range(VOCAB, VOCAB + len(table)), *_text(3, 4)]
    tuning = trt.PromptTuningConfig(table, [7] * len(table) + [0] * 4)
    executor.enqueue_request(_request(trt, 3, ids, prompt_tuning_config=tuning))
    answers = _collect(executor, 1, 2, 3)
    for answer in answers.values():
        assert answer.responses[-1].has_error() and why in answer.responses[-1].error_msg


def test_fault_of_a_prompt_is_its_requests_alone(trt: Any, executor: Any) -> None:
    executor.enqueue_request(_request(trt, 1, _text(1, 8), 30))
    tuning = trt.PromptTuningConfig(_table(8))
    ids = [*range(VOCAB, VOCAB + 8), 5]
    executor.enqueue_request(_request(trt, 2, ids, prompt_tuning_config=tuning))
    short = trt.PromptTuningConfig(_table(8), [7] * 8)
    executor.enqueue_request(_request(trt, 3, ids, prompt_tuning_config=short))
    executor.enqueue_request(_request(trt, 4, _text(1, 1024)))
    answers = _collect(executor, 1, 2, 3, 4)
    assert len(answers[1].tokens) == 30
    assert "extra ids must be provided" in answers[2].responses[0].error_msg
    assert "size (8) must be the same" in answers[3].responses[0].error_msg
    assert "Prompt length (1024) exceeds" in answers[4].responses[0].error_msg


def test_rows_of_the_table_stand_at_the_virtual_ids(trt: Any, executor: Any, tiny_reference: Reference) -> None:
    tiles = random_tiles(1, 3)
    table = tiny_reference.visual_tokens(tiles)
    ids = [*_text(6, 5), *range(VOCAB, VOCAB + len(table)), *_text(7, 5)]
    extra = [0] * 5 + [9] * len(table) + [0] * 5
    tuning = trt.PromptTuningConfig(table, extra)
    executor.enqueue_request(_request(trt, 1, ids, 12, prompt_tuning_config=tuning))
    assert _collect(executor, 1)[1].tokens == tiny_reference.generate(ids, tiles, 12)


def test_equal_ids_share_blocks_unless_extra_ids_or_salts_differ(trt: Any, executor: Any) -> None:
    ids = [*range(VOCAB, VOCAB + 64), *_text(8, 10)]

    def ask(number: int, seed: int, extra: int, **more: Any) -> _Answer:
        tuning = trt.PromptTuningConfig(_table(64, seed=seed), [extra] * 64 + [0] * 10)
        executor.enqueue_request(_request(trt, number, ids, prompt_tuning_config=tuning, **more))
        return _collect(executor, number)[number]

    first, again = ask(1, seed=1, extra=11), ask(2, seed=1, extra=11)
    assert (first.metrics.num_reused_blocks, again.metrics.num_reused_blocks) == (0, 2)
    assert again.tokens == first.tokens
    other, salted = ask(3, seed=2, extra=12), ask(4, seed=1, extra=11, cache_salt_id=5)
    assert (other.metrics.num_reused_blocks, salted.metrics.num_reused_blocks) == (0, 0)
    assert other.tokens != first.tokens == salted.tokens
    # What a driver gets that forgets whose picture it is.
    assert ask(5, seed=3, extra=12).tokens == other.tokens


def test_blocks_of_who_still_runs_are_nobody_elses(trt: Any, executor: Any) -> None:
    ids = _text(30, 70)
    running = executor.enqueue_request(_request(trt, 1, ids, 300))
    _wait_until_active(executor, 1)
    executor.enqueue_request(_request(trt, 2, ids, 4))
    assert _collect(executor, 2)[2].metrics.num_reused_blocks == 0
    executor.cancel_request(running)
    _collect(executor, 1)
    executor.enqueue_request(_request(trt, 3, ids, 4))
    assert _collect(executor, 3)[3].metrics.num_reused_blocks >= 2


def test_block_that_is_taken_over_in_part_counts_as_reused(trt: Any, executor: Any, tiny_reference: Reference) -> None:
    ids = _text(31, 60)
    executor.enqueue_request(_request(trt, 1, ids, 20))
    _collect(executor, 1)
    fork = [*ids[:40], *_text(32, 20)]
    executor.enqueue_request(_request(trt, 2, fork, 12))
    answer = _collect(executor, 2)[2]
    assert answer.metrics.num_reused_blocks == 2
    assert answer.tokens == tiny_reference.generate(fork, None, 12)


def test_statistics_are_told_once(trt: Any, executor: Any) -> None:
    executor.enqueue_request(_request(trt, 1, _text(9, 8), 6))
    _collect(executor, 1)
    time.sleep(0.05)
    told = executor.get_latest_iteration_stats()
    assert told and executor.get_latest_iteration_stats() == []
    assert told[-1].kv_cache_stats.tokens_per_block == 32 and "inflight_batching_stats" in told[-1].to_json_str()


def test_allotted_time_ends_who_is_active(trt: Any, executor: Any) -> None:
    executor.enqueue_request(_request(trt, 1, _text(10, 8), 900, allotted_time_ms=timedelta(milliseconds=40)))
    answer = _collect(executor, 1)[1]
    assert answer.results[-1].finish_reasons == [trt.FinishReason.TIMED_OUT] and len(answer.tokens) < 900


def test_several_sequences_of_a_request_end_one_by_one(trt: Any, executor: Any) -> None:
    drawn = trt.SamplingConfig(temperature=1.0, top_p=1.0, seed=3)
    executor.enqueue_request(_request(trt, 1, _text(11, 8), 6, sampling_config=drawn, num_return_sequences=3))
    results = _collect(executor, 1)[1].results
    by_sequence = {
        index: [t for r in results if r.sequence_index == index for t in r.output_token_ids[0]] for index in range(3)
    }
    assert {len(tokens) for tokens in by_sequence.values()} == {6} and len(set(map(tuple, by_sequence.values()))) == 3
    assert sum(result.is_sequence_final for result in results) == 3
    assert [result.is_final for result in results].count(True) == 1 and results[-1].is_final


def test_temperature_of_zero_is_greedy_only_where_top_k_is_given(
    trt: Any, executor: Any, tiny_reference: Reference
) -> None:
    ids = _text(12, 20)
    greedy = tiny_reference.generate(ids, None, 8)

    def ask(number: int, **sampling: Any) -> list[int]:
        executor.enqueue_request(_request(trt, number, ids, sampling_config=trt.SamplingConfig(**sampling)))
        return _collect(executor, number)[number].tokens

    assert ask(1) == ask(2, temperature=0.7) == ask(3, temperature=0.0, top_k=40, top_p=0.9) == greedy
    assert ask(4, temperature=0.0, top_p=0.9, seed=1) != greedy


def test_cancelled_stream_with_log_probs_ends_the_process(trt: Any, tiny_engines: Path) -> None:
    executor = trt.Executor(tiny_engines / "llm", trt.ModelType.DECODER_ONLY, trt.ExecutorConfig())
    output = trt.OutputConfig(return_log_probs=True)
    request_id = executor.enqueue_request(_request(trt, 1, _text(1, 8), 300, output_config=output))
    executor.cancel_request(request_id)
    with pytest.raises(RuntimeError, match="aborted"):
        _collect(executor, 1)
    with pytest.raises(RuntimeError, match="aborted"):
        executor.enqueue_request(_request(trt, 2, _text(1, 8)))


def test_executor_that_was_shut_down_throws(trt: Any, tiny_engines: Path) -> None:
    with trt.Executor(tiny_engines / "llm", trt.ModelType.DECODER_ONLY, trt.ExecutorConfig()) as executor:
        pass
    for call in (executor.await_responses, executor.get_latest_iteration_stats):
        with pytest.raises(RuntimeError, match="Shutdown called"):
            call()


def test_world_of_another_size_is_refused(trt: Any, tiny_engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"MPI world size \(4\) must equal 1"):
        trt.Executor(tiny_engines / "llm", trt.ModelType.DECODER_ONLY, trt.ExecutorConfig())
