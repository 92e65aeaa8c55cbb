"""The stand-in for TensorRT-LLM's executor takes what the real one takes, and nothing else."""

import inspect
from typing import Any

import numpy as np
import pytest

from worker.engine.tensorrt.recorded_executor import CALLED, READ
from worker.engine.tensorrt.signatures import differences

pytestmark = pytest.mark.contract


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
