"""Grammars as the executor keeps them (guided decoding, XGrammar). What it cannot keep is refused by name."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from worker.engine.generation import Generation, GrammarKind
from worker.engine.protocol import Rejected

STOP_TOKENS = ("<|im_end|>", "<|endoftext|>")
"""The executor knows only these as ends of what keeps a grammar; the prompt's side has the same."""


@dataclass(frozen=True, slots=True)
class Guidance:
    """`vocabulary` is each token's text by its id, `tokenizer` the text of tokenizer.json."""

    vocabulary: list[str]
    tokenizer: str
    stop_ids: tuple[int, ...]

    @classmethod
    def load(cls, checkpoint: Path, vocab_size: int) -> "Guidance":
        text = (checkpoint / "tokenizer.json").read_text(encoding="utf-8")
        tokenizer = Tokenizer.from_str(text)
        vocabulary = [tokenizer.id_to_token(token) or "" for token in range(vocab_size)]
        found = (tokenizer.token_to_id(name) for name in STOP_TOKENS)
        return cls(vocabulary, text, tuple(token for token in found if token is not None))

    def config(self, api: Any) -> Any:
        """A GuidedDecodingConfig. None where the tokenizer has no end that is known: then nothing is guided."""
        if not self.stop_ids:
            return None
        return api.GuidedDecodingConfig(
            api.GuidedDecodingConfig.GuidedDecodingBackend.XGRAMMAR,
            encoded_vocab=self.vocabulary,
            tokenizer_str=self.tokenizer,
            stop_token_ids=list(self.stop_ids),
        )

    def params(self, api: Any, generation: Generation) -> Any:
        """GuidedDecodingParams, or None for a generation without a grammar. Raises Rejected."""
        grammar = generation.grammar
        if grammar is None:
            return None
        if set(generation.stop_ids) != set(self.stop_ids) or not self.stop_ids:
            raise Rejected(
                "invalid_prompt",
                f"stop_ids are {generation.stop_ids}; an answer that keeps a grammar must end at {list(self.stop_ids)}",
            )
        kinds = api.GuidedDecodingParams.GuideType
        match grammar.kind:
            case GrammarKind.JSON_OBJECT:
                return api.GuidedDecodingParams(kinds.JSON_SCHEMA, '{"type":"object"}')
            case GrammarKind.JSON_SCHEMA:
                return api.GuidedDecodingParams(kinds.JSON_SCHEMA, grammar.schema)
        raise Rejected(
            "invalid_json_schema",
            "TensorRT-LLM keeps JSON schemas only; it cannot be held to rules, such as those of a required tool",
        )
