"""From what the engine drew to the tokens of an answer: text, logprobs, and where it ends. Knows no engine process.

A token's text depends on the ids up to it alone, so replaying an earlier attempt's ids gives the same texts.
"""

from collections.abc import Iterable, Sequence

from jobs.job import FinishReason, Token, TopLogprob
from worker.detokenizer import Detokenizers
from worker.engine.generation import SampledToken
from worker.stop_strings import StopStrings


class Transcript:
    """One choice as it grows. Not thread-safe: whoever runs the job replays, then the engine's receiver appends. The
    text of the first `min_tokens` tokens counts neither as a stop string nor as the beginning of one. `marks` are
    special tokens that the answer shows."""

    def __init__(
        self,
        detokenizers: Detokenizers,
        stops: Iterable[str],
        stop_ids: Iterable[int],
        max_tokens: int,
        min_tokens: int = 0,
        choice: int = 0,
        marks: Iterable[str] = (),
    ) -> None:
        self._detokenizers = detokenizers
        self._detokenizer = detokenizers.new(marks)
        self._stops = StopStrings(stops)
        self._stop_ids = frozenset(stop_ids)
        self._max_tokens = max_tokens
        self._min_tokens = min_tokens
        self._choice = choice
        self._tokens: list[Token] = []
        self.finish_reason: FinishReason | None = None

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(self._tokens)

    def __len__(self) -> int:
        return len(self._tokens)

    def replay(self, tokens: Sequence[Token]) -> None:
        """Takes an earlier attempt's tokens as they are."""
        for token in tokens:
            if self.finish_reason is None:
                self._text_of(token.id)
                self._tokens.append(token)

    def push(self, drawn: SampledToken) -> Token | None:
        """The token to publish; None when the answer has ended already."""
        if self.finish_reason is not None:
            return None
        top = tuple(TopLogprob(t.id, self._detokenizers.piece(t.id), t.logprob) for t in drawn.top)
        token = Token(drawn.id, self._text_of(drawn.id), drawn.logprob, top, self._choice)
        self._tokens.append(token)
        return token

    def _text_of(self, token_id: int) -> str:
        """Advances by one id; decides whether the answer ends with it."""
        ended = token_id in self._stop_ids
        full = len(self._tokens) + 1 >= self._max_tokens
        text = "" if ended else self._detokenizer.push(token_id)
        if len(self._tokens) >= self._min_tokens:
            text = self._stops.push(text)
        if (ended or full) and self._stops.hit is None:
            text += self._stops.push(self._detokenizer.flush())
        if self._stops.hit is not None or ended:
            self.finish_reason = FinishReason.STOP
        elif full:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None and self._stops.hit is None:
            text += self._stops.flush()
        return text
