"""The stand-in for TensorRT-LLM's executor does what the real one's sources say, agreeable or not: whatever drives it
here meets the same. Here: what it answers, and how it ends."""

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.engines import words
from tests.fixtures.models import Reference
from tests.fixtures.tensorrt_executor import MOST_WAITING, collect, request_of, wait_until_active

pytestmark = pytest.mark.contract


def test_stream_comes_in_increments_of_which_some_have_several_tokens(
    trt: Any, trt_executor: Any, tiny_reference: Reference
) -> None:
    ids = words(1, 60)
    trt_executor.enqueue_request(request_of(trt, 1, ids, 16))
    answer = collect(trt_executor, 1)[1]
    assert answer.tokens == tiny_reference.generate(ids, None, 16)
    assert {len(result.output_token_ids[0]) for result in answer.results} >= {1, 2}
    assert [result.is_final for result in answer.results] == [False] * (len(answer.results) - 1) + [True]
    assert answer.results[-1].finish_reasons == [trt.FinishReason.LENGTH]


def test_answer_that_is_no_stream_comes_at_once_and_with_its_prompt(
    trt: Any, trt_executor: Any, tiny_reference: Reference
) -> None:
    ids = words(2, 20)
    without = trt.OutputConfig(exclude_input_from_output=True)
    trt_executor.enqueue_requests(
        [
            request_of(trt, 1, ids, 5, streaming=False),
            request_of(trt, 2, ids, 5, streaming=False, output_config=without),
            request_of(trt, 3, ids, 5, return_all_generated_tokens=True),
        ]
    )
    answers = collect(trt_executor, 1, 2, 3)
    expected = tiny_reference.generate(ids, None, 5)
    assert [result.output_token_ids for result in answers[1].results] == [[ids + expected]]
    assert [result.output_token_ids for result in answers[2].results] == [[expected]]
    assert answers[3].results[-1].output_token_ids == [expected]


def test_last_response_may_be_empty_and_the_end_id_may_or_may_not_be_told(
    trt: Any, trt_executor: Any, tiny_reference: Reference
) -> None:
    ids = words(3, 30)
    whole = tiny_reference.generate(ids, None, 8)
    end = next(token for n, token in enumerate(whole) if n and token not in whole[:n])
    until = whole[: whole.index(end)]
    for number in range(6):
        trt_executor.enqueue_request(request_of(trt, number, ids, 8, end_id=end))
        answer = collect(trt_executor, number)[number]
        assert answer.tokens in (until, [*until, end])
        assert answer.results[-1].finish_reasons == [trt.FinishReason.END_ID]
        if number == 0:
            ends = [answer]
        ends.append(answer)
    assert {end in answer.tokens for answer in ends} == {True, False}
    assert any(not answer.results[-1].output_token_ids[0] for answer in ends)


def test_first_response_may_come_before_the_id_of_its_request(trt: Any, trt_executor: Any) -> None:
    overtaken = 0
    for number in range(4):
        trt_executor.enqueue_request(request_of(trt, number, words(4, 8), 30))
        overtaken += trt_executor.get_num_responses_ready() > 0
        collect(trt_executor, number)
    assert overtaken


def test_ended_id_that_is_awaited_again_gives_an_error(trt: Any, trt_executor: Any) -> None:
    ended = trt_executor.enqueue_request(request_of(trt, 1, words(5, 8), 2))
    collect(trt_executor, 1)
    (response,) = trt_executor.await_responses(ended, timedelta(seconds=5))
    assert response.has_error() and "already been processed and was terminated" in response.error_msg
    with pytest.raises(RuntimeError):
        _ = response.result


def test_cancel_reaches_only_who_is_active_and_is_forgotten_for_who_is_unknown(trt: Any, trt_executor: Any) -> None:
    running = [trt_executor.enqueue_request(request_of(trt, number, words(number, 8), 300)) for number in range(4)]
    wait_until_active(trt_executor, 4)
    waiting = trt_executor.enqueue_request(request_of(trt, 9, words(9, 8), 300))
    trt_executor.cancel_request(waiting)
    trt_executor.cancel_request(123456)
    time.sleep(0.1)
    told = trt_executor.await_responses(timedelta(seconds=5))
    assert not [response for response in told if response.client_id == 9]
    for request_id in running:
        trt_executor.cancel_request(request_id)
    answers = collect(trt_executor, 0, 1, 2, 3, 9)
    assert {answer.results[-1].finish_reasons[0] for answer in answers.values()} == {trt.FinishReason.CANCELLED}
    assert answers[9].tokens == []
    stats = trt_executor.get_latest_iteration_stats()[-1].kv_cache_stats
    assert stats.free_num_blocks == stats.max_num_blocks


def test_full_queue_throws_where_it_is_enqueued(trt: Any, trt_executor: Any) -> None:
    taken: list[int] = []
    sent = 4 * MOST_WAITING
    with pytest.raises(RuntimeError, match=f"Maximum queue size of {MOST_WAITING} has been reached"):
        for number in range(sent):
            taken.append(trt_executor.enqueue_request(request_of(trt, number, words(number, 8), 300)))
    for request_id in taken:
        trt_executor.cancel_request(request_id)
    assert MOST_WAITING <= len(collect(trt_executor, *range(len(taken)))) < sent


def test_statistics_are_told_once(trt: Any, trt_executor: Any) -> None:
    trt_executor.enqueue_request(request_of(trt, 1, words(9, 8), 6))
    collect(trt_executor, 1)
    time.sleep(0.5)
    told = trt_executor.get_latest_iteration_stats()
    assert told and trt_executor.get_latest_iteration_stats() == []
    assert told[-1].kv_cache_stats.tokens_per_block == 32 and "inflight_batching_stats" in told[-1].to_json_str()


def test_allotted_time_ends_who_is_active(trt: Any, trt_executor: Any) -> None:
    trt_executor.enqueue_request(request_of(trt, 1, words(10, 8), 900, allotted_time_ms=timedelta(milliseconds=40)))
    answer = collect(trt_executor, 1)[1]
    assert answer.results[-1].finish_reasons == [trt.FinishReason.TIMED_OUT] and len(answer.tokens) < 900


def test_several_sequences_of_a_request_end_one_by_one(trt: Any, trt_executor: Any) -> None:
    drawn = trt.SamplingConfig(temperature=1.0, top_p=1.0, seed=3)
    trt_executor.enqueue_request(request_of(trt, 1, words(11, 8), 6, sampling_config=drawn, num_return_sequences=3))
    results = collect(trt_executor, 1)[1].results
    by_sequence = {
        index: [t for r in results if r.sequence_index == index for t in r.output_token_ids[0]] for index in range(3)
    }
    assert {len(tokens) for tokens in by_sequence.values()} == {6} and len(set(map(tuple, by_sequence.values()))) == 3
    assert sum(result.is_sequence_final for result in results) == 3
    assert [result.is_final for result in results].count(True) == 1 and results[-1].is_final


def test_temperature_of_zero_is_greedy_only_where_top_k_is_given(
    trt: Any, trt_executor: Any, tiny_reference: Reference
) -> None:
    ids = words(12, 20)
    greedy = tiny_reference.generate(ids, None, 8)

    def ask(number: int, **sampling: Any) -> list[int]:
        trt_executor.enqueue_request(request_of(trt, number, ids, sampling_config=trt.SamplingConfig(**sampling)))
        return collect(trt_executor, number)[number].tokens

    assert ask(1) == ask(2, temperature=0.7) == ask(3, temperature=0.0, top_k=40, top_p=0.9) == greedy
    assert ask(4, temperature=0.0, top_p=0.9, seed=1) != greedy


def test_cancelled_stream_with_log_probs_ends_the_process(trt: Any, tiny_engines: Path) -> None:
    executor = trt.Executor(tiny_engines / "llm", trt.ModelType.DECODER_ONLY, trt.ExecutorConfig())
    output = trt.OutputConfig(return_log_probs=True)
    request_id = executor.enqueue_request(request_of(trt, 1, words(1, 8), 300, output_config=output))
    executor.cancel_request(request_id)
    with pytest.raises(RuntimeError, match="aborted"):
        collect(executor, 1)
    with pytest.raises(RuntimeError, match="aborted"):
        executor.enqueue_request(request_of(trt, 2, words(1, 8)))


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
