"""The executor's own thread: iteration by iteration it takes requests in, computes, and answers."""

import threading
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
import torch

from tensorrt_llm.bindings.executor.admission import fault_of
from tensorrt_llm.bindings.executor.config import ExecutorConfig
from tensorrt_llm.bindings.executor.engine_folder import EngineFolder
from tensorrt_llm.bindings.executor.enums import FinishReason
from tensorrt_llm.bindings.executor.group import Leader
from tensorrt_llm.bindings.executor.guidance import Guidance
from tensorrt_llm.bindings.executor.kv_blocks import Held, KvBlocks
from tensorrt_llm.bindings.executor.language_model import LanguageModel
from tensorrt_llm.bindings.executor.mailbox import Mailbox
from tensorrt_llm.bindings.executor.request import Request
from tensorrt_llm.bindings.executor.response import KvCacheMetrics, Response
from tensorrt_llm.bindings.executor.sampling import draw
from tensorrt_llm.bindings.executor.sequence import Sequence
from tensorrt_llm.bindings.executor.statistics import InflightBatchingStats, IterationStats, KvCacheStats
from worker.engine.torch.batch import ForwardBatch


@dataclass
class Queued:
    request_id: int
    request: Request
    at: float


class Aborted(Exception):
    """What would end the real process."""


class Loop:
    def __init__(self, folder: EngineFolder, leader: Leader, config: ExecutorConfig, mailbox: Mailbox) -> None:
        self._config, self._mailbox = config, mailbox
        built = folder.build
        self._batch = min(config.max_batch_size or built["max_batch_size"], built["max_batch_size"])
        self._step_tokens = min(config.max_num_tokens or built["max_num_tokens"], built["max_num_tokens"])
        size, kv = folder.tokens_per_block, config.kv_cache_config
        tokens = kv.max_tokens or min(self._batch * built["max_seq_len"], 65536)
        self._blocks = KvBlocks(tokens // size, size, kv.enable_block_reuse, kv.enable_partial_reuse)
        self._longest = min(built["max_seq_len"], tokens // size * size)
        self._model = LanguageModel(folder, leader, self._blocks.total, self._batch)
        guided = config.guided_decoding_config
        self._guidance = Guidance(guided, folder.vocab_size) if guided else None
        self._changed = threading.Condition()
        self._queue: list[Queued] = []
        self._cancelled: set[int] = set()
        self._active: list[Sequence] = []
        self._stats: deque[IterationStats] = deque(maxlen=config.iter_stats_max_iterations)
        self._stopping = False
        self._iteration = 0

    def enqueue(self, request_id: int, request: Request) -> None:
        with self._changed:
            most = self._config.max_queue_size
            if most is not None and len(self._queue) >= most:
                raise RuntimeError(f"Maximum queue size of {most} has been reached, please try again later")
            self._mailbox.open(request_id)
            self._queue.append(Queued(request_id, request, time.monotonic()))
            self._changed.notify()

    def cancel(self, request_id: int) -> None:
        with self._changed:
            self._cancelled.add(request_id)
            self._changed.notify()

    def pop_stats(self) -> list[IterationStats]:
        with self._changed:
            stats = list(self._stats)
            self._stats.clear()
            return stats

    def stop(self) -> None:
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopping or self._active or self._queue)
                if self._stopping:
                    return
            self._iterate()

    def _iterate(self) -> None:
        began = time.monotonic()
        new, waited_ms = self._fetch()
        self._drop_cancelled_and_late()
        scheduled = self._schedule()
        contexts = [s for s in scheduled if s.held and s.held.computed < s.prompt_len]
        context_tokens = sum(s.prompt_len - s.held.computed for s in contexts if s.held)
        completed = 0
        try:
            self._fill_tables()
            self._build_guides(scheduled)
            self._forward(scheduled)
        except RuntimeError as exc:
            self._fail_all(f"Encountered an error in forwardAsync function: {exc}")
        else:
            completed = self._answer(scheduled)
        self._iteration += 1
        counts = len(scheduled), len(contexts), context_tokens
        self._record(began, new, waited_ms, completed, counts)

    def _fetch(self) -> tuple[int, float]:
        """Takes in who waits, the highest priority first, while there are slots. Cancelling reaches nobody before."""
        taken: list[Queued] = []
        with self._changed:
            self._queue.sort(key=lambda queued: -queued.request.priority)
            free = self._batch - len(self._active)
            while self._queue and self._queue[0].request.num_return_sequences <= free:
                queued = self._queue.pop(0)
                free -= queued.request.num_return_sequences
                taken.append(queued)
            known = {s.request_id for s in self._active} | {q.request_id for q in (*taken, *self._queue)}
            # Unknown ids are logged and forgotten.
            self._cancelled &= known
        for queued in taken:
            self._activate(queued)
        now = time.monotonic()
        return len(taken), sum(now - queued.at for queued in taken) * 1e3

    def _activate(self, queued: Queued) -> None:
        request_id, request = queued.request_id, queued.request
        longest = min(self._longest - 1, self._step_tokens)
        fault = fault_of(request, self._config, longest, self._model.vocab_size)
        if fault:
            self._refuse(request_id, request, f"Encountered an error when fetching new request: {fault}")
            return
        # Beyond what fits an answer is cut short, with no more than a line in the log.
        most = min(request.max_tokens, self._longest - len(request.input_token_ids))
        for index in range(request.num_return_sequences):
            slot = min(set(range(self._batch)) - {s.slot for s in self._active})
            self._active.append(Sequence(request_id, request, index, slot, most, self._blocks.size))

    def _drop_cancelled_and_late(self) -> None:
        with self._changed:
            cancelled, active = set(self._cancelled), {s.request_id for s in self._active}
            self._cancelled -= active
        for sequence in self._active:
            if sequence.request_id in cancelled:
                if sequence.request.streaming and sequence.request.output_config.return_log_probs:
                    raise Aborted("the process was aborted: a stream with log_probs was cancelled")
                sequence.finish = FinishReason.CANCELLED
            elif sequence.is_late:
                sequence.finish = FinishReason.TIMED_OUT
        self._tell([s for s in self._active if s.finish])

    def _schedule(self) -> list[Sequence]:
        """Whoever has room in the cache; nobody overtakes who waits for it."""
        scheduled, tokens = [], 0
        for sequence in self._active:
            fits = tokens + sequence.prompt_len <= self._step_tokens
            if sequence.held is None and not (fits and self._give_room(sequence)):
                break
            held = sequence.held
            assert held is not None
            tokens += len(sequence.ids) - held.computed
            scheduled.append(sequence)
        return scheduled

    def _give_room(self, sequence: Sequence) -> bool:
        prompt = sequence.prompt_len
        held = self._blocks.open(sequence.keys, prompt, prompt + sequence.most)
        if held is None:
            return False
        sequence.held = held
        blocks = -(-prompt // self._blocks.size)
        missed = blocks - held.reused
        sequence.metrics = KvCacheMetrics(blocks, missed, held.reused, missed, held.reused / blocks)
        return True

    def _fill_tables(self) -> None:
        """Of every active request, in every iteration, whether it is at its prompt or far behind it."""
        for sequence in self._active:
            tuning = sequence.request.prompt_tuning_config
            if tuning is not None:
                if self._config.decoding_config is not None and sequence.request.lookahead_config is not None:
                    raise RuntimeError("Invalid input shape")
                self._model.put_table(sequence.slot, tuning.embedding_table)

    def _build_guides(self, sequences: list[Sequence]) -> None:
        """Of who is at its prompt: a guide knows nothing of what the prompt may hold of the answer."""
        for sequence in sequences:
            asked = sequence.request.guided_decoding_params
            if asked is not None and self._guidance is not None and sequence.matcher is None:
                sequence.matcher = self._guidance.matcher(asked)

    def _forward(self, sequences: list[Sequence]) -> None:
        if not sequences:
            return
        embeds, positions, slots, helds = [], [], [], []
        width = 0
        for sequence in sequences:
            held = sequence.held
            assert held is not None
            if held.copy is not None:
                self._model.copy_block(*held.copy)
                held.copy = None
            self._blocks.grow(held, len(sequence.ids))
            place = np.arange(held.computed, len(sequence.ids))
            pages, size = np.array(held.lease.pages), self._blocks.size
            embeds.append(self._model.embed(sequence.ids[held.computed :], sequence.slot))
            positions.append(place)
            slots.append(pages[place // size] * size + place % size)
            width = max(width, len(pages))
            helds.append(held)
        batch = ForwardBatch(
            positions=torch.from_numpy(np.concatenate(positions)),
            slots=torch.from_numpy(np.concatenate(slots)),
            pages=_table(helds, width),
            q_lens=tuple(map(len, positions)),
            kv_lens=tuple(len(sequence.ids) for sequence in sequences),
        )
        logits = self._model.logits(torch.cat(embeds), batch)
        for sequence, held in zip(sequences, helds, strict=True):
            held.computed = len(sequence.ids)
        self._draw(sequences, logits)

    def _draw(self, sequences: list[Sequence], logits: torch.Tensor) -> None:
        for sequence, token in zip(sequences, draw(sequences, logits), strict=True):
            sequence.take(token.id, token.logprob)
            if sequence.matcher is not None and sequence.finish is not FinishReason.END_ID:
                sequence.matcher.take([token.id])

    def _answer(self, scheduled: list[Sequence]) -> int:
        self._tell(scheduled)
        return sum(s.finish is not None for s in scheduled)

    def _tell(self, sequences: list[Sequence]) -> None:
        """Room and slots of who has ended are free before anybody hears of it."""
        ended = [s for s in sequences if s.finish]
        self._remove(ended)
        left = [s.request_id for s in self._active]
        for sequence in sequences:
            if sequence.finish:
                ended.remove(sequence)
            request_id, request = sequence.request_id, sequence.request
            is_last = request_id not in left and request_id not in [s.request_id for s in ended]
            for result in sequence.results(is_last, self._iteration):
                self._mailbox.put(Response(request_id, request.client_id, result), result.is_final)

    def _refuse(self, request_id: int, request: Request, fault: str) -> None:
        self._mailbox.put(Response(request_id, request.client_id, fault), last=True)

    def _fail_all(self, why: str) -> None:
        """A fault of one is everybody's."""
        failed = {s.request_id: s.request for s in self._active}
        self._remove(list(self._active))
        for request_id, request in failed.items():
            self._refuse(request_id, request, why)
            # Whoever awaits them may get them one by one.
            time.sleep(0.002)

    def _remove(self, sequences: list[Sequence]) -> None:
        for sequence in sequences:
            self._active.remove(sequence)
            if sequence.held is not None:
                self._blocks.close(sequence.held)

    def _record(self, began: float, new: int, waited_ms: float, completed: int, counts: tuple[int, int, int]) -> None:
        blocks = self._blocks
        scheduled, contexts, context_tokens = counts
        with self._changed:
            self._stats.append(
                IterationStats(
                    timestamp=time.strftime("%m-%d-%Y %H:%M:%S"),
                    iter=self._iteration,
                    iter_latency_ms=(time.monotonic() - began) * 1e3,
                    new_active_requests_queue_latency_ms=waited_ms,
                    num_new_active_requests=new,
                    num_active_requests=len(self._active),
                    num_queued_requests=len(self._queue),
                    num_completed_requests=completed,
                    max_num_active_requests=self._batch,
                    gpu_mem_usage=0,
                    cpu_mem_usage=0,
                    pinned_mem_usage=0,
                    kv_cache_stats=KvCacheStats(
                        max_num_blocks=blocks.total,
                        free_num_blocks=blocks.free,
                        used_num_blocks=blocks.total - blocks.free,
                        tokens_per_block=blocks.size,
                        alloc_total_blocks=blocks.allocated,
                        alloc_new_blocks=blocks.new,
                        reused_blocks=blocks.reused,
                        missed_blocks=blocks.missed,
                        cache_hit_rate=blocks.reused / max(blocks.reused + blocks.missed, 1),
                    ),
                    inflight_batching_stats=InflightBatchingStats(
                        num_scheduled_requests=scheduled,
                        num_context_requests=contexts,
                        num_gen_requests=scheduled - contexts,
                        num_paused_requests=0,
                        num_ctx_tokens=context_tokens,
                        micro_batch_id=0,
                        avg_num_decoded_tokens_per_iter=1.0,
                    ),
                )
            )


def _table(helds: list[Held], width: int) -> torch.Tensor:
    table = np.zeros((len(helds), width), dtype=np.int32)
    for row, held in enumerate(helds):
        table[row, : len(held.lease.pages)] = held.lease.pages
    return torch.from_numpy(table)
