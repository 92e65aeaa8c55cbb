"""One generation while this engine has it. Knows what came of its tokens, not where it stands in a queue."""

from __future__ import annotations

from enum import Enum, auto
from typing import TYPE_CHECKING, Any

from worker.engine.generation import Finish, Generation, SampledToken, TokenOutput

if TYPE_CHECKING:
    from concurrent.futures import Future

    import torch


class Stage(Enum):
    """LEAVING: its end is told, the executor still has it and its slot."""

    WAITING = auto()
    ENCODING = auto()
    ACTIVE = auto()
    LEAVING = auto()


class Entry:
    """`limit` is how many tokens may be generated in all. `number` names it to the executor.

    Tokens of an earlier attempt go into the prompt, and the executor goes on behind them. With `replays` it begins anew
    instead, and what it repeats of them is not told again: a grammar cannot be followed from its middle, and together
    with the prompt they may be longer than a prompt can be."""

    def __init__(self, number: int, generation: Generation, limit: int, replays: bool) -> None:
        self.number = number
        self.generation = generation
        self.limit = limit
        self.stage = Stage.WAITING
        self.embeddings: list[Future[torch.Tensor]] = []
        self.request: Any = None
        # The executor reads it in every iteration: it lives until the last response.
        self.table: torch.Tensor | None = None
        self.request_id = -1
        self.cached_tokens: int | None = None
        self._expected = list(generation.generated) if replays else []
        self._generated = 0 if replays else len(generation.generated)
        self._told = False

    @property
    def order(self) -> tuple[int, int]:
        """Who is admitted first: lane, then arrival."""
        return self.generation.lane, self.number

    @property
    def drawn(self) -> int:
        """How many tokens of the answer lie before what the executor generates."""
        return self._generated

    @property
    def first_ids(self) -> list[int]:
        """The executor's prompt, images' virtual ids and all."""
        generated = self.generation.generated[: self._generated]
        return [*self.generation.prompt_ids, *generated]

    @property
    def is_encoded(self) -> bool:
        return all(embedding.done() for embedding in self.embeddings)

    def ends_itself(self, last: TokenOutput) -> bool:
        """Whether the executor knows, too, that this is its last output."""
        end = self.generation.stop_ids[:1]
        return last.finish is Finish.LENGTH or [token.id for token in last.tokens] == end

    def already_ended(self) -> Finish | None:
        """Whether the tokens of an earlier attempt end it."""
        generated = self.generation.generated
        if not generated:
            return None
        if generated[-1] in self.generation.stop_ids:
            return Finish.STOP
        return Finish.LENGTH if len(generated) >= self.limit else None

    def take(self, token: int) -> TokenOutput | None:
        """What is told of the next token that came; None when it was told by an earlier attempt."""
        self._generated += 1
        if self._expected:
            expected = self._expected.pop(0)
            if token == expected:
                return None
            return self.fail(
                f"the answer cannot be gone on with: its token {self._generated - 1} was {expected}, and is {token} now"
            )
        finish = Finish.LENGTH if self._generated >= self.limit else None
        if token in self.generation.stop_ids:
            finish = Finish.STOP
        return self._output([SampledToken(token)], finish)

    def end(self, finish: Finish) -> TokenOutput:
        return self._output([], finish)

    def fail(self, error: str) -> TokenOutput:
        return self._output([], Finish.ERROR, error)

    def _output(self, tokens: list[SampledToken], finish: Finish | None, error: str = "") -> TokenOutput:
        cached = None if self._told else self.cached_tokens
        if finish is not None and not self._told:
            cached = cached or 0
        self._told = self._told or cached is not None
        return TokenOutput(self.generation.id, tokens, finish, error, cached)
