"""What an executor answers."""

from dataclasses import dataclass, field
from typing import Any

from tensorrt_llm.bindings.executor.enums import FinishReason


@dataclass(frozen=True)
class KvCacheMetrics:
    num_total_allocated_blocks: int = 0
    num_new_allocated_blocks: int = 0
    num_reused_blocks: int = 0
    num_missed_blocks: int = 0
    kv_cache_hit_rate: float = 0.0


@dataclass(frozen=True)
class RequestPerfMetrics:
    kv_cache_metrics: KvCacheMetrics = KvCacheMetrics()


@dataclass(frozen=True)
class Result:
    is_final: bool
    output_token_ids: list[list[int]]
    finish_reasons: list[FinishReason]
    sequence_index: int = 0
    is_sequence_final: bool = False
    decoding_iter: int = 0
    cum_log_probs: list[float] | None = None
    log_probs: list[list[float]] | None = None
    context_logits: None = None
    generation_logits: None = None
    encoder_output: None = None
    context_phase_params: None = None
    request_perf_metrics: RequestPerfMetrics | None = None
    additional_outputs: list[Any] = field(default_factory=list)


class Response:
    """Has a result or an error; to ask for the other one is an error too."""

    def __init__(self, request_id: int, client_id: int | None, outcome: Result | str) -> None:
        self.request_id = request_id
        self.client_id = client_id
        self._outcome = outcome

    def has_error(self) -> bool:
        return isinstance(self._outcome, str)

    @property
    def error_msg(self) -> str:
        if not isinstance(self._outcome, str):
            raise RuntimeError("Assertion failed: hasError()")
        return self._outcome

    @property
    def result(self) -> Result:
        if isinstance(self._outcome, str):
            raise RuntimeError(self._outcome)
        return self._outcome

    def clear_context_logits(self) -> None: ...

    def clear_generation_logits(self) -> None: ...
