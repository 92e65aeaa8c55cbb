"""The fake executor: it generates what the torch engine generates."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.fixtures.models import Reference

pytestmark = pytest.mark.contract


@pytest.fixture
def trt(tensorrt_llm: None) -> Any:
    import tensorrt_llm.bindings.executor as trt

    return trt


@pytest.fixture
def executor(trt: Any, tiny_llm_engine: Path) -> Iterator[Any]:
    config = trt.ExecutorConfig(kv_cache_config=trt.KvCacheConfig(max_tokens=4096))
    with trt.Executor(tiny_llm_engine, trt.ModelType.DECODER_ONLY, config) as executor:
        yield executor


def test_greedy_answer_in_increments_equals_transformers(trt: Any, executor: Any, tiny_reference: Reference) -> None:
    ids = np.random.default_rng(1).integers(5, 1500, 60).tolist()
    executor.enqueue_request(trt.Request(ids, 16, streaming=True, client_id=7))
    tokens: list[int] = []
    final = False
    while not final:
        for response in executor.await_responses(timedelta(seconds=10)):
            assert response.client_id == 7 and not response.has_error()
            tokens += response.result.output_token_ids[0]
            final = response.result.is_final
    assert tokens == tiny_reference.generate(ids, None, 16)
