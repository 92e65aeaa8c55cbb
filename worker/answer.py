"""A job's answer as it grows: one transcript per choice, and all their tokens in one order.

Choices take turns: the first token of each, then the second of each that has one, and so on. The order depends on the
choices' own tokens alone, not on which the engine drew first, so a token has the same place in every attempt; the price
is that a choice waits for those before it to catch up.
"""

from collections import deque
from collections.abc import Sequence

from jobs.job import FinishReason, Token
from worker.engine.generation import SampledToken
from worker.transcript import Transcript


class Answer:
    """Not thread-safe: whoever runs the job replays, then the engine's receiver appends."""

    def __init__(self, transcripts: Sequence[Transcript]) -> None:
        self._transcripts = transcripts
        self._waiting: list[deque[Token]] = [deque() for _ in transcripts]
        self._tokens: list[Token] = []
        self._turn = 0

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Those whose turn has come, in their order."""
        return tuple(self._tokens)

    @property
    def finish_reasons(self) -> tuple[FinishReason | None, ...]:
        """Of each choice; None while it goes on."""
        return tuple(transcript.finish_reason for transcript in self._transcripts)

    @property
    def complete(self) -> bool:
        """Whether every choice has ended. Then no token waits for its turn."""
        return all(reason is not None for reason in self.finish_reasons)

    def ids_of(self, choice: int) -> list[int]:
        """The choice's tokens so far, those that wait for their turn included."""
        return [token.id for token in self._transcripts[choice].tokens]

    def replay(self, tokens: Sequence[Token]) -> None:
        """Takes the first tokens as an earlier attempt gave them."""
        for token in tokens:
            self._transcripts[token.choice].replay([token])
            self._tokens.append(token)
            self._turn = self._after(token.choice)
        self._skip_ended()

    def push(self, choice: int, drawn: Sequence[SampledToken]) -> list[Token]:
        """Takes a choice's new tokens; returns all whose turn has come by that."""
        transcript = self._transcripts[choice]
        self._waiting[choice].extend(token for d in drawn if (token := transcript.push(d)) is not None)
        return self._release()

    def end(self, choice: int, reason: FinishReason) -> list[Token]:
        """The engine has ended the choice, whatever its transcript expected; returns all whose turn has come."""
        transcript = self._transcripts[choice]
        transcript.finish_reason = transcript.finish_reason or reason
        return self._release()

    def _release(self) -> list[Token]:
        before = len(self._tokens)
        self._skip_ended()
        while self._waiting[self._turn]:
            self._tokens.append(self._waiting[self._turn].popleft())
            self._turn = self._after(self._turn)
            self._skip_ended()
        return self._tokens[before:]

    def _skip_ended(self) -> None:
        for _ in self._transcripts:
            if self._waiting[self._turn] or self._transcripts[self._turn].finish_reason is None:
                return
            self._turn = self._after(self._turn)

    def _after(self, choice: int) -> int:
        return (choice + 1) % len(self._transcripts)
