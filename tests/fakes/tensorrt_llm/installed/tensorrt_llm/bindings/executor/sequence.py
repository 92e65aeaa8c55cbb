"""One answer of a request while it is active."""

import time

from tensorrt_llm.bindings.executor.enums import FinishReason
from tensorrt_llm.bindings.executor.kv_blocks import BlockKeys, Held
from tensorrt_llm.bindings.executor.request import Request
from tensorrt_llm.bindings.executor.response import KvCacheMetrics, RequestPerfMetrics, Result
from worker.engine.grammar import Matcher


class Sequence:
    """`index` is its place among the answers of its request. `most` tokens are generated at most."""

    def __init__(self, request_id: int, request: Request, index: int, slot: int, most: int, size: int) -> None:
        self.request_id, self.request, self.index, self.slot, self.most = request_id, request, index, slot, most
        self.prompt_len = len(request.input_token_ids)
        self.ids = list(request.input_token_ids)
        tuning = request.prompt_tuning_config
        extra_ids = list(tuning.input_token_extra_ids or ()) if tuning else []
        self.extra_ids = extra_ids or [0] * self.prompt_len
        self.keys = BlockKeys(self.ids, self.extra_ids, size, request.cache_salt_id)
        self.started = time.monotonic()
        self.held: Held | None = None
        self.matcher: Matcher | None = None
        self.metrics: KvCacheMetrics | None = None
        self.log_probs: list[float] = []
        self.finish: FinishReason | None = None
        self._sent = 0
        self._turns = 0

    @property
    def generated(self) -> list[int]:
        return self.ids[self.prompt_len :]

    @property
    def is_late(self) -> bool:
        """The clock starts when the sequence becomes active, not when it was enqueued."""
        allotted = self.request.allotted_time_ms
        return allotted is not None and time.monotonic() - self.started > allotted.total_seconds()

    def take(self, token: int, log_prob: float | None) -> None:
        if log_prob is not None:
            self.log_probs.append(log_prob)
        if token == self.request.end_id:
            self.finish = FinishReason.END_ID
            # The real one has been seen with and without it.
            if self.request_id % 2:
                self.ids.append(token)
            return
        self.ids.append(token)
        if any(self.generated[-len(word) :] == list(word) for word in self.request.stop_words or ()):
            self.finish = FinishReason.STOP_WORDS
        elif len(self.generated) >= self.most:
            self.finish = FinishReason.LENGTH

    def results(self, is_last_sequence: bool, iteration: int) -> list[Result]:
        """What is to be told after an iteration. A stream's tokens come as they are drawn, but now and then two at
        once; its end sometimes comes with the last token and sometimes alone."""
        if not self.request.streaming:
            return [self._result(0, True, is_last_sequence, iteration)] if self.finish else []
        self._turns += 1
        if self.finish is None and self._turns % 3 == 2:
            return []
        alone = self.finish is not None and self.request_id % 3 == 0 and self._sent < len(self.generated)
        results = [self._result(self._sent, False, False, iteration)] if alone else []
        if alone:
            self._sent = len(self.generated)
        results.append(self._result(self._sent, self.finish is not None, is_last_sequence, iteration))
        self._sent = len(self.generated)
        return results

    def _result(self, first: int, ended: bool, is_last_sequence: bool, iteration: int) -> Result:
        request = self.request
        with_input = not request.streaming and not request.output_config.exclude_input_from_output
        tokens = self.ids if with_input else self.generated[0 if request.return_all_generated_tokens else first :]
        metrics = (
            RequestPerfMetrics(self.metrics) if self.metrics and request.output_config.return_perf_metrics else None
        )
        logged = request.output_config.return_log_probs
        return Result(
            is_final=ended and is_last_sequence,
            output_token_ids=[list(tokens)],
            finish_reasons=[(self.finish if ended else None) or FinishReason.NOT_FINISHED],
            sequence_index=self.index,
            is_sequence_final=ended,
            decoding_iter=iteration,
            cum_log_probs=[sum(self.log_probs)] if logged else None,
            log_probs=[list(self.log_probs)] if logged else None,
            request_perf_metrics=metrics,
        )
