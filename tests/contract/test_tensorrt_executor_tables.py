"""The stand-in for TensorRT-LLM's executor has the real one's prompt tables, and the blocks of keys that are shared
by them."""

from typing import Any

import pytest
import torch

from tests.fixtures.engines import VOCAB, words
from tests.fixtures.models import Reference, random_tiles
from tests.fixtures.tensorrt_executor import HIDDEN, Answer, collect, prompt_table, request_of, wait_until_active

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (prompt_table(97), "97 rows, at most 96"),
        (prompt_table(8, dtype=torch.bfloat16), "torch.bfloat16"),
        (prompt_table(8, width=HIDDEN // 2), "width"),
    ],
)
def test_one_wrong_prompt_table_ends_every_active_request(
    trt: Any, trt_executor: Any, table: torch.Tensor, why: str
) -> None:
    for number in (1, 2):
        trt_executor.enqueue_request(request_of(trt, number, words(number, 8), 300))
    ids = [*range(VOCAB, VOCAB + len(table)), *words(3, 4)]
    tuning = trt.PromptTuningConfig(table, [7] * len(table) + [0] * 4)
    trt_executor.enqueue_request(request_of(trt, 3, ids, prompt_tuning_config=tuning))
    answers = collect(trt_executor, 1, 2, 3)
    for answer in answers.values():
        assert answer.responses[-1].has_error() and why in answer.responses[-1].error_msg


def test_fault_of_a_prompt_is_its_requests_alone(trt: Any, trt_executor: Any) -> None:
    trt_executor.enqueue_request(request_of(trt, 1, words(1, 8), 30))
    tuning = trt.PromptTuningConfig(prompt_table(8))
    ids = [*range(VOCAB, VOCAB + 8), 5]
    trt_executor.enqueue_request(request_of(trt, 2, ids, prompt_tuning_config=tuning))
    short = trt.PromptTuningConfig(prompt_table(8), [7] * 8)
    trt_executor.enqueue_request(request_of(trt, 3, ids, prompt_tuning_config=short))
    trt_executor.enqueue_request(request_of(trt, 4, words(1, 1024)))
    answers = collect(trt_executor, 1, 2, 3, 4)
    assert len(answers[1].tokens) == 30
    assert "extra ids must be provided" in answers[2].responses[0].error_msg
    assert "size (8) must be the same" in answers[3].responses[0].error_msg
    assert "Prompt length (1024) exceeds" in answers[4].responses[0].error_msg


def test_rows_of_the_table_stand_at_the_virtual_ids(trt: Any, trt_executor: Any, tiny_reference: Reference) -> None:
    tiles = random_tiles(1, 3)
    table = tiny_reference.visual_tokens(tiles)
    ids = [*words(6, 5), *range(VOCAB, VOCAB + len(table)), *words(7, 5)]
    extra = [0] * 5 + [9] * len(table) + [0] * 5
    tuning = trt.PromptTuningConfig(table, extra)
    trt_executor.enqueue_request(request_of(trt, 1, ids, 12, prompt_tuning_config=tuning))
    assert collect(trt_executor, 1)[1].tokens == tiny_reference.generate(ids, tiles, 12)


def test_equal_ids_share_blocks_unless_extra_ids_or_salts_differ(trt: Any, trt_executor: Any) -> None:
    ids = [*range(VOCAB, VOCAB + 64), *words(8, 10)]

    def ask(number: int, seed: int, extra: int, **more: Any) -> Answer:
        tuning = trt.PromptTuningConfig(prompt_table(64, seed=seed), [extra] * 64 + [0] * 10)
        trt_executor.enqueue_request(request_of(trt, number, ids, prompt_tuning_config=tuning, **more))
        return collect(trt_executor, number)[number]

    first, again = ask(1, seed=1, extra=11), ask(2, seed=1, extra=11)
    assert (first.metrics.num_reused_blocks, again.metrics.num_reused_blocks) == (0, 2)
    assert again.tokens == first.tokens
    other, salted = ask(3, seed=2, extra=12), ask(4, seed=1, extra=11, cache_salt_id=5)
    assert (other.metrics.num_reused_blocks, salted.metrics.num_reused_blocks) == (0, 0)
    assert other.tokens != first.tokens == salted.tokens
    # What a driver gets that forgets whose picture it is.
    assert ask(5, seed=3, extra=12).tokens == other.tokens


def test_blocks_of_who_still_runs_are_nobody_elses(trt: Any, trt_executor: Any) -> None:
    ids = words(30, 70)
    running = trt_executor.enqueue_request(request_of(trt, 1, ids, 300))
    wait_until_active(trt_executor, 1)
    trt_executor.enqueue_request(request_of(trt, 2, ids, 4))
    assert collect(trt_executor, 2)[2].metrics.num_reused_blocks == 0
    trt_executor.cancel_request(running)
    collect(trt_executor, 1)
    trt_executor.enqueue_request(request_of(trt, 3, ids, 4))
    assert collect(trt_executor, 3)[3].metrics.num_reused_blocks >= 2


def test_block_that_is_taken_over_in_part_counts_as_reused(
    trt: Any, trt_executor: Any, tiny_reference: Reference
) -> None:
    ids = words(31, 60)
    trt_executor.enqueue_request(request_of(trt, 1, ids, 20))
    collect(trt_executor, 1)
    fork = [*ids[:40], *words(32, 20)]
    trt_executor.enqueue_request(request_of(trt, 2, fork, 12))
    answer = collect(trt_executor, 2)[2]
    assert answer.metrics.num_reused_blocks == 2
    assert answer.tokens == tiny_reference.generate(fork, None, 12)
