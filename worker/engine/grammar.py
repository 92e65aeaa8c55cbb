"""Grammars that answers must keep: compiled once per text, then followed token by token. Knows no tensors, no requests.

Built on llguidance, which walks the tokenizer's trie beside the grammar's parser. Every call is bounded by fuel, so a
hostile schema ends in an error instead of holding the engine up.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from llguidance import LLMatcher, LLParserLimits, LLTokenizer
from llguidance.numpy import fill_next_token_bitmask
from numpy.typing import NDArray

from worker.engine.generation import Grammar, GrammarKind
from worker.engine.json_rules import OPTIONS
from worker.engine.protocol import Rejected

SCHEMA_BYTES = 64 << 10
RULES_BYTES = 1 << 20
_KEPT = 64
_ANY_OBJECT = '{"type":"object"}'

Bits = NDArray[np.int32]


class Matcher:
    """One answer's place in its grammar."""

    def __init__(self, state: LLMatcher) -> None:
        self._state = state

    def allow(self, bits: Bits, row: int) -> None:
        """Sets bit i of row `row` of int32 `[rows, ceil(vocabulary / 32)]` where token i may come next. End tokens
        may where the grammar is fulfilled, and nothing else may once it admits no more."""
        fill_next_token_bitmask(self._state, bits, row)

    def take(self, tokens: Sequence[int]) -> bool:
        """Goes on by these tokens, of which none ends the answer. False: they do not keep the grammar."""
        return bool(self._state.consume_tokens(list(tokens)))

    @property
    def error(self) -> str:
        """Why it can follow no longer; empty while it can."""
        return self._state.get_error() if self._state.is_error() else ""


class Grammars:
    """Thread-safe. `tokenizer` is the text of the checkpoint's tokenizer.json; `vocab_size` the width of logits."""

    def __init__(self, tokenizer: str, vocab_size: int) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._tries: dict[tuple[int, ...], LLTokenizer] = {}
        self._compiled: OrderedDict[tuple[Grammar, tuple[int, ...]], LLMatcher] = OrderedDict()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="grammar")

    @classmethod
    def load(cls, checkpoint: Path, vocab_size: int) -> "Grammars":
        return cls((checkpoint / "tokenizer.json").read_text(encoding="utf-8"), vocab_size)

    def begin(self, grammar: Grammar, stop_ids: Sequence[int]) -> "Future[Matcher]":
        """Compiles on a thread of its own, after which `matcher` answers at once."""
        return self._pool.submit(self.matcher, grammar, stop_ids)

    def matcher(self, grammar: Grammar, stop_ids: Sequence[int]) -> Matcher:
        """At the grammar's beginning. Raises Rejected (`invalid_json_schema`)."""
        key = grammar, tuple(stop_ids)
        with self._lock:
            known = self._compiled.get(key)
        if known is None:
            # Not under the lock: one that is known must not wait for one that is compiled.
            known = _compile(grammar, self._trie(key[1]))
        with self._lock:
            self._compiled[key] = known
            self._compiled.move_to_end(key)
            if len(self._compiled) > _KEPT:
                self._compiled.popitem(last=False)
        return Matcher(known.deep_copy())

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _trie(self, stop_ids: tuple[int, ...]) -> LLTokenizer:
        if not stop_ids:
            raise Rejected("invalid_prompt", "a generation with a grammar needs stop_ids: the grammar decides its end")
        if stop_ids not in self._tries:
            self._tries[stop_ids] = LLTokenizer(self._tokenizer, n_vocab=self._vocab_size, eos_token=list(stop_ids))
        return self._tries[stop_ids]


def _compile(grammar: Grammar, trie: LLTokenizer) -> LLMatcher:
    what = "grammar" if grammar.kind is GrammarKind.LARK else "schema"
    state = LLMatcher(trie, _rules(grammar), log_level=0, limits=LLParserLimits(verbose_errors=False))
    if state.is_error():
        raise Rejected("invalid_json_schema", f"the {what} cannot be kept: {state.get_error()}")
    return state


def _rules(grammar: Grammar) -> str:
    if grammar.kind is GrammarKind.LARK:
        _check_size("grammar", grammar.rules, RULES_BYTES)
        return LLMatcher.grammar_from_lark(grammar.rules)
    schema = _ANY_OBJECT if grammar.kind is GrammarKind.JSON_OBJECT else grammar.schema
    _check_size("schema", schema, SCHEMA_BYTES)
    try:
        return LLMatcher.grammar_from_json_schema(schema, overrides=OPTIONS)  # type: ignore[arg-type]
    except ValueError as exc:
        raise Rejected("invalid_json_schema", f"the schema is no JSON object that can be read: {exc}") from exc


def _check_size(what: str, text: str, most: int) -> None:
    if (size := len(text.encode())) > most:
        raise Rejected("invalid_json_schema", f"the {what} has {size} bytes; at most {most} are allowed")
