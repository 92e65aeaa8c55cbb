"""The inflight-batching engine: sequences join and leave the running batch between any two tokens.

The scheduler decides, the block cache accounts, the model computes, the sampler draws; this file puts them in order.
"""

from collections.abc import Sequence as Many
from concurrent.futures import Future

import numpy as np
import torch

from worker.engine.generation import EngineStats, Finish, Generation, SampledToken, TokenOutput
from worker.engine.grammar import Grammars, Matcher
from worker.engine.limits import Limits
from worker.engine.protocol import Rejected
from worker.engine.torch.block_cache import NULL_PAGE, BlockCache, IntegrityError
from worker.engine.torch.counters import Counters
from worker.engine.torch.decode_batch import DecodeBatch
from worker.engine.torch.embedding_cache import EmbeddingCache
from worker.engine.torch.image_encoder import ImageEncoder
from worker.engine.torch.model import Model
from worker.engine.torch.options import EngineOptions
from worker.engine.torch.prefill_batch import embed_chunks, forward_batch, last_rows
from worker.engine.torch.sampler import NOT_FINITE, Draw, Sampler
from worker.engine.torch.sampling_plan import plan_of
from worker.engine.torch.scheduler import Scheduler
from worker.engine.torch.sequence import Sequence
from worker.engine.torch.token_masks import TokenMasks, masks_of


class TorchEngine:
    """Implements `worker.engine.protocol.Engine`. Takes the memory of the KV cache at once. Room for a sequence's
    longest possible answer is promised before it is admitted, so an admitted one always ends by itself. Without
    `grammars` it refuses generations that have one."""

    def __init__(self, model: Model, options: EngineOptions, grammars: Grammars | None = None) -> None:
        self._model = model
        self._grammars = grammars
        self._options = options
        self._cache = BlockCache(options.pages, options.page_size)
        self._scheduler = Scheduler(self._cache, options.slots, options.prefill_chunk)
        self._sampler = Sampler(options.slots, model.vocab_size, model.device)
        self._encoder = ImageEncoder(model, EmbeddingCache(options.embedding_bytes), options.tiles_per_step)
        self.context_length = min(model.context_length, options.pages * options.page_size)
        self._limits = Limits(model.vocab_size, self.context_length, model.tokens_per_tile, model.tile_size)
        self._alive: dict[str, Sequence] = {}
        self._ended: dict[str, TokenOutput] = {}
        self._decode_batch: DecodeBatch | None = None
        self._counters = Counters()
        model.allocate_cache(options.pages + 1, options.page_size)

    def submit(self, generation: Generation) -> None:
        if generation.id in self._alive or generation.id in self._ended:
            raise Rejected("duplicate_id", f"generation {generation.id!r} is alive already")
        limit = self._limits.check(generation)
        model, page_size = self._model, self._options.page_size
        sequence = Sequence(generation, limit, model.vocab_size, model.tokens_per_tile, page_size, model.trained_length)
        if not self._options.prefix_reuse:
            sequence.reusable_pages = 0
        finish = sequence.already_ended()
        if finish:
            self._ended[generation.id] = TokenOutput(generation.id, finish=finish, cached_tokens=0)
            return
        sequence.matcher = self._matcher(generation)
        self._alive[generation.id] = sequence
        self._scheduler.add(sequence)

    def prepare(self, generation: Generation) -> "Future[Matcher] | None":
        """Begins on another thread what would make `submit` slow; None when nothing would."""
        if generation.grammar is None or self._grammars is None:
            return None
        return self._grammars.begin(generation.grammar, generation.stop_ids)

    def cancel(self, generation_id: str) -> None:
        sequence = self._alive.get(generation_id)
        if sequence:
            self._remove(sequence)
            self._ended[generation_id] = TokenOutput(generation_id, finish=Finish.CANCELLED)

    def has_work(self) -> bool:
        return bool(self._alive or self._ended)

    @torch.inference_mode()
    def step(self) -> list[TokenOutput]:
        outputs = self._take_ended()
        outputs += self._decode(self._scheduler.decoding)
        self._admit()
        self._encoder.run(self._scheduler.prefilling)
        outputs += self._prefill()
        return outputs

    def stats(self) -> EngineStats:
        counters, cache = self._counters, self._cache
        return EngineStats(
            waiting=self._scheduler.waiting,
            running=self._scheduler.running,
            slots=self._options.slots,
            pages_free=cache.pages_free,
            pages_cached=cache.pages_cached,
            pages_total=cache.pages_total,
            steps=counters.steps,
            prompt_tokens=counters.prompt_tokens,
            cached_tokens=counters.cached_tokens,
            generated_tokens=counters.generated_tokens,
            tiles_encoded=self._encoder.tiles_encoded,
            tiles_reused=self._encoder.tiles_reused,
            tokens_per_s=counters.tokens_per_s(),
            steps_by_batch=dict(sorted(counters.steps_by_batch.items())),
            served_per_s=counters.served_per_s(),
        )

    def check_integrity(self) -> None:
        """Raises IntegrityError when the accounts of pages, slots or embeddings are wrong. Walks every page: for idle
        times."""
        self._cache.check_integrity()
        self._scheduler.check_integrity()
        self._encoder.check_integrity()
        if len(self._alive) != self._scheduler.waiting + self._scheduler.running:
            raise IntegrityError(f"{len(self._alive)} sequences are alive, the scheduler has another number")

    def close(self) -> None:
        for sequence in list(self._alive.values()):
            self._remove(sequence)
        self._ended.clear()
        if self._grammars is not None:
            self._grammars.close()

    def _take_ended(self) -> list[TokenOutput]:
        ended = list(self._ended.values())
        self._ended.clear()
        return ended

    def _matcher(self, generation: Generation) -> Matcher | None:
        """The grammar's follower, behind what an earlier attempt generated."""
        if generation.grammar is None:
            return None
        if self._grammars is None:
            raise Rejected("invalid_json_schema", "this engine has no tokenizer to keep a grammar with")
        matcher = self._grammars.matcher(generation.grammar, generation.stop_ids)
        if not matcher.take(generation.generated):
            raise Rejected("invalid_prompt", f"the tokens in generated do not keep the grammar: {matcher.error}")
        return matcher

    def _masks(self, sequences: Many[Sequence]) -> TokenMasks | None:
        return masks_of(sequences, self._model.vocab_size, self._model.device)

    def _admit(self) -> None:
        for sequence in self._scheduler.admit():
            generation = sequence.generation
            self._sampler.open(sequence.slot, generation.sampling, sequence.text_ids, generation.generated)

    def _prefill(self) -> list[TokenOutput]:
        chunks = self._scheduler.chunks()
        if not chunks:
            return []
        self._counters.count_step()
        batch = forward_batch(chunks, self._options.page_size, self._model.device)
        hidden = self._model.forward(embed_chunks(chunks, self._model), batch)
        done = [chunk.sequence for chunk in chunks if chunk.completes]
        if not done:
            return []
        self._encoder.release(done)
        plan = plan_of(done, self._model.device)
        drawn = np.array([sequence.generated for sequence in done], dtype=np.int64)
        draw = self._sampler.sample(self._model.logits(hidden[last_rows(chunks)]), plan, drawn, self._masks(done))
        return self._take_tokens(done, draw)

    def _decode(self, sequences: Many[Sequence]) -> list[TokenOutput]:
        if not sequences:
            return []
        self._counters.count_step()
        self._counters.steps_by_batch[len(sequences)] += 1
        batch = self._decode_batch
        if batch is None or batch.sequences != sequences:
            batch = self._decode_batch = DecodeBatch(sequences, self._options.page_size, self._model.device)
        for row, sequence in enumerate(batch.sequences):
            page = self._scheduler.grow(sequence)
            if page is not None:
                batch.set_page(row, page)
        hidden = self._model.forward(self._model.embed(batch.ids), batch.forward_batch())
        draw = self._sampler.sample(self._model.logits(hidden), batch.plan, batch.drawn, self._masks(sequences))
        for sequence, token in zip(batch.sequences, draw.tokens, strict=True):
            if token != NOT_FINITE:
                self._scheduler.advance(sequence)
        batch.advance(draw.ids)
        return self._take_tokens(batch.sequences, draw)

    def _take_tokens(self, sequences: Many[Sequence], draw: Draw) -> list[TokenOutput]:
        outputs = []
        for row, sequence in enumerate(sequences):
            token = draw.tokens[row]
            if token == NOT_FINITE:
                sequence.proven = False
                place = len(sequence.ids)
                error = f"the model's logits for token {place} of this sequence are not finite"
                outputs.append(self._fail(sequence, error))
                continue
            sequence.proven = True
            if broken := sequence.breaks_grammar(token):
                outputs.append(self._fail(sequence, f"the grammar can be followed no longer: {broken}"))
                continue
            self._counters.generated_tokens += 1
            finish = sequence.append(token)
            if finish:
                self._remove(sequence)
            sampled = draw.logprobs.get(row) or SampledToken(token)
            outputs.append(TokenOutput(sequence.id, [sampled], finish, cached_tokens=self._announce(sequence)))
        return outputs

    def _fail(self, sequence: Sequence, error: str) -> TokenOutput:
        self._remove(sequence)
        return TokenOutput(sequence.id, [], Finish.ERROR, error, self._announce(sequence))

    def _announce(self, sequence: Sequence) -> int | None:
        """Counts the prompt with the first output; how much of it was reused is news only then."""
        if sequence.announced:
            return None
        sequence.announced = True
        cached = min(sequence.reused, sequence.prompt_len)
        self._counters.prompt_tokens += sequence.prompt_len
        self._counters.cached_tokens += cached
        return cached

    def _remove(self, sequence: Sequence) -> None:
        scrub = self._scheduler.remove(sequence)
        if scrub:
            self._model.copy_pages([NULL_PAGE] * len(scrub), scrub)
        del self._alive[sequence.id]
        if not self._alive:
            # It holds the last sequences, and they their pictures.
            self._decode_batch = None
