"""The language model in TensorRT-LLM's executor, behind `worker.engine.protocol.Engine`.

One thread owns this engine. Beside it the executor computes, the collector takes its responses, and `pictures` encodes
images; each of them wakes a step that waits.

    WAITING ──► ENCODING ──► ACTIVE ──► ended
       │           │            └─ cancel ─► LEAVING ──► its slot is free
       └───────────┴── cancel ─► ended
"""

import threading
import time
from concurrent.futures import Future
from typing import Any

import torch

from worker.engine.generation import EngineStats, Finish, Generation, TokenOutput
from worker.engine.grammar import Grammars, Matcher
from worker.engine.limits import Limits
from worker.engine.protocol import Rejected
from worker.engine.tensorrt.collector import Collector, ExecutorFault
from worker.engine.tensorrt.entry import Entry, Stage
from worker.engine.tensorrt.executor import Requests, finishes
from worker.engine.tensorrt.manifest import LanguageManifest
from worker.engine.tensorrt.pictures import Pictures
from worker.engine.tensorrt.prompt_table import TableError, TableShape, extra_ids, join
from worker.engine.tensorrt.statistics import Statistics
from worker.engine.torch.block_cache import IntegrityError

# How long a step waits for news: what the worker sends meanwhile waits as long.
_LOOK_S = 0.005
# Responses of one iteration come one after another: together they are one message.
_GATHER_S = 0.001
# What the executor names when it throws for all that run.
_COMPUTING = ("forwardAsync", "forwardSync")
# Beyond the slots, so that a slot that becomes free finds its pictures encoded.
_ENCODED_AHEAD = 2


class TensorRTEngine:
    """At most `slots` generations are in the executor; the others wait here, where they are cancelled at once. The
    news event is the one that `pictures` sets."""

    def __init__(
        self,
        executor: Any,
        requests: Requests,
        manifest: LanguageManifest,
        limits: Limits,
        slots: int,
        pictures: Pictures,
        grammars: Grammars,
        news: threading.Event,
        device: str,
    ) -> None:
        self._executor = executor
        self._requests = requests
        self._finishes = finishes(requests.api)
        self._manifest = manifest
        self._limits = limits
        self._slots = slots
        self._pictures = pictures
        self._grammars = grammars
        self._news = news
        self._table = TableShape(
            manifest.tiles * manifest.tokens_per_tile, manifest.hidden, getattr(torch, manifest.dtype)
        )
        self.context_length = limits.capacity
        self.vocab_size = limits.vocab_size
        self.device = device
        self._alive: dict[str, Entry] = {}
        self._by_number: dict[int, Entry] = {}
        self._ended: list[TokenOutput] = []
        self._number = 0
        self._statistics = Statistics()
        self._collector = Collector(executor, news.set)

    def submit(self, generation: Generation) -> None:
        if generation.id in self._alive or any(output.id == generation.id for output in self._ended):
            raise Rejected("duplicate_id", f"generation {generation.id!r} is alive already")
        limit = self._limits.check(generation)
        self._check_engine(generation)
        if generation.grammar is not None:
            self._grammars.matcher(generation.grammar, generation.stop_ids)
        self._requests.check(generation)
        whole = len(generation.prompt_ids) + len(generation.generated)
        replays = generation.grammar is not None or whole > self._manifest.max_input_len
        self._number += 1
        entry = Entry(self._number, generation, limit, replays)
        finish = entry.already_ended()
        if finish:
            self._ended.append(entry.end(finish))
            return
        self._alive[generation.id] = entry

    def prepare(self, generation: Generation) -> "Future[Matcher] | None":
        """Begins on another thread what would make `submit` slow; None when nothing would."""
        if generation.grammar is None:
            return None
        return self._grammars.begin(generation.grammar, generation.stop_ids)

    def cancel(self, generation_id: str) -> None:
        entry = self._alive.pop(generation_id, None)
        if entry is not None:
            self._ended.append(entry.end(Finish.CANCELLED))
            self._leave(entry)

    def has_work(self) -> bool:
        return bool(self._alive or self._ended or self._by_number)

    def step(self) -> list[TokenOutput]:
        """Unlike an engine that computes here, it waits a moment for news when there is none."""
        self._admit()
        if self._by_number or self._alive:
            self._await_news()
        outputs, self._ended = self._ended, []
        errors: dict[str, list[Entry]] = {}
        for response in self._collector.take():
            entry = self._by_number.get(response.client_id)
            if entry is None:
                continue
            if response.has_error():
                errors.setdefault(response.error_msg, []).append(entry)
            else:
                outputs += self._take(entry, response.result)
        outputs += self._take_errors(errors)
        self._admit()
        return outputs

    def stats(self) -> EngineStats:
        statistics, counters = self._statistics, self._statistics.counters
        statistics.add(self._executor.get_latest_iteration_stats())
        waiting = sum(entry.stage is not Stage.ACTIVE for entry in self._alive.values())
        return EngineStats(
            waiting=waiting,
            running=len(self._by_number),
            slots=self._slots,
            pages_free=statistics.blocks_free,
            pages_cached=0,
            pages_total=statistics.blocks_total,
            steps=statistics.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            generated_tokens=counters.generated_tokens,
            tiles_encoded=self._pictures.tiles_encoded,
            tiles_reused=self._pictures.tiles_reused,
            tokens_per_s=counters.tokens_per_s(),
            steps_by_batch=dict(sorted(statistics.steps_by_batch.items())),
            served_per_s=counters.served_per_s(),
        )

    def check_integrity(self) -> None:
        """Raises IntegrityError when a slot is taken by nobody, or embeddings are miscounted."""
        self._pictures.check_integrity()
        active = {entry.number for entry in self._alive.values() if entry.stage is Stage.ACTIVE}
        taken = {number for number, entry in self._by_number.items() if entry.stage is Stage.ACTIVE}
        if active != taken or len(self._by_number) > self._slots:
            raise IntegrityError(f"{len(taken)} requests are in the executor, {len(active)} are on record as there")

    def close(self) -> None:
        for entry in list(self._by_number.values()):
            self._leave(entry)
        self._collector.close()
        self._executor.shutdown()
        self._pictures.close()
        self._grammars.close()

    def _check_engine(self, generation: Generation) -> None:
        """Beyond what every engine checks: what this one was built for."""
        built, prompt = self._manifest, len(generation.prompt_ids)
        if prompt > built.max_input_len:
            raise Rejected(
                "context_length_exceeded",
                f"the prompt has {prompt} tokens; this engine was built for prompts of {built.max_input_len}",
            )
        tiles = sum(image.tiles for image in generation.images)
        if tiles > built.tiles:
            raise Rejected(
                "invalid_image", f"the images have {tiles} tiles; this engine was built for {built.tiles} of a request"
            )

    def _admit(self) -> None:
        """Those that come first get their images encoded, and a slot once they are."""
        waiting = (entry for entry in self._alive.values() if entry.stage in (Stage.WAITING, Stage.ENCODING))
        free = self._slots - len(self._by_number)
        for entry in sorted(waiting, key=lambda entry: entry.order)[: free + _ENCODED_AHEAD]:
            if entry.stage is Stage.WAITING:
                images, salt = entry.generation.images, entry.generation.salt
                entry.embeddings = [self._pictures.embedding(image, salt) for image in images]
                entry.stage = Stage.ENCODING
            if free and entry.is_encoded:
                free -= self._enqueue(entry)

    def _enqueue(self, entry: Entry) -> bool:
        """Whether it takes a slot."""
        generation, ids, drawn = entry.generation, entry.first_ids, entry.drawn
        try:
            table = self._table_of(entry, ids) if generation.images else None
        except TableError as exc:
            self._ended.append(entry.fail(str(exc)))
            self._drop(entry)
            return False
        request = self._requests.request(generation, ids, entry.number, entry.limit - drawn, drawn, table)
        # On record before it is sent: its first response may come before its id.
        entry.stage = Stage.ACTIVE
        self._by_number[entry.number] = entry
        entry.request_id = self._executor.enqueue_request(request)
        return True

    def _table_of(self, entry: Entry, ids: list[int]) -> Any:
        """Raises TableError."""
        images, built = entry.generation.images, self._manifest
        entry.table = join([embedding.result() for embedding in entry.embeddings], built.tensor_parallel > 1)
        entry.embeddings = []
        self._table.check(entry.table, sum(image.tiles for image in images) * built.tokens_per_tile)
        return self._requests.table(entry.table, extra_ids(ids, images, built.vocab_size, built.tokens_per_tile))

    def _await_news(self) -> None:
        if not self._ended and self._news.wait(_LOOK_S):
            time.sleep(_GATHER_S)
        self._news.clear()

    def _take(self, entry: Entry, result: Any) -> list[TokenOutput]:
        if result.is_final:
            del self._by_number[entry.number]
        if entry.stage is Stage.LEAVING:
            return []
        self._learn_reuse(entry, result)
        outputs: list[TokenOutput] = []
        for token in result.output_token_ids[0]:
            output = entry.take(token)
            if output is not None:
                outputs.append(output)
            if output is not None and output.finish is not None:
                break
        if result.is_final and not (outputs and outputs[-1].finish):
            outputs += self._last(entry, result.finish_reasons[0])
        self._count(entry, outputs)
        if outputs and outputs[-1].finish:
            self._drop(entry, entry.ends_itself(outputs[-1]))
        return outputs

    def _last(self, entry: Entry, reason: Any) -> list[TokenOutput]:
        """The end of an answer whose last token did not tell it. Of the token that ends it the executor tells
        sometimes and sometimes not."""
        finish = self._finishes.get(reason)
        if finish is Finish.STOP:
            output = entry.take(entry.generation.stop_ids[0])
            return [output or entry.fail("the answer has ended before what an earlier attempt had of it")]
        if finish is None:
            return [entry.fail(f"the executor ended it with {reason}")]
        return [entry.end(finish)]

    def _take_errors(self, errors: dict[str, list[Entry]]) -> list[TokenOutput]:
        """An error of one request is its own. One of computing, or the same of several, is what the executor tells all
        that run when it has thrown, one after the other: whose fault it was is not known, and all can be run again."""
        outputs = []
        for message, entries in errors.items():
            if len(entries) > 1 or any(name in message for name in _COMPUTING):
                raise ExecutorFault(f"{len(entries)} requests were lost at once: {message}")
            (entry,) = entries
            del self._by_number[entry.number]
            if entry.stage is not Stage.LEAVING:
                outputs.append(entry.fail(message))
                self._drop(entry)
        return outputs

    def _drop(self, entry: Entry, ends_itself: bool = False) -> None:
        """Its end was told."""
        self._alive.pop(entry.generation.id, None)
        self._leave(entry, ends_itself)

    def _leave(self, entry: Entry, ends_itself: bool = False) -> None:
        """Its slot becomes free with the executor's last response."""
        if entry.number in self._by_number and entry.stage is Stage.ACTIVE and not ends_itself:
            self._executor.cancel_request(entry.request_id)
        entry.stage = Stage.LEAVING

    def _learn_reuse(self, entry: Entry, result: Any) -> None:
        """The executor counts in blocks, whose size it tells with its first iteration."""
        metrics = result.request_perf_metrics
        if entry.cached_tokens is not None or metrics is None:
            return
        if not self._statistics.tokens_per_block:
            self._statistics.add(self._executor.get_latest_iteration_stats())
        reused = metrics.kv_cache_metrics.num_reused_blocks * self._statistics.tokens_per_block
        entry.cached_tokens = min(reused, len(entry.generation.prompt_ids) - 1)

    def _count(self, entry: Entry, outputs: list[TokenOutput]) -> None:
        counters = self._statistics.counters
        counters.count_step()
        for output in outputs:
            counters.generated_tokens += len(output.tokens)
            if output.cached_tokens is not None:
                counters.prompt_tokens += len(entry.generation.prompt_ids)
                counters.cached_tokens += output.cached_tokens
