"""Known traps of TensorRT-LLM's executor: what throws, and whom it ends."""

import threading
from typing import Any

import pytest
import torch

from tests.fixtures.engines import (
    SLOTS,
    VOCAB,
    Outputs,
    ask,
    drive,
    finishes_of,
    picture,
    step_until,
)
from tools.tiny_model import TINY
from worker.engine.generation import Finish
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


def test_more_rows_than_a_requests_part_of_the_table_are_refused_before_they_are_enqueued(
    trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    trt_engine.submit(ask("good", 60, max_tokens=20))
    with pytest.raises(Rejected, match="7 tiles") as caught:
        trt_engine.submit(ask("bad", 61, images=[picture(107, 7)]))
    assert caught.value.code == "invalid_image"
    outputs = drive(trt_engine)
    assert finishes_of(outputs) == {"good": Finish.LENGTH} and len(driven_executor.requests) == 1


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
    trt: Any, trt_engine: TensorRTEngine, driven_executor: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its way the request loses what the driven_executor asks of every prompt table."""
    enqueue = driven_executor.enqueue_request

    def lose_extra_ids(request: Any) -> int:
        if request.prompt_tuning_config is not None:
            request.prompt_tuning_config = trt.PromptTuningConfig(request.prompt_tuning_config.embedding_table)
        return int(enqueue(request))

    monkeypatch.setattr(driven_executor, "enqueue_request", lose_extra_ids)
    outputs = drive(trt_engine, ask("good", 78, max_tokens=30), ask("bad", 79, images=[picture(104)]))
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


def test_executor_is_set_up_out_of_the_way_of_known_faults(
    trt: Any, trt_engine: TensorRTEngine, driven_executor: Any
) -> None:
    """Evicting a stream, lookahead with a prompt table, keys of others from the host's memory, chunks of prompts."""
    config = driven_executor.config
    assert config.scheduler_config.capacity_scheduler_policy is trt.CapacitySchedulerPolicy.GUARANTEED_NO_EVICT
    assert config.decoding_config is None and not config.kv_cache_config.host_cache_size
    assert not config.enable_chunked_context and config.max_beam_width == 1
    # From a smaller batch than the trt_engine's it would count other parts of the prompt table.
    assert config.max_batch_size is None and config.max_num_tokens is None
    assert config.guided_decoding_config.backend is trt.GuidedDecodingConfig.GuidedDecodingBackend.XGRAMMAR
    drive(trt_engine, ask("a", 99, images=[picture(101)]))
    (request,) = driven_executor.requests
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
