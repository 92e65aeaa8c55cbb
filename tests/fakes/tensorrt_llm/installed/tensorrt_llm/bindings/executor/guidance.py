"""Guided decoding: XGrammar's part is played by llguidance."""

from llguidance import LLMatcher, LLTokenizer
from llguidance.gbnf_to_lark import gbnf_to_lark

from tensorrt_llm.bindings.executor.config import GuidedDecodingConfig
from tensorrt_llm.bindings.executor.enums import GuidedDecodingBackend, GuideType
from tensorrt_llm.bindings.executor.request import GuidedDecodingParams
from worker.engine.grammar import Matcher


class Guidance:
    def __init__(self, config: GuidedDecodingConfig, vocab_size: int) -> None:
        if config.backend is GuidedDecodingBackend.LLGUIDANCE:
            raise RuntimeError("LLGuidance is not supported for guided decoding in C++ runtime.")
        if config.encoded_vocab is None:
            raise RuntimeError("bad optional access")
        if config.tokenizer_str is None or not config.stop_token_ids:
            raise RuntimeError("this stand-in needs tokenizer_str and stop_token_ids")
        self._trie = LLTokenizer(config.tokenizer_str, n_vocab=vocab_size, eos_token=config.stop_token_ids)

    def matcher(self, asked: GuidedDecodingParams) -> Matcher:
        """Raises RuntimeError for a guide that cannot be followed."""
        try:
            state = LLMatcher(self._trie, _rules(asked), log_level=0)
        except ValueError as exc:
            raise RuntimeError(str(exc)) from exc
        if state.is_error():
            raise RuntimeError(state.get_error())
        return Matcher(state)


def _rules(asked: GuidedDecodingParams) -> str:
    guide = asked.guide or ""
    match asked.guide_type:
        case GuideType.JSON:
            return LLMatcher.grammar_from_json_schema("{}")
        case GuideType.JSON_SCHEMA:
            return LLMatcher.grammar_from_json_schema(guide)
        case GuideType.REGEX:
            return LLMatcher.grammar_from_regex(guide)
        case GuideType.EBNF_GRAMMAR:
            return LLMatcher.grammar_from_lark(gbnf_to_lark(guide))
    raise RuntimeError(f"{asked.guide_type} is not to be had from this stand-in")
